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
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import Message, Producer
from redis.asyncio import Redis

from infra.demo.consequences import STRIKES, Consequences
from infra.demo.frame import framed
from infra.demo.messages import compared, events
from infra.demo.platform import NAME, Platform
from infra.demo.show import STARTED, Show
from infra.demo.tally import Position, Tally
from infra.devstack import children
from workers.kafka import topics
from workers.kafka.reader import read
from workers.policy.document import parse
from workers.redis.policy_store import PolicyStore
from workers.settings import Settings

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


def main() -> int:
    """Run the demo; exit code 1 if any record was lost or duplicated."""
    return framed(_run)


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
        for worker in workers.values():
            worker.kill()
            worker.wait()
        consequences.close()


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
    """Give (event id, key, value): the events, then again with every fifth one repeated, bad records between."""
    records: list[tuple[str, bytes | None, bytes]] = []
    for number, event in enumerate(events()):
        record = _record(event)
        records.append(record)
        if number % 5 == 4:
            records.append(record)
        if number % 60 == 30:
            records.append(("", None, BAD[number // 60 % len(BAD)]))
    # The same texts as other events: their assessments are stored, and the switched policy decides again.
    return [*records, *(_record({**event, "event_id": f"{event['event_id']}-again"}) for event in events())]


def _record(event: dict[str, Any]) -> tuple[str, bytes | None, bytes]:
    return event["event_id"], event["attributes"]["conversation_id"].encode(), orjson.dumps(event)


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
        show.progress(tally, len(sent), _awaited(tally, consequences, len(sent)))
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
            and not consequences.missing(tally.seen)
        )
        if is_done or time.monotonic() - began > DEADLINE_S:
            break
    took_s = time.monotonic() - began
    stop.set()
    return _summary(settings, sent, took_s, tally, texts, consequences, show)


def _awaited(tally: Tally, consequences: Consequences, sent: int) -> list[str]:
    """Name what the demo waits for, where the numbers do not show it."""
    if not tally.outputs:
        return ["the workers, which load the model"]
    if len(tally.outputs) < sent:
        return []
    discord = [] if tally.platform.is_answered else ["the verdicts of the third worker"]
    return [*discord, *consequences.missing(tally.seen)]


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
    for line in compared(final.assessments):
        show.say(line)
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
        "first_verdict_s": None if tally.first_verdict_at is None else round(tally.first_verdict_at - STARTED, 2),
        "events_per_s": round(len(sent) / took_s, 1),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if lost or doubled or not sent or consequences.missing(final.seen) else 0


if __name__ == "__main__":
    sys.exit(main())
