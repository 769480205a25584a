"""`make bench-overhead`: records/s through the whole worker, against a bare exactly-once copy loop, interleaved.

Both clocks start at the first poll, nothing is fetched before, and end when the last output is committed. Payloads
and broker are the same for both, and each has a group, a transactional id and an output topic that are new: to write
to a topic that another loop has written to before is twice as fast. Each round begins with another one of them.
`flow_ratio` leaves the joining of the group out: a new group costs either of them
0.1 to 1.3 s, by chance, before the first record. Afterwards every position is checked to have exactly one verdict.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import deque

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from infra.devstack.stack import running
from tests.benchmarks.run_worker import Run, run_worker
from tests.site import Site
from workers.kafka.topics import create

RECORDS = 60_000
ROUNDS = 5
TRANSACTIONS = (500, 2_000, 5_000)
YARDSTICK = 2_000


def copy_loop(kafka: str, source: str, target: str, count: int, per_transaction: int) -> tuple[float, float]:
    """Copy `count` records in a bare confluent-kafka exactly-once loop; return records/s since the first poll, and
    since the first record.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": f"bare-{time.monotonic_ns()}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 8_192,
            "fetch.queue.backoff.ms": 50,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "transactional.id": f"bare-{time.monotonic_ns()}",
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions(30)
    consumer.subscribe([source])
    started = time.monotonic()
    first_record: float | None = None
    done = 0
    while done < count:
        batch: list[Message] = []
        while len(batch) < min(per_transaction, count - done):
            messages = consumer.consume(min(500, per_transaction), 0.5)
            batch += [message for message in messages if message.error() is None]
            first_record = first_record or (time.monotonic() if batch else None)
        producer.begin_transaction()
        for message in batch:
            while True:
                try:
                    producer.produce(target, message.value(), message.key())
                    break
                except BufferError:
                    producer.poll(0.05)
        positions = {(str(m.topic()), int(m.partition() or 0)): int(m.offset() or 0) + 1 for m in batch}
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in positions.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)
        done += len(batch)
    ended = time.monotonic()
    consumer.close()
    assert first_record is not None
    return done / (ended - started), done / (ended - first_record)


def main() -> None:
    """Run the rounds and print one JSON object."""
    bare: dict[int, list[float]] = {size: [] for size in TRANSACTIONS}
    bare_flow: list[float] = []
    whole: list[Run] = []
    with running() as stack:
        for round_ in range(ROUNDS):
            site = Site(stack.kafka, stack.redis, partitions=6)
            site.create_topics()
            site.events(RECORDS, keys=500, text="a message of usual length about this and that, number {}")
            topics = site.settings().topics
            runs: deque[int | None] = deque([*TRANSACTIONS, None])
            runs.rotate(round_)
            for size in runs:
                if size is None:
                    # The one topic that the bare loop reads as well.
                    only = json.dumps(topics.inputs[:1])
                    whole.append(run_worker(site, RECORDS, "instant", GUARDLINE_TOPICS__INPUTS=only))
                    continue
                target = f"{topics.review}.{size}"
                create(site.settings(GUARDLINE_TOPICS__REVIEW=target))
                per_s, flow_per_s = copy_loop(stack.kafka, topics.inputs[0], target, RECORDS, size)
                bare[size].append(per_s)
                if size == YARDSTICK:
                    bare_flow.append(flow_per_s)
            rates = ", ".join(f"{rates[-1]:,.0f} at {size}" for size, rates in bare.items())
            run = whole[-1]
            print(f"round {round_ + 1}: worker {run.per_s:,.0f}/s ({run.cpu_us:.0f} us of CPU a record), bare {rates}")
            sys.stdout.flush()
            site.close()
    print(
        json.dumps(
            {
                "bench": "overhead",
                "records": RECORDS,
                "worker_per_s": round(statistics.median(run.per_s for run in whole)),
                "worker_cpu_us": round(statistics.median(run.cpu_us for run in whole)),
                **{f"bare_{size}_per_s": round(statistics.median(rates)) for size, rates in bare.items()},
                "ratio": median_ratio([run.per_s for run in whole], bare[YARDSTICK]),
                "flow_ratio": median_ratio([run.flow_per_s for run in whole], bare_flow),
            }
        )
    )


def median_ratio(mine: list[float], its: list[float]) -> float:
    """Give the median of the ratios of the rounds."""
    return round(statistics.median(one / other for one, other in zip(mine, its, strict=True)), 3)


if __name__ == "__main__":
    main()
