"""Ids of schemas on records, as serializers for a Schema Registry write them: before the value, or in a header. Pure.

Workers write one of them if the section `registry` of the settings says so. They read all, always: a header needs
nothing, and bytes before the value cannot be mistaken, because no JSON begins with them.
"""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from workers.core.reasons import Reason
from workers.errors import Undecodable

HEADER = "__value_schema_id"
"""The header with which Confluent's serializers name the schema of a value."""

APICURIO_HEADER = "apicurio.value.contentId"
"""The header with which Apicurio's serializers name the schema of a value, if their headers are on."""

_BY_ID = b"\0"
_BY_GUID = b"\1"
_LENGTHS = {_BY_ID: 5, _BY_GUID: 17}
"""The length of a frame by its first byte: an id has four bytes, a GUID 16."""


class Frame(Struct, frozen=True):
    """What marks the values of a topic with the id of their schema."""

    prefix: bytes = b""
    headers: tuple[tuple[str, bytes], ...] = ()


def by_prefix(schema_id: int) -> Frame:
    """Give the frame of a zero byte and the id of the schema."""
    return Frame(prefix=_BY_ID + schema_id.to_bytes(4))


def by_header(guid: str) -> Frame:
    """Give the frame that leaves the value as it is: a header with the GUID of the schema.

    Raises:
        ValueError: it is not a GUID.
    """
    return Frame(headers=((HEADER, _BY_GUID + UUID(guid).bytes),))


def by_content_id(content_id: int) -> Frame:
    """Give the frame that leaves the value as it is: a header with Apicurio's id of the schema, as eight bytes."""
    return Frame(headers=((APICURIO_HEADER, content_id.to_bytes(8)),))


def split(value: bytes) -> tuple[bytes, bytes]:
    """Give the bytes before a value, and the value; the first is empty for a value without a frame."""
    length = _LENGTHS.get(value[:1], 0)
    return value[:length], value[length:]


def is_framed(value: bytes) -> bool:
    """Whether a value begins as a frame does."""
    return value[:1] in _LENGTHS


def unframed(value: bytes) -> bytes:
    """Give the JSON in a frame.

    Raises:
        Undecodable: the frame holds something else.
    """
    frame, content = split(value)
    if frame and content.lstrip()[:1] not in (b"{", b"["):
        schema = int.from_bytes(frame[1:]) if frame[:1] == _BY_ID else UUID(bytes=frame[1:].ljust(16, b"\0"))
        raise Undecodable(
            Reason.NOT_JSON,
            f"the value begins as a Schema Registry frame of schema {schema}, and does not go on as JSON: Avro and "
            "Protobuf are not read; have the producer write JSON, or convert the topic",
        )
    return content
