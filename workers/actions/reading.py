"""Turns the records of one endpoint's topics into deliveries, or skips those that the endpoint does not want. Pure.

Each endpoint reads all verdicts. One that it does not want must cost little: only the fields that decide are decoded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from workers.actions.authors import author_of
from workers.actions.delivery import Delivery
from workers.actions.format import Format
from workers.core.frames import unframed
from workers.core.reasons import Reason
from workers.core.records import Finished, Record, Source, record_key
from workers.errors import Undecodable
from workers.settings import Topics
from workers.settings.action_sections import Endpoint, Kind


class _Head(msgspec.Struct, gc=False):
    """The fields of a verdict, a review item or a signal that decide whether an endpoint wants it."""

    tenant_id: str
    verdict_id: str | None = None
    signal_id: str | None = None
    decision: str | None = None
    supersedes: str | None = None
    superseded_decision: str | None = None
    current: str | None = None
    """The appealed verdict, in the state of a review item."""


OWN_ID: Mapping[Kind, str] = {"review": ".review", "appeal": ".appeal"}
"""What follows the verdict's id: the verdict has a delivery of its own, and a receiver skips an id that it knows."""

_ID = re.compile(r"[!-~]{1,200}")
"""An id is sent as a header. No record may bring a worker down, or add a header, by an id with a line break."""

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON, or that are nested too deeply."""

_HEADS = msgspec.json.Decoder(_Head)


def inputs_of(endpoint: Endpoint, topics: Topics) -> dict[str, str]:
    """Return the topics that an endpoint's deliveries come from, each with the name of its setting."""
    found = {}
    if {"verdict", "superseding"} & set(endpoint.kinds):
        found[topics.verdicts] = "topics.verdicts"
    if "signal" in endpoint.kinds:
        found[topics.signals] = "topics.signals"
    if "review" in endpoint.kinds:
        found[topics.review] = "topics.review"
    if "appeal" in endpoint.kinds:
        found[topics.review_state] = "topics.review_state"
    return found


class Reading:
    """Reads the records of one endpoint's topics, for `workers.kafka.decoding.Decoding`. Never blocks."""

    def __init__(self, endpoint: Endpoint, topics: Topics, form: Format) -> None:
        self._kinds = frozenset(endpoint.kinds)
        self._decisions = frozenset(endpoint.decisions)
        self._tenants = frozenset(endpoint.tenants)
        self._of_topic: Mapping[str, Kind] = {
            topics.signals: "signal",
            topics.review: "review",
            topics.review_state: "appeal",
        }
        self._format = form

    def __call__(self, record: Record, source: Source) -> list[Delivery] | Finished:
        """Return the delivery of a record, or the finished record if the endpoint does not want it.

        Raises:
            Undecodable: it is not a verdict, a review item, the state of one or a signal.
        """
        kind = self._of_topic.get(source.origin.topic, "verdict")
        at_ms = source.timestamp_ms or int(time.time() * 1000)
        if kind == "appeal" and record.value is None:
            return Finished(source, ())  # The item was deleted.
        plain = unframed(record.value or b"")
        try:
            head = _HEADS.decode(plain)
            id_ = {"signal": head.signal_id, "appeal": head.current}.get(kind, head.verdict_id)
            if id_ is None:
                raise Undecodable(Reason.MISSING_FIELD, f"a {kind} without its id")
            if not _ID.fullmatch(id_):
                raise Undecodable(Reason.INVALID_FIELD, f"the id of the {kind} cannot be sent as a header")
            if kind == "verdict" and head.supersedes is not None:
                kind = "superseding"
            if not self._wants(kind, head):
                return Finished(source, ())
            document = _Document(plain)
            body = self._format.body(kind, document, plain, at_ms)
            about = author_of(kind, document) if body is not None and self._format.names_authors else (None, 0)
        except msgspec.ValidationError as error:
            raise Undecodable(Reason.INVALID_FIELD, str(error)) from None  # It names types and fields, never values.
        except NOT_JSON:
            raise Undecodable(Reason.NOT_JSON, "this is not JSON") from None
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            said = f"a field is missing or has another type ({type(error).__name__})"
            raise Undecodable(Reason.INVALID_FIELD, said) from None
        if body is None:
            return Finished(source, ())
        key = record_key(record.key, source.origin.partition)
        return [Delivery(source, key, id_ + OWN_ID.get(kind, ""), kind, head.tenant_id, body, at_ms, *about)]

    def _wants(self, kind: Kind, head: _Head) -> bool:
        return (
            kind in self._kinds
            and (not self._tenants or head.tenant_id in self._tenants)
            and (
                kind in ("signal", "appeal")
                or head.decision in self._decisions
                or head.superseded_decision in self._decisions
            )
        )


class _Document(Mapping[str, Any]):
    """The fields of a record, decoded when the first one is read: most formats need none."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._fields: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._fields is None:
            self._fields = orjson.loads(self._value)
        return self._fields

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __iter__(self) -> Any:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
