"""`make bench-overhead`: records/s through the whole worker, against a bare exactly-once copy loop, interleaved.

Both clocks start when the partitions are assigned, before anything is fetched, and end when the last output is
committed. Payloads and broker are the same for both.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from infra.devstack.stack import running
from tests.site import Site, eventually
from workers.verdicts import read

RECORDS = 60_000
ROUNDS = 3
TRANSACTIONS = (500, 2_000, 5_000)


def copy_loop(kafka: str, source: str, target: str, count: int, per_transaction: int) -> float:
    """Copy `count` records in a bare confluent-kafka exactly-once loop; return records/s."""
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
    started: float | None = None

    def assigned(_consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        nonlocal started
        started = time.monotonic()

    consumer.subscribe([source], on_assign=assigned)
    done = 0
    while done < count:
        batch: list[Message] = []
        while len(batch) < min(per_transaction, count - done):
            messages = consumer.consume(min(500, per_transaction), 0.5)
            batch += [message for message in messages if message.error() is None]
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
    assert started is not None
    rate = done / (time.monotonic() - started)
    consumer.close()
    return rate


def worker(site: Site, count: int) -> float:
    """Run one worker with the instant engine over the topic; return records/s."""
    log = Path(site.folder.name) / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.instant_worker"],
            env={**os.environ, **site.environment, "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=out,
        )
    try:
        eventually(lambda: "partitions assigned" in log.read_text(), "assigned", 30)
        line = next(line for line in log.read_text().splitlines() if "partitions assigned" in line)
        first = datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
        seen = 0
        last = time.time()
        for message in read(site.settings().kafka, [site.settings().topics.verdicts], from_beginning=True, follow=True):
            if message is None:
                assert process.poll() is None, log.read_text()[-2000:]
                continue
            seen += 1
            last = max(last, time.time())
            if seen == count:
                break
        return seen / (last - first)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def main() -> None:
    """Run the rounds and print one JSON object."""
    bare: dict[int, list[float]] = {size: [] for size in TRANSACTIONS}
    whole: list[float] = []
    with running() as stack:
        for round_ in range(ROUNDS):
            site = Site(stack.kafka, stack.redis, partitions=6)
            site.create_topics()
            site.events(RECORDS, keys=500, text="a message of usual length about this and that, number {}")
            settings = site.settings()
            for size in TRANSACTIONS:
                rate = copy_loop(stack.kafka, settings.topics.inputs[0], settings.topics.dead_letters, RECORDS, size)
                bare[size].append(rate)
            whole.append(worker(site, RECORDS))
            print(f"round {round_ + 1}: worker {whole[-1]:,.0f}/s, bare at 2,000 {bare[2_000][-1]:,.0f}/s", flush=True)
            site.close()
    ratios = [mine / its for mine, its in zip(whole, bare[2_000], strict=True)]
    print(
        json.dumps(
            {
                "bench": "overhead",
                "records": RECORDS,
                "worker_per_s": round(statistics.median(whole)),
                **{f"bare_{size}_per_s": round(statistics.median(rates)) for size, rates in bare.items()},
                "ratio": round(statistics.median(ratios), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
