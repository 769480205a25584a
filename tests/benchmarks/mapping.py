"""What a mapping costs: CPU time of one record, for each shipped mapping and for an event that needs none.

Prints a line for each, and one JSON object at the end: microseconds of CPU time for a record of that platform.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from workers.core.decode import decode
from workers.core.records import Record
from workers.mapping.document import parse_yaml
from workers.mapping.examples import NAMES, read
from workers.mapping.mapping import Mapping
from workers.settings import Events

ROUNDS = 5
RECORDS = 1_000


def best_us(read_one: Callable[[], object]) -> float:
    """Give the CPU time of one call in microseconds: the best of some rounds, because other work only adds to it."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(RECORDS):
            read_one()
        best = min(best, time.process_time() - begun)
    return round(best / RECORDS * 1e6, 1)


def main() -> None:
    """Measure."""
    events = Events()
    plain = b'{"event_id": "900", "tenant_id": "acme", "surface": "chat", "text": "I will find you and tell you"}'
    found = {"event without a mapping": best_us(lambda: decode(plain, events))}
    for name in NAMES:
        mapping = Mapping(parse_yaml(read(f"{name}.yaml"), name))
        record = Record(read(f"{name}.jsonl").encode().splitlines()[0], topic="shop.public.comments")
        found[name] = best_us(lambda mapping=mapping, record=record: mapping.events(record, events))  # type: ignore[misc]
    for name, cost in found.items():
        sys.stdout.write(f"{name:<24} {cost:6.1f} us of CPU a record\n")
    sys.stdout.write(json.dumps({"cpu_us_a_record": found}) + "\n")


if __name__ == "__main__":
    main()
