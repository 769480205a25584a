"""`make bench-recovery`: how long partitions stop when a worker ends, and the throughput of a group under churn.

Three workers with guard-nano share six partitions of a steady load. For each way to end, the longest time for which a
partition's committed offset did not move: the worst of the ended worker's partitions, and the worst of the others'.
The start of a process alone takes both cores of a small machine for some seconds: `start_s` is the longest silence of
all partitions while a worker of another group starts, and `load_s` how long a worker takes from its start to its
partitions. `visible_s` is the longest time without a verdict for a read_committed reader, of any partition: a killed
worker's open transaction holds up all readers of the topics that it wrote to.

Then the churn: a kill, a stop or a join every 3 s, with more input than can be judged, against the same undisturbed.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, pairwise
from pathlib import Path

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition

from infra.devstack.stack import Stack, running
from tests.benchmarks.end_to_end import texts
from tests.site import Process, Site, eventually
from workers.kafka import membership

WORKERS = 3
PARTITIONS = 3
"""Of each of the two input topics."""

PER_PARTITION_S = 20
"""Events a second and partition: steady, and far below what three workers judge."""

SETTLED_S = 2.0
"""How long all partitions have to move before the next worker ends."""

CHURN_S = 90
CHURN_EVERY_S = 3
UNDISTURBED_S = 20
BACKLOG = 12_000
"""Events ahead of the workers while throughput is measured."""

Partition = tuple[str, int]


class Progress(threading.Thread):
    """Notes when each partition's committed offset moves, and when verdicts of it become visible."""

    def __init__(self, site: Site, *, reads_verdicts: bool = True) -> None:
        super().__init__(daemon=True)
        settings = site.settings()
        brokers = settings.kafka.bootstrap_servers
        # Not read_committed: then it would wait for the offsets in doubt of a killed worker.
        self._group = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": settings.kafka.group,
                "isolation.level": "read_uncommitted",
                "log_level": 0,
            }
        )
        self._partitions = [(topic, number) for topic in settings.topics.inputs for number in range(PARTITIONS)]
        self._reader = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": f"reader-{secrets.token_hex(4)}",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                "log_level": 0,
            }
        )
        read = range(PARTITIONS if reads_verdicts else 0)
        self._reader.assign([TopicPartition(settings.topics.verdicts, number, OFFSET_END) for number in read])
        self._is_over = False
        self.offsets: dict[Partition, int] = {}
        self.moved: dict[Partition, list[float]] = defaultdict(list)
        self.seen: dict[Partition, list[float]] = defaultdict(list)

    def run(self) -> None:
        """Look ten times a second."""
        wanted = [TopicPartition(topic, number) for topic, number in self._partitions]
        while not self._is_over:
            found: list[TopicPartition] = []
            with suppress(KafkaException):  # A coordinator that was just made answers a moment later.
                found = self._group.committed(wanted, 1)
            now = time.monotonic()
            for one in found:
                partition = (one.topic, one.partition)
                if one.offset > self.offsets.get(partition, -1):
                    self.offsets[partition] = one.offset
                    self.moved[partition].append(now)
            for message in self._reader.consume(10_000, 0.05):
                if message.error() is None:
                    source = json.loads(message.value() or b"")["source"]
                    self.seen[(source["topic"], source["partition"])].append(time.monotonic())
        self._reader.close()
        self._group.close()

    def stop(self) -> None:
        """End."""
        self._is_over = True
        self.join()

    @property
    def committed(self) -> int:
        """How many records are committed."""
        return sum(self.offsets.values())

    def have_all_moved_since(self, began: float) -> bool:
        """Whether each partition moved after that."""
        return all(self.moved[one] and self.moved[one][-1] > began for one in self._partitions)

    def silence(self, times: dict[Partition, list[float]], began: float, partitions: set[Partition] | None) -> float:
        """The longest time between two marks of a partition, of which the second is after `began`; all where None."""
        return max(
            (
                after - before
                for partition, marks in times.items()
                if partitions is None or partition in partitions
                for before, after in pairwise(marks)
                if after > began
            ),
            default=0.0,
        )


class Load(threading.Thread):
    """Sends numbered texts to all partitions in turn: steadily, or so that there is always a backlog."""

    def __init__(self, site: Site, ahead_of: Callable[[], int] | None = None) -> None:
        super().__init__(daemon=True)
        settings = site.settings()
        self._producer = Producer(
            {"bootstrap.servers": settings.kafka.bootstrap_servers, "linger.ms": 2, "log_level": 0}
        )
        self._partitions = [(topic, number) for topic in settings.topics.inputs for number in range(PARTITIONS)]
        self._ahead_of = ahead_of
        self._is_over = False

    def run(self) -> None:
        """Send until `stop`."""
        began = time.monotonic()
        content = texts(1_000)
        for number in count():
            if self._is_over:
                break
            topic, partition = self._partitions[number % len(self._partitions)]
            event = {
                "event_id": f"{began}-{number}",
                "tenant_id": "acme",
                "surface": "chat",
                "text": f"{content[number % len(content)]} {number}",
            }
            self._producer.produce(topic, json.dumps(event).encode(), f"room-{number % 60}".encode(), partition)
            self._producer.poll(0)
            if self._ahead_of is None:
                time.sleep(max(0.0, began + number / (PER_PARTITION_S * len(self._partitions)) - time.monotonic()))
            else:
                while number - self._ahead_of() > BACKLOG and not self._is_over:
                    time.sleep(0.02)
        self._producer.flush(10)

    def stop(self) -> None:
        """End."""
        self._is_over = True
        self.join()


class Group:
    """The three workers of a site; each can be broken by a file."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._running: dict[int, Process] = {}

    def start(self, *numbers: int) -> float:
        """Start workers; return the seconds until the last of them has partitions."""
        began = time.monotonic()
        for number in numbers:
            self._breaker(number).unlink(missing_ok=True)
            self._running[number] = self._site.worker(
                sys.executable,
                "-m",
                "tests.chaos.faulty_worker",
                "break",
                str(self._breaker(number)),
                GUARDLINE_WORKER__ID=f"w{number}",
                GUARDLINE_KAFKA__SESSION_TIMEOUT_S="",
            )
        eventually(lambda: all(self._running[number].has_partitions for number in numbers), "partitions", 60)
        return time.monotonic() - began

    def launch(self, number: int) -> None:
        """Start a worker without waiting for it, once the one before it has ended."""
        self.wait(number)
        self._running[number] = self._site.worker(
            GUARDLINE_WORKER__ID=f"w{number}", GUARDLINE_KAFKA__SESSION_TIMEOUT_S=""
        )

    def end(self, number: int, how: str) -> None:
        """End a worker: by SIGKILL, by SIGTERM or by a failure."""
        if how == "fatal":
            self._breaker(number).touch()
        else:
            self._running[number].send(signal.SIGKILL if how == "kill" else signal.SIGTERM)

    def wait(self, number: int) -> None:
        """Wait until a worker's process has ended."""
        self._running[number].wait()

    def partitions_of(self, number: int) -> set[Partition]:
        """What the group says the worker has."""
        found: set[Partition] = set()
        for member in membership.members(self._site.settings(GUARDLINE_KAFKA__SESSION_TIMEOUT_S="10").kafka):
            if member.name == f"w{number}":
                found |= {(topic, int(part)) for topic, _, part in (one.rpartition("/") for one in member.partitions)}
        return found

    def _breaker(self, number: int) -> Path:
        return Path(self._site.folder.name) / f"break-{number}"


@contextmanager
def new_site(stack: Stack, protocol: str) -> Iterator[Site]:
    """Give a site of six partitions with the sessions of the defaults."""
    site = Site(stack.kafka, stack.redis, partitions=PARTITIONS)
    site.use(protocol)
    site.environment["GUARDLINE_TOPICS__PARTITIONS"] = str(PARTITIONS)
    site.create_topics()
    try:
        yield site
    finally:
        for process in site.processes:
            if process.popen.poll() is None:
                process.send(signal.SIGKILL)
            process.wait()
        site.folder.cleanup()


def recovery(stack: Stack, protocol: str) -> dict[str, float]:
    """End workers in each way; return the silences in seconds."""
    found: dict[str, float] = {}
    with new_site(stack, protocol) as site, new_site(stack, protocol) as other_site:
        group, progress, load = Group(site), Progress(site), Load(site)
        load.start()
        progress.start()
        load_s = group.start(*range(WORKERS))
        settle(progress)

        began = time.monotonic()
        Group(other_site).start(0)
        found["start_s"] = progress.silence(progress.moved, began, None)
        for process in other_site.processes:
            process.send(signal.SIGKILL)
        found["load_s"] = load_s / WORKERS
        others, visible = [], []
        for number, (name, how, returns) in enumerate(
            [
                ("kill_back_s", "kill", True),
                ("kill_gone_s", "kill", False),
                ("term_back_s", "term", True),
                ("term_gone_s", "term", False),
                ("fatal_s", "fatal", False),
            ]
        ):
            settle(progress)
            victim = number % WORKERS
            had = group.partitions_of(victim)
            began = time.monotonic()
            group.end(victim, how)
            group.wait(victim)
            if returns:
                group.start(victim)
            back = time.monotonic() if returns else began
            eventually(lambda since=back: progress.have_all_moved_since(since), "all go on", 90)  # type: ignore[misc]
            settle(progress)
            found[name] = progress.silence(progress.moved, began, had)
            others.append(progress.silence(progress.moved, began, set(progress.moved) - had))
            visible.append(progress.silence(progress.seen, began, None))
            print(f"{protocol} {name} {found[name]:.1f} others {others[-1]:.1f} visible {visible[-1]:.1f}", flush=True)
            if not returns:
                group.start(victim)
        found["term_s"] = max(found["term_back_s"], found["term_gone_s"])
        found["others_s"] = max(others)
        found["visible_s"] = max(visible)
        load.stop()
        progress.stop()
    return {name: round(seconds, 2) for name, seconds in found.items()}


def settle(progress: Progress) -> None:
    """Wait until all partitions have moved for a while."""
    time.sleep(SETTLED_S)
    since = time.monotonic() - 0.5
    eventually(lambda: progress.have_all_moved_since(since), "all partitions move", 60)


def churn(stack: Stack) -> dict[str, float]:
    """Return the committed records/s undisturbed and in the churn, and their ratio."""
    with new_site(stack, "classic") as site:
        group, progress = Group(site), Progress(site, reads_verdicts=False)
        load = Load(site, ahead_of=lambda: progress.committed)
        progress.start()
        load.start()
        group.start(*range(WORKERS))
        eventually(lambda: progress.committed > 0, "the first commit", 60)

        def per_s(seconds: float, act: Callable[[], None]) -> float:
            began, before = time.monotonic(), progress.committed
            while time.monotonic() < began + seconds:
                act()
            return (progress.committed - before) / (time.monotonic() - began)

        steps = iter(churn_steps(group))

        def step() -> None:
            next(steps)()
            time.sleep(CHURN_EVERY_S)

        undisturbed = per_s(UNDISTURBED_S, lambda: time.sleep(1))
        began = time.monotonic()
        disturbed = per_s(CHURN_S, step)
        worst = progress.silence(progress.moved, began, None)
        load.stop()
        progress.stop()
    return {
        "undisturbed_per_s": round(undisturbed),
        "churn_per_s": round(disturbed),
        "churn_ratio": round(disturbed / undisturbed, 2),
        "churn_silence_s": round(worst, 1),
    }


def churn_steps(group: Group) -> Iterator[Callable[[], None]]:
    """Kill one that returns at once, stop one, let it join: for ever, each time with the next worker."""
    for number in count():
        victim = number % WORKERS

        def kill(one: int = victim) -> None:
            group.end(one, "kill")
            group.launch(one)

        def stop(one: int = (victim + 1) % WORKERS) -> None:
            group.end(one, "term")

        def join(one: int = (victim + 1) % WORKERS) -> None:
            group.launch(one)

        yield from (kill, stop, join)


def main() -> None:
    """Print a line for each end, and one JSON object."""
    with running() as stack:
        by_protocol = {protocol: recovery(stack, protocol) for protocol in ("classic", "consumer")}
        changes = churn(stack)
    names = ("kill_back_s", "kill_gone_s", "term_s", "fatal_s", "others_s")
    print(json.dumps({**{name: by_protocol["classic"][name] for name in names}, **changes, **by_protocol}))


if __name__ == "__main__":
    main()
