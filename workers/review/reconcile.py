"""Compares the verdicts in Kafka with the states of the items, and makes the commands that repair what is missing.

Nothing is missing as long as Kafka keeps what it has confirmed. Records are lost by an unclean leader election, by a
retention that is too short, or by somebody who deletes them.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from schemas.review import ReviewItem
from schemas.review_command import CommandKind, ReviewCommand, ReviewRole
from workers.core.frames import unframed
from workers.core.records import Output, record_key
from workers.errors import Undecodable
from workers.kafka.reader import read
from workers.kafka.sending import Sending
from workers.review.item import REPUBLISHED, Item
from workers.review.processing import written
from workers.review.reading import SYSTEM, arrival, command_id
from workers.review.sizes import with_room
from workers.settings import Settings, Topics

UNDER_WAY_MS = 10_000
"""Younger verdicts are left out: their items may be on their way."""


class Compared(NamedTuple):
    """What was compared, and what is missing. The ids are those of the items."""

    to_review: int
    decided: int
    without_item: list[str]
    """Verdicts of `review` of which the worker has no item."""
    without_verdict: list[str]
    """Decided items whose newest superseding verdict is not in Kafka."""


def compare(settings: Settings, items: Mapping[str, Item], since_ms: int | None) -> Compared:
    """Compare the verdicts of the workers that were written since then with the items. Blocks.

    Items that people decided, or that the worker deleted because their time was over, are not missing.

    Raises:
        Unavailable: Kafka or a topic is not there.
    """
    now_ms = int(time.time() * 1000)
    wanted: set[str] = set()
    superseding: set[str] = set()
    superseded: set[str] = set()
    for written_at, _, verdict in _documents(settings, settings.topics.verdicts, since_ms):
        if verdict.get("supersedes") is not None:
            superseding.add(verdict["verdict_id"])
            superseded.add(verdict["supersedes"])
        elif verdict["decision"] == "review" and written_at < now_ms - UNDER_WAY_MS:
            wanted.add(verdict["verdict_id"])
    decided = {
        item.verdict_id: item.current
        for item in items.values()
        if item.settled and published_at(item) >= (since_ms or 0)
    }
    # Decided already: the item was there, and may have been deleted in time.
    missing = wanted - superseded - items.keys()
    if missing:
        missing -= _deleted(settings, since_ms)
    return Compared(
        len(wanted),
        len(decided),
        sorted(missing),
        sorted(name for name, newest in decided.items() if newest not in superseding),
    )


def repair(settings: Settings, items: Mapping[str, Item], found: Compared, since_ms: int | None) -> list[str]:
    """Write the commands that put back what is missing; return the verdicts of which topics.review has no item. Blocks.

    Guarantee: repairs that run at the same time put each of them back once.

    Raises:
        Unavailable: Kafka is not there.
        Fatal: Kafka refuses the commands.
    """
    missing = set(found.without_item)
    sending = Sending(with_room(settings.kafka))
    with sending:
        if missing:
            for _, key, document in _documents(settings, settings.topics.review, since_ms):
                if document["verdict_id"] in missing:
                    missing.discard(document["verdict_id"])
                    _send(sending, _arrival(settings.topics, key, document))
        for verdict_id in found.without_verdict:
            _send(sending, written(settings.topics, republication(items[verdict_id], int(time.time() * 1000))))
    sending.check()
    return sorted(missing)


def republication(item: Item, now_ms: int) -> ReviewCommand:
    """Give the command that writes the newest superseding verdict of an item again.

    A repair that runs before this one is applied gives the same id, and a repair of a later loss another.
    """
    last = next((step.command_id for step in reversed(item.history) if step.action == REPUBLISHED), "")
    return ReviewCommand(
        command_id=command_id("republish", item.verdict_id, item.current, last),
        verdict_id=item.verdict_id,
        kind=CommandKind.REPUBLISH,
        by=SYSTEM,
        role=ReviewRole.SYSTEM,
        at=now_ms,
    )


def published_at(item: Item) -> int:
    """Give when the newest superseding verdict of a decided item was written, in milliseconds since 1970-01-01 UTC.

    Where the history has left that step out: when the last person decided, which is earlier by the time to undo.
    """
    published = (step.at for step in reversed(item.history) if step.action == "published")
    return next(published, item.settled[-1].at)


def _arrival(topics: Topics, key: bytes, document: Mapping[str, Any]) -> Output:
    item = ReviewItem.model_validate_json(orjson.dumps(document))
    command = arrival(item, base64.b64encode(key).decode(), int(time.time() * 1000))
    return written(topics, command, {"item": document})


def _send(sending: Sending, output: Output) -> None:
    sending.send(output.topic, output.key, output.value or b"")


def _deleted(settings: Settings, since_ms: int | None) -> set[str]:
    """Give the items that the worker has deleted because their time was over: their audit records say so."""
    return {
        record["verdict_id"]
        for _, _, record in _documents(settings, settings.topics.audit, since_ms, "action")
        if record["action"] == "deleted"
    }


def _documents(
    settings: Settings, topic: str, since_ms: int | None, field: str = "decision"
) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Give the time, the key and the document of each record of a topic. Records without this field are left out."""
    for message in read(settings.kafka, [topic], from_beginning=True, follow=False, since_ms=since_ms):
        if message is None:
            continue
        written_at = message.timestamp()[1]
        if since_ms is not None and written_at < since_ms:
            continue
        try:
            document = orjson.loads(unframed(message.value() or b""))
        except (orjson.JSONDecodeError, Undecodable):
            continue
        if isinstance(document, dict) and "verdict_id" in document and field in document:
            yield written_at, record_key(message.key(), int(message.partition() or 0)), document
