"""Writes what a record of a stream leads to: its verdict, an intervention, and the state of its session. Pure.

It writes plain dicts with orjson, as `workers.core.decide` does. A test compares them with the models in
`schemas.stream`. No output holds a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from schemas.policy import StreamPolicy
from workers.core.dead_letters import size_of
from workers.core.decide import compact
from workers.core.records import Finished, Output, Source
from workers.live.session import Ruling
from workers.policy.streams import Cut
from workers.settings import Topics
from workers.streams.reading import Item

SCHEMA_VERSION = 1

LEAST_POSITIONS = 16
"""A verdict that is too large for its topic keeps at least so many of its newest positions, the cut among them."""


class Terms(Struct, frozen=True):
    """What was in force when the stream began: the reference of its policy, and the rules."""

    reference: Mapping[str, str | int]
    rules: StreamPolicy


def verdict_id(pipeline: str, source: Source) -> str:
    """Give the id (32 hex digits, BLAKE2b-128) of the verdict on the record at this position.

    The same position always gives the same id. The lengths come first, so that two different inputs never give the same
    string, and the word at the end distinguishes it from the verdict on an event.
    """
    topic, partition = source.origin
    name = f"{len(pipeline)}|{len(topic)}|{partition}|{source.offset}|{pipeline}{topic}|stream"
    return blake2b(name.encode(), digest_size=16).hexdigest()


def session_key(item: Item) -> bytes:
    """Give the key of a stream's state. A stream belongs to a partition: elsewhere, the same id is another stream."""
    return f"{item.source.origin.partition}|{len(item.tenant_id)}|{item.tenant_id}|{item.stream_id}".encode()


def position(source: Source) -> dict[str, Any]:
    """Give a `schemas.verdict.SourcePosition` as a dict."""
    topic, partition = source.origin
    return {"topic": topic, "partition": partition, "offset": source.offset, "timestamp": source.timestamp_ms}


class Outputs:
    """Writes the outputs of one pipeline."""

    def __init__(self, topics: Topics, pipeline: str, carry_headers: frozenset[str] = frozenset()) -> None:
        self._topics = topics
        self._pipeline = pipeline
        self._carry = carry_headers

    def verdict(
        self, item: Item, outcome: str, terms: Terms | None, *, ruling: Ruling, judged_ms: float | None
    ) -> Output:
        """Write the verdict on a record. `terms` is None if its stream is not known."""
        prompt = ruling.prompt
        document = {
            "schema_version": SCHEMA_VERSION,
            "verdict_id": verdict_id(self._pipeline, item.source),
            "stream_id": item.stream_id,
            "tenant_id": item.tenant_id,
            "seq": item.seq,
            "kind": item.kind,
            "outcome": outcome,
            "prompt": prompt and {"severity": prompt.severity, "risk": prompt.risk, "categories": prompt.categories},
            "first_position": ruling.first_position,
            "risk": ruling.risk,
            "categories": ruling.categories,
            "shown_chars": ruling.shown_chars,
            "policy": terms and terms.reference,
            **({"rules": terms.rules.model_dump(mode="json")} if terms is not None and outcome == "opened" else {}),
            "source": position(item.source),
            "judged_ms": judged_ms,
            "created_at": item.created_at,
        }
        headers = [(name, value) for name, value in item.headers or () if name in self._carry]
        return Output(self._topics.stream_verdicts, item.key, compact(document), headers or None)

    def intervention(self, item: Item, cut: Cut, terms: Terms) -> Output:
        """Write the end of a stream by its policy."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "intervention_id": verdict_id(self._pipeline, item.source),
            "stream_id": item.stream_id,
            "tenant_id": item.tenant_id,
            "seq": item.seq,
            "position": cut.position,
            "shown_chars": cut.shown_chars,
            "reason": cut.reason,
            "severity": cut.severity,
            "categories": cut.categories,
            "replacement": terms.rules.replacement,
            "policy": terms.reference,
            "source": position(item.source),
        }
        return Output(self._topics.interventions, item.key, compact(document))

    def session(self, item: Item, start: Source, state: str, terms: Terms, shown_chars: int = 0) -> Output:
        """Write where an open stream begins, and its state."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "stream_id": item.stream_id,
            "tenant_id": item.tenant_id,
            "start": position(start),
            "policy": terms.reference,
            "rules": terms.rules.model_dump(mode="json"),
            "state": state,
            "shown_chars": shown_chars,
        }
        return Output(self._topics.stream_sessions, session_key(item), compact(document))

    def tombstone(self, item: Item) -> Output:
        """Delete the state of a stream that has ended."""
        return Output(self._topics.stream_sessions, session_key(item), None)


def shrunk(record: Finished, limits: Mapping[str, int]) -> Finished | None:
    """Make the verdict on a very long delta fit: it loses its first positions. None: it cannot.

    All positions were judged, and `first_position` says with which one the rest begins.
    """
    outputs = [_shrunk(output, limits[output.topic]) for output in record.outputs]
    fitting = tuple([output for output in outputs if output is not None])
    return replace(record, outputs=fitting) if len(fitting) == len(outputs) else None


def _shrunk(output: Output, max_bytes: int) -> Output | None:
    if size_of(output) <= max_bytes:
        return output
    document: dict[str, Any] = orjson.loads(output.value or b"{}")
    while len(document.get("risk", ())) > LEAST_POSITIONS:
        dropped = max(1, len(document["risk"]) // 4)
        document["first_position"] += dropped
        for name in ("risk", "categories"):
            del document[name][:dropped]
        output = replace(output, value=compact(document))
        if size_of(output) <= max_bytes:
            return output
    return None
