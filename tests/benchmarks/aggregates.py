"""Verdicts/s of `guardline worker aggregates` against a bare Faust agent that only counts records by their key.

Both read the same verdicts in the same run, one after the other, for several rounds. The bare agent writes one row for
each record; the worker decodes it, regroups it, and counts it for its tenant and its author, with strikes.

Prints a line for each round, and one JSON object at the end.
"""

from __future__ import annotations

import json
import secrets
import signal
import statistics
import subprocess
import sys
import time
from urllib.request import urlopen

from infra import devstack
from tests.aggregates import Verdicts, create_topics, harmless, set_policy, verdict, worker
from tests.site import Process, Site, eventually

ROUNDS = 3
VERDICTS = 20_000
AUTHORS = 5_000
PARTITIONS = 4
DONE = 'guardline_aggregates_row_updates_total{result="counted"}'
CPU = "process_cpu_seconds_total"


def write(site: Site) -> None:
    """Write the verdicts of one tenant and many authors; one in ten is harmful."""
    writer = Verdicts(site)
    for begin in range(0, VERDICTS, 2_000):
        writer.write(
            (verdict if number % 10 == 0 else harmless)(number, author_id=f"author-{number * 7_919 % AUTHORS}")
            for number in range(begin, begin + 2_000)
        )


def metrics(address: str) -> tuple[float, float]:
    """Return the updates of rows, and the seconds of CPU time."""
    with urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if line.startswith((DONE, CPU)))
    return float(found.get(DONE, 0)), float(found[CPU])


def ours(site: Site) -> tuple[float, float]:
    """Return verdicts/s and microseconds of CPU time a verdict, from the first to the last update of a row."""
    process: Process = worker(site, GUARDLINE_KAFKA__GROUP=f"bench-{secrets.token_hex(3)}")
    eventually(lambda: "serving /livez" in process.text, "the worker serves its metrics", 60)
    address = process.address
    begun = 0.0, 0.0, 0.0
    while True:
        count, cpu = metrics(address)
        now = time.monotonic()
        if count and not begun[0]:
            begun = now, count, cpu
        if count >= 2 * VERDICTS:
            break
        time.sleep(0.05)
    process.send(signal.SIGTERM)
    process.wait(60)
    verdicts = (count - begun[1]) / 2
    return verdicts / (now - begun[0]), (cpu - begun[2]) / verdicts * 1e6


def bare(site: Site) -> tuple[float, float]:
    """Return records/s and microseconds of CPU time a record."""
    settings = site.settings()
    program = [sys.executable, "-m", "tests.benchmarks.bare_faust", settings.kafka.bootstrap_servers]
    group = f"bare-{secrets.token_hex(3)}"
    done = subprocess.run(
        [*program, settings.topics.verdicts, group, str(VERDICTS), str(PARTITIONS)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    seconds, cpu = map(float, done.stdout.split())
    return VERDICTS / seconds, cpu / VERDICTS * 1e6


def main() -> None:
    """Measure."""
    found: dict[str, list[tuple[float, float]]] = {"worker": [], "bare": []}
    with devstack.running() as stack:
        site = Site(stack.kafka, stack.redis, PARTITIONS)
        try:
            create_topics(site)
            set_policy(site)
            write(site)
            for number in range(ROUNDS):
                for name, measure in (("worker", ours), ("bare", bare)):
                    rate, cpu = measure(site)
                    found[name].append((rate, cpu))
                    sys.stdout.write(
                        f"round {number + 1}, {name:<7} {rate:8.0f} verdicts/s, {cpu:6.1f} us of CPU each\n"
                    )
                    sys.stdout.flush()
        finally:
            site.close()
    ratios = [worker[0] / bare[0] for worker, bare in zip(found["worker"], found["bare"], strict=True)]
    sys.stdout.write(
        json.dumps(
            {
                "verdicts_per_s": round(statistics.median(rate for rate, _ in found["worker"])),
                "bare_per_s": round(statistics.median(rate for rate, _ in found["bare"])),
                "ratio": round(statistics.median(ratios), 2),
                "ratios": [round(ratio, 2) for ratio in ratios],
                "cpu_us": round(statistics.median(cpu for _, cpu in found["worker"]), 1),
                "bare_cpu_us": round(statistics.median(cpu for _, cpu in found["bare"]), 1),
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
