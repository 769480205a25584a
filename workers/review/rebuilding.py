"""Reads the state of all items from the compacted topic, when the worker starts."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from workers.errors import Fatal
from workers.kafka.reader import read, wait_for_open_transactions
from workers.review.item import SCHEMA_VERSION, Item, decoded
from workers.settings import Settings


def rebuilt(settings: Settings) -> Iterable[Item]:
    """Give the newest state of each item. Blocks.

    Only after the predecessor was fenced: otherwise the predecessor may still change an item that was read.

    Raises:
        Unavailable: Kafka or the topic is not there.
        Fatal: a newer version of the worker wrote the state, or something else did.
    """
    topic = settings.topics.review_state
    wait_for_open_transactions(settings.kafka, topic)
    newest: dict[str, Item] = {}
    for message in read(settings.kafka, [topic], from_beginning=True, follow=False):
        if message is None:
            continue
        key, value = (message.key() or b"").decode(errors="replace"), message.value()
        if value is None:
            newest.pop(key, None)
            continue
        where = f"{topic}/{message.partition()}/{message.offset()}"
        try:
            item = decoded(value)
        except msgspec.DecodeError as error:
            raise Fatal(f"topics.review_state: {where} is not the state of a review item: {error}") from None
        if item.schema_version > SCHEMA_VERSION:
            raise Fatal(
                f"topics.review_state: {where} was written by a newer version (schema_version {item.schema_version}, "
                f"this worker reads {SCHEMA_VERSION}): start that version"
            )
        newest[key] = item
    return newest.values()
