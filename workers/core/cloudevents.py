"""CloudEvents over Kafka: attributes in headers (binary mode), or around the data (structured mode). Pure.

An event that carries its own id or time keeps it. Nothing here runs without `cloudevents.read`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from workers.core.fields import identifier
from workers.core.json_text import parse
from workers.core.reasons import Reason
from workers.core.records import Headers
from workers.core.times import read_time
from workers.errors import Undecodable

SPEC_VERSION = "1.0"
PREFIX = "ce_"
CONTENT_TYPE = "content-type"
STRUCTURED = b"application/cloudevents+json"
"""The beginning of the content type of a record in structured mode."""

Attributes = Mapping[str, str]
"""What a CloudEvent says of its data: `event_id`, `created_at`, and the attribute `ce_source`. None need be there."""

NOTHING: Attributes = {}

_READ = {"ce_id": "id", "ce_time": "time", "ce_source": "source"}


def opened(value: bytes | None, headers: Headers) -> tuple[bytes | None, Attributes]:
    """Give the data of a record, and what its CloudEvent says of it; of another record, the value as it is.

    Raises:
        Undecodable: the content type says that it is in structured mode, and it is not.
    """
    found: dict[str, str] = {}
    for name, given in headers:
        if given is None:
            continue
        if name in _READ:
            found[_READ[name]] = given.decode("utf-8", "replace")
        elif name.lower() == CONTENT_TYPE and value is not None and given.lower().startswith(STRUCTURED):
            return _opened_structured(value)
    return value, _attributes(found) if found else NOTHING


def _opened_structured(value: bytes) -> tuple[bytes, Attributes]:
    envelope = parse(value)
    if not isinstance(envelope, dict) or "specversion" not in envelope:
        raise Undecodable(Reason.WRONG_TYPE, "the content type is that of a CloudEvent, and the value is not one")
    data = json.dumps(data_of(envelope), ensure_ascii=False, separators=(",", ":"))
    return data.encode("utf-8", "surrogatepass"), _attributes(envelope)


def data_of(envelope: Mapping[str, Any]) -> Any:
    """Give the data of a CloudEvent in structured mode.

    Raises:
        Undecodable: `data_base64` is not base64.
    """
    if "data_base64" not in envelope:
        return envelope.get("data")
    try:
        data = base64.b64decode(envelope["data_base64"], validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Undecodable(Reason.INVALID_FIELD, "data_base64: it is not base64") from None
    try:
        return parse(data)
    except Undecodable:
        return data.decode("utf-8", "replace")


def _attributes(found: Mapping[str, object]) -> Attributes:
    read = {
        "event_id": identifier(found.get("id")),
        "created_at": read_time(found.get("time")),
        "ce_source": identifier(found.get("source")),
    }
    return {name: value for name, value in read.items() if value is not None}


def stand_in(document: dict[str, Any], attributes: Attributes) -> None:
    """Set the fields that the document lacks and its CloudEvent has."""
    for name in ("event_id", "created_at"):
        if name in attributes and document.get(name) in (None, ""):
            document[name] = attributes[name]
    own = document.get("attributes")
    if "ce_source" in attributes and (own is None or isinstance(own, dict)):
        document["attributes"] = {"ce_source": attributes["ce_source"], **(own or {})}
