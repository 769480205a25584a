"""From produce to verdict: how long it takes until a read_committed reader holds an event's verdict, at a given load.

The load is open: events are sent when they are due, whether or not earlier ones are answered, so that a worker that
falls behind shows it.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from tests.benchmarks.end_to_end import records
from tests.site import Site, eventually

WARM_SHARE = 0.2
"""Of the events: the first ones find a worker that has not judged yet."""

DRAIN_S = 60.0
FOR_EVER = 1_000_000_000


@contextmanager
def worker(site: Site, *mode: str, **settings: str) -> Iterator[None]:
    """Run a worker that has its partitions; drain it at the end."""
    process = site.worker(sys.executable, "-m", "tests.benchmarks.timed_worker", str(FOR_EVER), *mode, **settings)
    eventually(lambda: process.has_partitions or process.popen.poll() is not None, "partitions assigned")
    assert process.popen.poll() is None, process.text
    yield
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process.text


class Reader:
    """Reads a site's verdicts, each as soon as its transaction is committed."""

    def __init__(self, site: Site) -> None:
        topics = site.settings().topics
        self._consumer = Consumer(
            {
                "bootstrap.servers": site.settings().kafka.bootstrap_servers,
                "group.id": f"reader-{secrets.token_hex(4)}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                # The default of 500 ms would be part of the measured latency.
                "fetch.wait.max.ms": 5,
            }
        )
        self._consumer.assign(
            [TopicPartition(topics.verdicts, number, OFFSET_BEGINNING) for number in range(topics.partitions)]
        )
        self.arrived: dict[str, float] = {}

    def poll(self, timeout_s: float) -> None:
        """Note the verdicts that are there, waiting for the first one for `timeout_s` at most."""
        for message in self._consumer.consume(1_000, timeout_s):
            if message.error() is None:
                # The time at which it was in hand, not the time of reading it.
                self.arrived.setdefault(json.loads(message.value() or b"")["event_id"], time.monotonic())

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


def latencies(site: Site, content: Sequence[str], per_s: float) -> list[float]:
    """Send the texts at `per_s`, evenly; give the seconds from each produce to its verdict, without the first ones."""
    topic = site.settings().topics.inputs[0]
    producer = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers, "linger.ms": 0})
    reader = Reader(site)
    sent: list[float] = []
    started = time.monotonic()
    for number, (key, value) in enumerate(records(content)):
        due = started + number / per_s
        while (left := due - time.monotonic()) > 0:
            reader.poll(min(left, 0.002))
        # From when it was due: a sender that is late must not make the worker look quicker.
        sent.append(due)
        producer.produce(topic, value, key)
        producer.poll(0)
    producer.flush(10)
    deadline = time.monotonic() + DRAIN_S
    while len(reader.arrived) < len(sent):
        reader.poll(0.01)
        assert time.monotonic() < deadline, f"{len(reader.arrived)} verdicts of {len(sent)} events"
    reader.close()
    first = int(WARM_SHARE * len(sent))
    return [reader.arrived[f"e{number}"] - sent[number] for number in range(first, len(sent))]


def alone(site: Site, content: Sequence[str]) -> list[float]:
    """Send one event at a time, each when the one before has its verdict; give the seconds."""
    topic = site.settings().topics.inputs[0]
    producer = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers, "linger.ms": 0})
    reader = Reader(site)
    seconds: list[float] = []
    for number, (key, value) in enumerate(records(content)):
        started = time.monotonic()
        producer.produce(topic, value, key)
        producer.flush(10)
        while f"e{number}" not in reader.arrived:
            reader.poll(0.01)
            assert time.monotonic() < started + DRAIN_S, f"no verdict of event {number}"
        seconds.append(reader.arrived[f"e{number}"] - started)
    reader.close()
    return seconds[int(WARM_SHARE * len(seconds)) :]


def in_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Give the median and the 99th percentile."""
    return {f"p{share}_ms": round(1_000 * float(np.percentile(seconds, share)), 1) for share in (50, 99)}
