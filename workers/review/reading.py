"""Reads the records of the three inputs: review items, commands, and requests to forget an author. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, TypeVar

import orjson
from msgspec import Struct
from pydantic import BaseModel, ValidationError

from schemas.forget import Forget
from schemas.review import ReviewItem
from schemas.review_command import CommandKind, ReviewCommand, ReviewRole
from workers.core.frames import unframed
from workers.core.reasons import Reason
from workers.core.records import Record, Source, record_key
from workers.errors import Undecodable
from workers.settings import Topics

Model = TypeVar("Model", bound=BaseModel)

SYSTEM = "guardline"
"""The name by which the worker gives its own commands."""

NEWEST = 1
"""The newest `schema_version` of all contracts that this worker reads."""


class Work(Struct, frozen=True):
    """What one record wants: a command for one item, or that an author is forgotten.

    `document` is the JSON object of the item or verdict that the command brings: fields that this worker does not know
    stay in it. `is_arrival`: the record is from the topic of review items.
    """

    source: Source
    command: ReviewCommand | None = None
    document: Mapping[str, Any] | None = None
    forget: Forget | None = None
    is_arrival: bool = False


class Reading:
    """Gives the work of a record, by its topic. Never blocks."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics

    def __call__(self, record: Record, source: Source) -> list[Work]:
        """Give the work of a record.

        Raises:
            Undecodable: it breaks its contract, or a newer version wrote it.
        """
        if record.value is None:
            raise Undecodable(Reason.TOMBSTONE, "the record has no value")
        value = unframed(record.value)
        document = _parsed(value)
        topic = source.origin.topic
        if topic == self._topics.forget:
            return [Work(source, forget=_checked(Forget, value))]
        if topic == self._topics.review_commands:
            command = _checked(ReviewCommand, value)
            return [Work(source, command, document.get("item") or document.get("verdict"))]
        item = _checked(ReviewItem, value)
        key = base64.b64encode(record_key(record.key, source.origin.partition)).decode()
        return [Work(source, arrival(item, key, source.received_at_ms), document, is_arrival=True)]


def arrival(item: ReviewItem, key: str, now_ms: int) -> ReviewCommand:
    """Give the command that opens an item. `key`: that of its record, in Base64."""
    return ReviewCommand(
        command_id=command_id("arrive", item.verdict_id),
        verdict_id=item.verdict_id,
        kind=CommandKind.ARRIVE,
        by=SYSTEM,
        role=ReviewRole.SYSTEM,
        at=now_ms,
        item=item,
        key=key,
    )


def command_id(*parts: str) -> str:
    """Give a command's id (32 hex digits, BLAKE2b-128): the same parts always give the same id."""
    name = "|".join([*(str(len(part)) for part in parts), *parts])
    return blake2b(name.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _parsed(value: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise Undecodable(Reason.NOT_JSON, "the value is not JSON") from None
    if not isinstance(document, dict):
        raise Undecodable(Reason.WRONG_TYPE, "the value is not a JSON object")
    version = document.get("schema_version", NEWEST)
    if isinstance(version, int) and version > NEWEST:
        raise Undecodable(
            Reason.INVALID_FIELD,
            f"schema_version: {version} is newer than this worker reads ({NEWEST}): update the review worker, and "
            "replay the dead letter",
        )
    return document


def _checked(model: type[Model], value: bytes) -> Model:
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        missing = first["type"] == "missing"
        reason = Reason.MISSING_FIELD if missing else Reason.INVALID_FIELD
        raise Undecodable(reason, f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
