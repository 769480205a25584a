"""`make bench-actions`: deliveries a second to a local receiver, and what a dead endpoint costs the others.

One worker process is tied to one core; the receiver is another process, and Kafka has what is left. Runs with one
endpoint, and with a second one that never answers, take turns. Each reads the same verdicts with a group of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from infra.devstack.stack import running
from tests.command import GUARDLINE
from tests.servers.receiver import Receiver
from tests.site import Process, Site
from workers.kafka.topics import create

COUNT = 12_000
KEYS = 400
ROUNDS = 3
FIXTURE = Path(__file__).parents[1] / "fixtures" / "contracts" / "verdict" / "1.3.json"
SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
CORE = 0
DELIVERED = 'guardline_deliveries_total{endpoint="works",outcome="delivered"}'


def main() -> None:
    """Measure, and print a line for each run."""
    with running() as stack, tempfile.TemporaryDirectory() as folder:
        site = Site(stack.kafka, stack.redis, partitions=6)
        receiver = Receiver(Path(folder))
        (Path(folder) / "secret").write_text(SECRET)
        try:
            topics = site.settings().topics
            create(
                site.settings(),
                [topics.verdicts, topics.deliveries, topics.forget, "undelivered.works", "undelivered.dead"],
            )
            produce(site)
            works, beside = list[tuple[float, float]](), list[tuple[float, float]]()
            for number in range(ROUNDS):
                works.append(measured(site, receiver, 2 * number, ["works"]))
                beside.append(measured(site, receiver, 2 * number + 1, ["works", "dead"]))
        finally:
            receiver.close()
            site.close()
    alone, with_dead = (statistics.median(run[0] for run in runs) for runs in (works, beside))
    result = {
        "deliveries_per_s": round(alone),
        "deliveries_per_cpu_s": round(statistics.median(run[1] for run in works)),
        "beside_a_dead_endpoint_per_s": round(with_dead),
        "slower_by": round(1 - with_dead / alone, 3),
        "deliveries": COUNT,
        "rounds": ROUNDS,
    }
    print(json.dumps(result))


def produce(site: Site) -> None:
    """Write the verdicts: the newest of the published examples, each with its own id."""
    document = {**json.loads(FIXTURE.read_text()), "decision": "block", "supersedes": None}
    settings = site.settings()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "linger.ms": 20})
    for number in range(COUNT):
        value = json.dumps({**document, "verdict_id": f"{number:032x}"}).encode()
        producer.produce(settings.topics.verdicts, value, f"room-{number % KEYS}".encode())
        producer.poll(0)
    assert producer.flush(30) == 0


def measured(site: Site, receiver: Receiver, number: int, names: list[str]) -> tuple[float, float]:
    """Return deliveries a second of the endpoint that works, and a second of the worker's CPU time.

    Both are counted from the first delivery that the metrics show, so that the start of the worker does not count.
    """
    paths = {"works": "ok", "dead": "hang"}
    endpoints: list[dict[str, Any]] = [
        {
            "name": name,
            "url": receiver.url(paths[name]),
            "allow_http": True,
            "allow_networks": ["127.0.0.0/8"],
            "secret_files": [str(receiver.folder / "secret")],
            "undelivered": f"undelivered.{name}",
        }
        for name in names
    ]
    group = f"{site.environment['GUARDLINE_KAFKA__GROUP']}.{number}"
    worker = site.worker(
        "taskset",
        "--cpu-list",
        str(CORE),
        GUARDLINE,
        "worker",
        "actions",
        GUARDLINE_KAFKA__GROUP=group,
        GUARDLINE_ACTIONS__ENDPOINTS=json.dumps(endpoints),
    )
    try:
        began = read_until(worker, 1)
        ended = read_until(worker, COUNT)
    finally:
        worker.popen.terminate()
        worker.wait()
    done, passed_s, cpu_s = (after - before for before, after in zip(began, ended, strict=True))
    print(
        f"{' and '.join(names)}: {done / passed_s:,.0f} deliveries/s, {cpu_s / passed_s:.0%} of a core", file=sys.stderr
    )
    return done / passed_s, done / cpu_s


def read_until(worker: Process, count: int) -> tuple[float, float, float]:
    """Wait until so many deliveries are committed; return their number, the time and the worker's CPU time."""
    end = time.monotonic() + 60
    while True:
        assert worker.popen.poll() is None, worker.text
        try:
            delivered = worker.metric(DELIVERED)
        except (StopIteration, OSError):
            delivered = 0
        if delivered >= count:
            return delivered, time.monotonic(), cpu_s(worker.popen.pid)
        assert time.monotonic() < end, f"{delivered:.0f} of {count} delivered: {worker.text[-2_000:]}"
        time.sleep(0.1)


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
