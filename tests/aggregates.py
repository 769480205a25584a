"""Verdicts for the aggregates worker, written as the moderation worker writes them, and what came of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer

from tests.command import GUARDLINE
from tests.site import Process, Site
from workers.errors import Unavailable
from workers.kafka.reader import read
from workers.kafka.topics import create
from workers.policy.strikes import Standing
from workers.redis.client import connect
from workers.redis.strikes import Author, StoredStrikes


def verdict(number: int, **changes: Any) -> dict[str, Any]:
    """Return a verdict that blocks an Unsafe text of the author `a0`, received now. `severity` None: no assessment."""
    now_ms = int(time.time() * 1_000)
    severity, categories = changes.pop("severity", "Unsafe"), changes.pop("categories", ["Violent"])
    return {
        "schema_version": 1,
        "verdict_id": verdict_id(number),
        "event_id": f"e{number}",
        "tenant_id": "acme",
        "surface": "chat",
        "author_id": "a0",
        "role": "user",
        "assessment": None if severity is None else {"severity": severity, "categories": categories, "refusal": None},
        "decision": "block",
        "reasons": ["unsafe:Violent"],
        "policy": {"id": "acme", "version": 1, "digest": "0" * 16},
        "source": {"topic": "chat", "partition": 0, "offset": number, "timestamp": now_ms},
        "duplicate_of": None,
        "timings": {"received_at": now_ms, "judged_ms": 1.0},
        "created_at": None,
        "attributes": {},
        "ignored_fields": [],
        "truncated_text_chars": 0,
        **changes,
    }


def verdict_id(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=16).hexdigest()


def harmless(number: int, **changes: Any) -> dict[str, Any]:
    return verdict(number, severity="Safe", categories=[], decision="allow", reasons=[], **changes)


class Verdicts:
    """Writes to the verdict topic of a site in transactions, as workers do."""

    def __init__(self, site: Site, **changes: str) -> None:
        settings = site.settings(**changes)
        self._topic = settings.topics.verdicts
        self._producer = Producer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "transactional.id": f"{settings.kafka.group}.writer",
                "linger.ms": 1,
                # As a moderation worker writes them.
                "compression.type": "lz4",
                "log_level": 0,
            }
        )
        self._producer.init_transactions(30)

    def write(self, verdicts: Iterable[Any], *, commit: bool = True, key: str | None = None) -> None:
        """Write verdicts, or raw bytes, in one transaction. Without `commit` it is aborted."""
        self._producer.begin_transaction()
        for number, one in enumerate(verdicts):
            value = one if isinstance(one, bytes) or one is None else orjson.dumps(one)
            self._producer.produce(self._topic, value, key=key or f"room-{number % 7}")
            self._producer.poll(0)
        assert self._producer.flush(30) == 0
        if commit:
            self._producer.commit_transaction(30)
        else:
            self._producer.abort_transaction(30)


def create_topics(site: Site) -> None:
    """Create the topics that the settings name and an aggregates worker needs."""
    topics = site.settings().topics
    create(site.settings(), [topics.verdicts, topics.signals, topics.forget])


def worker(site: Site, **changes: str) -> Process:
    """Start an aggregates worker."""
    return site.worker(GUARDLINE, "worker", "aggregates", **changes)


def signals(site: Site) -> list[dict[str, Any]]:
    """Return all signals, in the order of their partitions."""
    settings = site.settings()
    found = read(settings.kafka, [settings.topics.signals], from_beginning=True, follow=False)
    return [orjson.loads(message.value() or b"") for message in found if message is not None]


def rows(site: Site) -> Iterator[tuple[tuple[str, str, str], Any]]:
    """Give the rows as the changelog topic has them: the last value of each key."""
    from workers.aggregates.rows import decode, key_of

    settings = site.settings()
    last: dict[bytes, bytes | None] = {}
    changelog = f"{settings.kafka.group}.aggregates-rows-changelog"
    with suppress(Unavailable):  # The worker has not made it yet.
        for message in read(settings.kafka, [changelog], from_beginning=True, follow=False):
            if message is not None:
                last[message.key() or b""] = message.value()
    for key, value in last.items():
        if value is not None:
            yield key_of(key), decode(value)


def counted(site: Site, kind: str = "author", tenant: str = "acme") -> dict[str, int]:
    """Return how many verdicts each row of a kind has counted in the hours that it keeps."""
    return {
        key[2]: sum(counts.get(0, 0) for counts in row.hours.values())
        for key, row in rows(site)
        if (key[0], key[1]) == (kind, tenant)
    }


POLICY = {
    "id": "acme",
    "strikes": {"window_hours": 24, "thresholds": [{"name": "warn", "at": 3}, {"name": "ban", "at": 60}]},
}


def set_policy(site: Site) -> None:
    """Store a policy of the tenant that counts strikes."""
    file = Path(site.folder.name) / "policy.json"
    file.write_bytes(orjson.dumps(POLICY))
    site.command("policy", "set", "acme", file)


def strikes(site: Site, author: str) -> float | None:
    """Return the strikes of an author in Redis; None: they are not known."""

    async def read_one() -> Standing | None:
        settings = site.settings()
        redis = await connect(settings.redis)
        try:
            stored = StoredStrikes(redis, namespace=settings.redis.namespace, secret=settings.pseudonym_secret)
            (found,) = await stored.read([Author("acme", author)])
        finally:
            await redis.aclose()
        return found

    standing = asyncio.run(read_one())
    return None if standing is None else standing.value(int(time.time() * 1_000))
