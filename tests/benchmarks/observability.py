"""`make bench-observability`: records/s with metrics, logs and traces, divided by records/s without them, interleaved.

Every record has a `traceparent` of a trace of its own, which its producer records. The engine answers at once. Each
round runs, in another order:

- `off`: metrics that count nothing (`unobserved.py`), no log, no traces.
- `on`: the metrics, which are scraped every second, and the log. `ratio` is `on / off`.
- `traced`: the same, and traces, exported to a server that reads and drops them. `traced_ratio` is `traced / off`.
- With `--bare` also `bare`: as `off`, without the usage topic, and verdicts without headers. `bare_ratio` is
  `off / bare`: what usage and the headers cost. Verdicts carry the headers of traces by default, also without traces.

The ratios are of records/s since the first record. `cpu_ratio` and `traced_cpu_ratio` are the same for the CPU time of
a record, which other work on the machine disturbs less.

`--memory` runs one worker with everything on over a million events instead (`--memory=COUNT`: over so many), and prints
its memory after 100,000 events and after all.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer

from infra.devstack.stack import running
from tests.benchmarks.overhead import median_ratio
from tests.benchmarks.run_worker import Run, timed_run
from tests.collector import receiving
from tests.site import Site
from workers.kafka.topics import create

RECORDS = 60_000
ROUNDS = 5
SCRAPE_S = 1.0

MANY = 1_000_000
FIRST = 100_000
"""By then every buffer, cache and bounded queue of a worker has been full."""
TTL_S = "20"
"""How long Redis keeps what the long run stores, so that Redis stays small."""


class Sink:
    """Receives spans, and drops them."""

    def __init__(self) -> None:
        self.bytes = 0
        self.url = ""

    def count(self, body: bytes) -> None:
        self.bytes += len(body)


@contextmanager
def sink() -> Iterator[Sink]:
    """Receive until the block ends."""
    found = Sink()
    with receiving(found.count, protocol="HTTP/1.1") as found.url:
        yield found


@contextmanager
def scraped(port: int) -> Iterator[list[str]]:
    """Scrape a worker every `SCRAPE_S` during the block. The list gets every answer."""
    answers: list[str] = []
    has_ended = threading.Event()

    def scrape() -> None:
        while not has_ended.wait(SCRAPE_S):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    answers.append(answer.read().decode())
            except OSError:
                continue  # It starts or has ended.

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        has_ended.set()
        thread.join()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def produce(site: Site, count: int) -> None:
    """Send events, each with a trace of its own."""
    producer = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers, "linger.ms": 20})
    topic = site.settings().topics.inputs[0]
    for number in range(count):
        value = (
            f'{{"event_id":"e{number}","tenant_id":"acme","surface":"chat",'
            f'"text":"a message of usual length about this and that, number {number}"}}'
        )
        headers: dict[str, str | bytes | None] = {
            "traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        }
        while True:
            try:
                producer.produce(topic, value.encode(), f"room-{number % 500}".encode(), headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 1_000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


def traces_to(collector: Sink) -> dict[str, str]:
    return {"GUARDLINE_TELEMETRY__TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}


def run(site: Site, collector: Sink, mode: str) -> Run:
    """Run a worker over the records in one of the modes. Each has a group and outputs that are new."""
    name = f"{site.settings().kafka.group}.{mode}"
    outputs = {
        f"GUARDLINE_TOPICS__{topic.upper()}": f"{name}.{topic}"
        for topic in ("verdicts", "review", "dead_letters", "usage")
    }
    port = free_port()
    changes = {
        **outputs,
        "GUARDLINE_KAFKA__GROUP": name,
        "GUARDLINE_REDIS__NAMESPACE": name,
        "GUARDLINE_HTTP__PORT": str(port),
    }
    if mode == "bare":
        changes |= {"GUARDLINE_TOPICS__USAGE": "", "GUARDLINE_EVENTS__CARRY_HEADERS": "[]"}
    if mode == "traced":
        changes |= traces_to(collector)
    create(site.settings(**changes))
    if mode in ("off", "bare"):
        return timed_run(site, RECORDS, "instant", "unobserved", threads=None, **changes)
    before = collector.bytes
    with scraped(port) as answers:
        result = timed_run(site, RECORDS, "instant", threads=None, **changes)
    assert answers, "the worker was scraped"
    assert mode == "on" or collector.bytes - before > RECORDS * 30, "every event is linked"
    return result


def rates() -> None:
    """Run the rounds and print one JSON object."""
    modes = ["off", "on", "traced", *(["bare"] if "--bare" in sys.argv else [])]
    runs: dict[str, list[Run]] = {mode: [] for mode in modes}
    with running() as stack, sink() as collector:
        for number in range(ROUNDS):
            site = Site(stack.kafka, stack.redis, partitions=6)
            site.create_topics()
            produce(site, RECORDS)
            order = deque(runs)
            order.rotate(number)
            for mode in order:
                runs[mode].append(run(site, collector, mode))
            said = ", ".join(
                f"{mode} {found[-1].flow_per_s:,.0f}/s ({found[-1].cpu_us:.0f} us)" for mode, found in runs.items()
            )
            print(f"round {number + 1}: {said}", flush=True)
            site.close()
    per_s = {mode: [one.flow_per_s for one in found] for mode, found in runs.items()}
    cpu_us = {mode: [one.cpu_us for one in found] for mode, found in runs.items()}
    bare = {"bare_ratio": median_ratio(per_s["off"], per_s["bare"])} if "bare" in per_s else {}
    print(
        json.dumps(
            {
                "bench": "observability",
                "records": RECORDS,
                **{f"{mode}_per_s": round(statistics.median(found)) for mode, found in per_s.items()},
                **{f"{mode}_cpu_us": round(statistics.median(found), 1) for mode, found in cpu_us.items()},
                "ratio": median_ratio(per_s["on"], per_s["off"]),
                "traced_ratio": median_ratio(per_s["traced"], per_s["off"]),
                "cpu_ratio": median_ratio(cpu_us["off"], cpu_us["on"]),
                "traced_cpu_ratio": median_ratio(cpu_us["off"], cpu_us["traced"]),
                **bare,
            }
        )
    )


def memory(count: int) -> None:
    """Run one worker with everything on over `count` events, and print one JSON object."""
    with running() as stack, sink() as collector:
        site = Site(stack.kafka, stack.redis, partitions=6)
        site.create_topics()
        produce(site, count)
        port = free_port()
        changes: Mapping[str, str] = {
            "GUARDLINE_HTTP__PORT": str(port),
            "GUARDLINE_DEDUP__EVENT_TTL_S": TTL_S,
            "GUARDLINE_DEDUP__CONTENT_TTL_S": TTL_S,
            **traces_to(collector),
        }
        began = time.monotonic()
        samples: list[tuple[float, float]] = []
        with subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.timed_worker", str(count), "instant"],
            env={**os.environ, **site.environment, **changes},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as worker:
            try:
                for committed, mib in _samples(worker, port):
                    if not samples or committed - samples[-1][0] >= FIRST / 2:
                        samples.append((committed, mib))
                        print(f"{committed:>9,.0f} events: {mib:.0f} MiB", flush=True)
                    last = mib
            finally:
                worker.terminate()
        took_s = time.monotonic() - began
        site.close()
    first = next(mib for committed, mib in samples if committed >= FIRST)
    print(
        json.dumps(
            {
                "bench": "memory",
                "events": count,
                "seconds": round(took_s),
                "rss_mib_at_100k": round(first),
                "rss_mib_at_the_end": round(last),
                "memory_ratio": round(last / first, 3),
            }
        )
    )


def _samples(worker: subprocess.Popen[bytes], port: int) -> Iterator[tuple[float, float]]:
    """Yield the committed events and the memory of the process in MiB, until it ends."""
    with scraped(port) as answers:
        seen = 0
        while worker.poll() is None:
            time.sleep(SCRAPE_S / 4)
            if len(answers) > seen:
                seen = len(answers)
                committed = re.search(r"^guardline_records_committed_total (\S+)", answers[-1], re.MULTILINE)
                try:
                    status = Path(f"/proc/{worker.pid}/status").read_text()
                except FileNotFoundError:
                    return
                if committed and (resident := re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)):
                    yield float(committed[1]), int(resident[1]) / 1024


if __name__ == "__main__":
    # So that a timeout ends the stack and the worker, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    flag = next((given for given in sys.argv if given.startswith("--memory")), None)
    if flag is None:
        rates()
    else:
        memory(int(flag.partition("=")[2] or MANY))
