"""How long `next` takes with 100,000 waiting items against 100, and what 100,000 items cost at a start.

No Kafka: the round trip of a command is the same for every size. `make bench-review` prints one JSON object at last.
"""

from __future__ import annotations

import gc
import json
import resource
import time

from msgspec.structs import replace

from tests.reviewing import verdict_id
from tests.unit.review.given import NOW, TENANT, command, given, opened
from workers.review.desk import Desk
from workers.review.item import Item, decoded, encoded
from workers.review.queues import Reader
from workers.review.rules import applied

SMALL, LARGE = 100, 100_000
ROUNDS = 20_000
WARM_UP = 500
TENANTS, LANGUAGES = 5, ("en", "de", "fr", "tr")


def items(count: int) -> list[bytes]:
    """Give the records of waiting items, of several tenants and languages."""
    found = []
    for number in range(count):
        item = opened(
            verdict_id=verdict_id(number),
            tenant_id=f"tenant-{number % TENANTS}",
            language=LANGUAGES[number % len(LANGUAGES)],
            timings={"received_at": NOW - number * 7919 % 3_000_000, "judged_ms": 1.0},
        )
        found.append(encoded(item))
    return found


def desk_of(records: list[bytes]) -> Desk:
    desk = Desk()
    desk.load(map(decoded, records), NOW)
    return desk


def p99_us(desk: Desk) -> float:
    """Take the next item, put it on lease, and decide it; a new one arrives. Time only the taking."""
    ana = Reader("ana", is_senior=False)
    taken: list[float] = []
    for number in range(WARM_UP + ROUNDS):
        began = time.perf_counter()
        item = desk.reserve(ana)
        taken.append(time.perf_counter() - began)
        assert item is not None
        lease = applied(item, given(command("lease", "ana", item.verdict_id))).item
        assert lease is not None
        desk.put(lease)
        desk.remove(item.verdict_id)
        desk.put(_again(item, number))
    ordered = sorted(taken[WARM_UP:])
    return ordered[int(len(ordered) * 0.99)] * 1e6


def _again(item: Item, number: int) -> Item:
    return replace(item, lease=None, turn_at=item.turn_at + TENANT.sla_ms + number)


def main() -> None:
    records = items(LARGE)
    small = p99_us(desk_of(records[:SMALL]))
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    desk = desk_of(records)
    load_s = time.perf_counter() - began
    memory_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    gc.collect()
    gc.freeze()
    large = p99_us(desk)
    print(
        json.dumps(
            {
                "p99_us_100": round(small, 2),
                "p99_us_100000": round(large, 2),
                "ratio": round(large / small, 2),
                "load_100000_s": round(load_s, 2),
                "memory_100000_mb": round(memory_mb),
                "state_bytes_an_item": len(records[0]),
            }
        )
    )


if __name__ == "__main__":
    main()
