"""`make demo`: starts everything, produces the sample, switches a policy, kills a worker, and counts the outcomes.

Three more workers show what the verdicts set in motion: a signal, a decision of a person, and a webhook.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import Message, Producer
from redis.asyncio import Redis
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.demo.consequences import STRIKES, Consequences, Seen
from infra.demo.platform import NAME, TOPIC, Platform
from infra.devstack import children
from infra.devstack.stack import running
from workers.errors import GuardlineError
from workers.kafka import topics
from workers.kafka.intake import headers_of
from workers.kafka.reader import read
from workers.policy.document import parse
from workers.redis.policy_store import PolicyStore
from workers.settings import Settings

STARTED = time.monotonic()
POLICIES: dict[str, dict[str, Any]] = {
    "arcade": {"controversial": "allow"},
    "campus": {"controversial": "review"},
    "gazette": {"preset": "strict", "strikes": STRIKES},
}
SWITCHED: dict[str, dict[str, Any]] = {"arcade": {"controversial": "block", "unsafe": "review"}}
BAD = (
    b"not json at all",
    b"\xff\xfe\x00",
    b'{"event_id": "x"}',
    b'{"event_id": "y", "tenant_id": "arcade", "surface": "chat"}',
    b"[" * 5000,
    b"",
)
SESSION_S = 6
PAUSE_S = 0.008
DEADLINE_S = 90
STACK_VARIABLES = ("GUARDLINE_CACHE", "GUARDLINE_MAVEN_URL")

Position = tuple[str, int, int]


class Tally:
    """The outcomes that a read_committed reader has seen so far."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seen = Seen(say)
        self.platform = Platform()
        self.outputs: Counter[Position] = Counter()
        self.to_review: set[Position] = set()
        self.reviewed: Counter[Position] = Counter()
        self.decisions: dict[str, Counter[str]] = defaultdict(Counter)
        self.by_text: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
        self.samples: list[str] = []
        self.verdicts = self.dead_letters = self.duplicates = 0
        self.first_verdict_s: float | None = None

    def take(self, message: Message, settings: Settings, texts: dict[str, str]) -> None:
        """Count one verdict, review item or dead letter."""
        if message.topic() == settings.topics.dead_letters:
            headers = {name: value or b"" for name, value in headers_of(message)}
            self.outputs[
                (headers["source.topic"].decode(), int(headers["source.partition"]), int(headers["source.offset"]))
            ] += 1
            self.dead_letters += 1
            return
        verdict: dict[str, Any] = orjson.loads(message.value() or b"")
        if self.seen.take(str(message.topic()), verdict, settings):
            return
        source = verdict["source"]
        position = (source["topic"], source["partition"], source["offset"])
        if source["topic"] == TOPIC:
            if message.topic() == settings.topics.verdicts:
                self.platform.take(verdict)
            return
        if message.topic() == settings.topics.review:
            self.reviewed[position] += 1
            return
        self.outputs[position] += 1
        if verdict["decision"] == "review":
            self.to_review.add(position)
        self.verdicts += 1
        if self.first_verdict_s is None:
            self.first_verdict_s = round(time.monotonic() - STARTED, 2)
        self.duplicates += verdict["duplicate_of"] is not None
        self.decisions[verdict["tenant_id"]][verdict["decision"]] += 1
        opinion = verdict["assessment"]["severity"] if verdict["assessment"] else "no judgement"
        text = texts.get(verdict["event_id"].removesuffix("-again"), "")
        self.by_text[(verdict["tenant_id"], text)].append((verdict["decision"], verdict["policy"]["version"]))
        self.samples = [
            *self.samples[-5:],
            f"{verdict['decision']:<6} {verdict['tenant_id']:<8} {opinion:<13} {text[:70]}",
        ]


class Show:
    """Live tables on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=not sys.stdout.isatty())
        self._live: Live | None = None
        self._said = 0.0

    def __enter__(self) -> Show:
        """Begin."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(Text(f"{time.monotonic() - STARTED:5.1f} s  {line}"))

    def progress(self, tally: Tally, sent: int) -> None:
        """Show rates, lag, decisions and samples."""
        done = len(tally.outputs)
        line = f"{sent} events in, {done} answered, lag {sent - done}"
        if self._live is None:
            if time.monotonic() - self._said >= 1:
                self._said = time.monotonic()
                self.say(line)
            return
        samples = (Text(sample, overflow="ellipsis", no_wrap=True) for sample in tally.samples)
        self._live.update(Group(_decisions(tally, line), *samples))

    def summary(self, tally: Tally) -> None:
        """Show the final decisions. Later lines appear below them."""
        if self._live is not None:
            # The final counts replace the live table.
            self._live.transient = True
            self._live.stop()
            self._live = None
        self._console.print(_decisions(tally, "decisions"))


def _decisions(tally: Tally, title: str) -> Table:
    table = Table("tenant", "allow", "review", "block", title=title)
    for tenant, counts in sorted(tally.decisions.items()):
        table.add_row(tenant, *(str(counts[decision]) for decision in ("allow", "review", "block")))
    return table


def main() -> int:
    """Run the demo; exit code 1 if any record was lost or duplicated."""
    for name in [name for name in os.environ if name.startswith("GUARDLINE_") and name not in STACK_VARIABLES]:
        del os.environ[name]  # The demo ignores the user's settings for other topics.
    try:
        with tempfile.TemporaryDirectory(prefix="guardline-demo-") as folder, Show() as show:
            show.say("starting Apache Kafka and Valkey")
            with running() as stack:
                return _run(stack.kafka, stack.redis, Path(folder), show)
    except GuardlineError as error:
        sys.stderr.write(f"guardline: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130


def _run(kafka: str, redis: str, folder: Path, show: Show) -> int:
    environment = {
        "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": kafka,
        "GUARDLINE_REDIS__URL": redis,
        "GUARDLINE_KAFKA__SESSION_TIMEOUT_S": str(SESSION_S),
        "GUARDLINE_HTTP__PORT": "0",
        "GUARDLINE_GUARD__THREADS": "1",
    }
    os.environ.update(environment)
    consequences = Consequences(folder, show.say)
    config = folder / "consequences.yaml"
    config.write_text(yaml.safe_dump(consequences.settings()), encoding="utf-8")
    settings = Settings(**consequences.settings())
    show.say(f"ready: kafka {kafka}, {redis}")
    topics.create(settings)
    show.say("starting two workers; the first verdict appears when they have loaded the model")
    workers = {name: _worker(folder, name) for name in ("one", "two")}
    try:
        _set_policies(settings, POLICIES)
        show.say("three tenants: arcade allows what is controversial, campus reviews it, gazette blocks it")
        return _stream(settings, workers, consequences, folder, show)
    finally:
        consequences.close()
        for worker in workers.values():
            worker.kill()
            worker.wait()


def _command(name: str, kind: str = "moderation") -> list[str]:
    return [str(Path(sys.executable).with_name("guardline")), "worker", kind, "--id", f"demo-{name}"]


def _worker(folder: Path, name: str) -> subprocess.Popen[bytes]:
    return children.spawn(_command(name), folder / f"worker-{name}.log")


def _set_policies(settings: Settings, policies: dict[str, dict[str, Any]]) -> None:
    async def put() -> None:
        async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
            store = PolicyStore(redis, settings.redis.namespace)
            for tenant, document in policies.items():
                await store.put(tenant, parse(tenant, document))

    asyncio.run(put())


def _records() -> list[tuple[str, bytes | None, bytes]]:
    """Give (event id, key, value): the sample, then again with every fifth event repeated, bad records between."""
    lines = [line for line in Path(__file__).with_name("sample.jsonl").read_bytes().splitlines() if line]
    records: list[tuple[str, bytes | None, bytes]] = []
    for number, line in enumerate(lines):
        event = json.loads(line)
        key = event["attributes"]["conversation_id"].encode()
        records.append((event["event_id"], key, line))
        if number % 5 == 4:
            records.append((event["event_id"], key, line))
        if number % 60 == 30:
            records.append(("", None, BAD[number // 60 % len(BAD)]))
    for line in lines:
        # The same texts as other events: their assessments are stored, and the switched policy decides again.
        event = json.loads(line)
        event["event_id"] += "-again"
        records.append((event["event_id"], event["attributes"]["conversation_id"].encode(), orjson.dumps(event)))
    return records


def _stream(
    settings: Settings,
    workers: dict[str, subprocess.Popen[bytes]],
    consequences: Consequences,
    folder: Path,
    show: Show,
) -> int:
    tally = Tally(show.say)
    records = _records()
    texts = {identity: json.loads(value)["text"] for identity, _, value in records if identity}
    sent: list[Position] = []

    def delivered(error: object, message: Message) -> None:
        assert error is None, error
        sent.append((str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)))

    producer = Producer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "enable.idempotence": True, "log_level": 2}
    )
    stop = threading.Event()
    started, switched = threading.Event(), threading.Event()

    def produce() -> None:
        for identity, key, value in records:
            if identity.endswith("-again"):
                switched.wait(DEADLINE_S)  # The same texts under another policy.
            is_comment = bool(identity) and json.loads(value)["surface"] == "comment"
            producer.produce(settings.topics.inputs[is_comment], value, key, on_delivery=delivered)
            producer.poll(0)
            started.set()
            if stop.wait(PAUSE_S):
                return
        producer.flush(10)

    milestones: list[tuple[float, Callable[[], None]]] = [
        (0.3, lambda: _switch(settings, switched, show)),
        (0.45, lambda: _kill(workers["one"], show)),
        # While the partitions of the killed worker wait, the machine has little else to do.
        (0.45, lambda: _play(tally.platform, settings, workers, folder, show)),
        (0.45, lambda: _start(consequences, workers, folder, show)),
    ]
    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    show.say(f"producing {len(records)} records, slowly enough to watch; some are invalid, some are repeats")
    if not started.wait(DEADLINE_S):
        show.say("nothing could be produced")
        return 1
    began = time.monotonic()
    for message in read(settings.kafka, _read_topics(settings), from_beginning=True, follow=True):
        if message is not None:
            tally.take(message, settings, texts)
        show.progress(tally, len(sent))
        if milestones and len(tally.outputs) >= milestones[0][0] * len(records):
            milestones.pop(0)[1]()
        for name, worker in workers.items():
            if worker.poll() not in (None, -signal.SIGKILL):
                show.say(f"worker demo-{name} ended by itself: {(folder / f'worker-{name}.log').read_text()[-800:]}")
                stop.set()
                return 1
        is_answered = len(tally.outputs) >= len(sent) and tally.reviewed.keys() >= tally.to_review
        is_done = (
            not thread.is_alive()
            and is_answered
            and tally.platform.is_answered
            and consequences.are_complete(tally.seen)
        )
        if is_done or time.monotonic() - began > DEADLINE_S:
            break
    took_s = time.monotonic() - began
    stop.set()
    return _summary(settings, sent, took_s, tally, texts, consequences, show)


def _kill(worker: subprocess.Popen[bytes], show: Show) -> None:
    show.say(
        f"killing worker demo-one (pid {worker.pid}) with SIGKILL; its partitions wait until the group "
        f"detects this, after {SESSION_S} s"
    )
    worker.kill()


def _play(
    platform: Platform, settings: Settings, workers: dict[str, subprocess.Popen[bytes]], folder: Path, show: Show
) -> None:
    show.say(
        f"a third worker reads records of Discord's gateway by the mapping of `guardline mapping examples {NAME}`: "
        f"{len(platform.texts)} messages, and {platform.skipped} records without a message"
    )
    workers[NAME] = platform.start(settings, folder, _command(NAME))


def _start(consequences: Consequences, workers: dict[str, subprocess.Popen[bytes]], folder: Path, show: Show) -> None:
    show.say("three more workers: aggregates counts strikes, review serves its page, actions calls a receiver")
    workers |= consequences.start(folder / "consequences.yaml", lambda kind, name: _command(name, kind))


def _read_topics(settings: Settings) -> list[str]:
    return [*settings.topics.outcomes, settings.topics.signals]


def _switch(settings: Settings, switched: threading.Event, show: Show) -> None:
    _set_policies(settings, SWITCHED)
    switched.set()
    show.say("switching the policy of arcade: it now blocks what is controversial and reviews what is unsafe")


def _summary(
    settings: Settings,
    sent: list[Position],
    took_s: float,
    tally: Tally,
    texts: dict[str, str],
    consequences: Consequences,
    show: Show,
) -> int:
    # Counts the topics again, instead of using the counts of the run.
    final = Tally(lambda line: None)
    for message in read(settings.kafka, _read_topics(settings), from_beginning=True, follow=False):
        if message is not None:
            final.take(message, settings, texts)
    lost = sum(final.outputs[position] == 0 for position in sent) + len(final.to_review - final.reviewed.keys())
    unwanted = (final.reviewed - Counter(final.to_review)).total()
    doubled = sum(count - 1 for count in final.outputs.values()) + unwanted
    for (tenant, text), decided in final.by_text.items():
        decisions = {version: decision for decision, version in decided}
        if tenant in SWITCHED and len(set(decisions.values())) > 1:
            show.say(
                f"the same text, before and after the switch: {decisions[min(decisions)]}, then "
                f"{decisions[max(decisions)]}: {text[:60]}"
            )
            break
    show.summary(final)
    for line in final.platform.lines():
        show.say(f"Discord: {line}")
    lost += final.platform.lost
    doubled += final.platform.doubled
    result = {
        "events": len(sent),
        "verdicts": final.verdicts,
        "review_items": final.reviewed.total(),
        "dead_letters": final.dead_letters,
        "duplicates": final.duplicates,
        "mapped": len(final.platform.texts),
        "signals": len(final.seen.signals),
        "superseding": len(final.seen.superseding),
        "webhooks": len(consequences.received),
        "lost": lost,
        "doubled": doubled,
        "first_verdict_s": tally.first_verdict_s,
        "events_per_s": round(len(sent) / took_s, 1),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if lost or doubled or not sent or not consequences.are_complete(final.seen) else 0


if __name__ == "__main__":
    sys.exit(main())
