"""How long `next` takes with 100,000 waiting items against 100, and what 100,000 items cost at a start.

Choosing the item alone, without Kafka; and `POST /v1/next` with a worker process and the embedded Kafka, up to the
answer. `make bench-review` prints one JSON object at last. Times are p99.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import time

from confluent_kafka import Producer
from msgspec.structs import replace

from infra.devstack.stack import Stack, running
from tests.reviewing import Desk as DeskProcess
from tests.reviewing import now_ms, verdict_id
from tests.site import Site, eventually
from tests.unit.review.given import NOW, TENANT, command, given, opened
from workers.review.desk import Desk
from workers.review.item import Item, decoded, encoded
from workers.review.queues import Reader
from workers.review.rules import applied

SMALL, LARGE = 100, 100_000
ROUNDS = 20_000
WARM_UP = 500
CALLS = 150
CALLS_BEFORE = 10
DECIDED = CALLS_BEFORE + CALLS
TENANTS, LANGUAGES = 5, ("en", "de", "fr", "tr")


def items(count: int, now: int) -> list[bytes]:
    """Give the records of waiting items, of several tenants and languages."""
    found = []
    for number in range(count):
        item = opened(
            now=now,
            verdict_id=verdict_id(number),
            tenant_id=f"tenant-{number % TENANTS}",
            language=LANGUAGES[number % len(LANGUAGES)],
            timings={"received_at": now - number * 7919 % 3_000_000, "judged_ms": 1.0},
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


def next_ms(stack: Stack, records: list[bytes]) -> list[float]:
    """Give the sorted times of `POST /v1/next` of one person who decides each item."""
    site = Site(stack.kafka, stack.redis)
    try:
        desk = DeskProcess(site)
        desk.create_topics()
        settings = site.settings()
        producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "linger.ms": 20})
        for number, record in enumerate(records):
            producer.produce(settings.topics.review_state, record, verdict_id(number).encode())
            producer.poll(0)
        assert producer.flush(60) == 0
        desk.start()
        taken = []
        with desk.client("ana") as ana:
            eventually(lambda: desk.waiting("ana") == len(records), "the items wait")
            for _ in range(DECIDED):
                began = time.perf_counter()
                answer = ana.post("/v1/next", json={})
                taken.append((time.perf_counter() - began) * 1e3)
                decided = ana.post(f"/v1/items/{answer.json()['verdict_id']}/decide", json={"decision": "block"})
                assert decided.status_code == 200, decided.text
        return sorted(taken[CALLS_BEFORE:])
    finally:
        site.close()


def main() -> None:
    records = items(LARGE + DECIDED, now_ms())
    small = p99_us(desk_of(records[:SMALL]))
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    desk = desk_of(records[:LARGE])
    load_s = time.perf_counter() - began
    memory_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    gc.collect()
    gc.freeze()
    large = p99_us(desk)
    del desk
    # Last: what it takes must not count as memory of the items.
    with running() as stack:
        few, many = next_ms(stack, records[: SMALL + DECIDED]), next_ms(stack, records)
    few_p99, many_p99 = (taken[int(CALLS * 0.99)] for taken in (few, many))
    print(
        json.dumps(
            {
                "next_ms_100": round(few_p99, 1),
                "next_ms_100000": round(many_p99, 1),
                "next_ratio": round(many_p99 / few_p99, 2),
                "next_median_ms_100": round(statistics.median(few), 1),
                "next_median_ms_100000": round(statistics.median(many), 1),
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
