"""Applies the tenant's policy and writes the verdict. Pure: it can be repeated without a GPU.

It writes plain dicts with orjson, because a nested model takes five times as long. A test compares the output with
`schemas.verdict.Verdict` and `schemas.review.ReviewItem`.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import orjson
from msgspec import Struct

from workers.core.records import Event, Source
from workers.policy.policy import CompiledPolicy

SCHEMA_VERSION = 1


EMPTY: tuple[str, tuple[str, ...]] = ("allow", ("empty",))
"""The decision on an event without text, and its reason. No model has seen what else the message holds."""

_ASSESSMENT = b',"assessment":'


class Decided(Struct, frozen=True, gc=False):
    """A verdict, ready to be produced. `review` is the review item, None unless the decision is `review`."""

    decision: str
    value: bytes
    review: bytes | None

    @property
    def assessment(self) -> bytes:
        """The assessment as JSON, cut out of the verdict: it comes last, and no string holds an unescaped quote."""
        return self.value[self.value.rindex(_ASSESSMENT) + len(_ASSESSMENT) : -1]


def compact(document: Mapping[str, Any]) -> bytes:
    """Write JSON into bytes of its own size.

    orjson returns the buffer in which it wrote, 8 kB for 700 bytes. With thousands of records in flight, that adds up.
    """
    return b"%b" % orjson.dumps(document)


def verdict_id(pipeline: str, source: Source, event_id: str) -> str:
    """Give the id (32 hex digits, BLAKE2b-128) of the verdict on the event at this position.

    The same position always gives the same id, so that a consumer recognises a repeat. The pipeline's id distinguishes
    a topic that was created again. The lengths come first, so that two different inputs never give the same string.
    """
    topic, partition = source.origin
    name = f"{len(pipeline)}|{len(topic)}|{partition}|{source.offset}|{pipeline}{topic}{event_id}"
    return blake2b(name.encode(), digest_size=16).hexdigest()


def verdict(
    event: Event, policy: CompiledPolicy, judged_ms: float | None, carry_attributes: bool | Sequence[str] = True
) -> Decided:
    """Decide on one event, which has been looked up and judged, and write its verdict.

    `judged_ms`: milliseconds from the closed micro-batch to this decision. `carry_attributes`: the attributes that the
    verdict has.
    """
    body, source = event.body, event.source
    topic, partition = source.origin
    surface, role, language = body["surface"], body.get("role", "user"), body.get("language")
    language_source = None if language is None else "producer"
    if event.detected_language is not None:
        language, language_source = event.detected_language, "detector"
    if body["text"]:
        decision, reasons = policy.decide(
            event.assessment, surface=surface, role=role, language=language, strikes=event.strikes
        )
    else:
        decision, reasons = EMPTY
    attributes: Mapping[str, object] = body.get("attributes") or {}
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "verdict_id": event.verdict_id,
        "event_id": body["event_id"],
        "tenant_id": body["tenant_id"],
        "surface": surface,
        "author_id": body.get("author_id"),
        "language": language,
        "language_source": language_source,
        "role": role,
        "decision": decision,
        "reasons": reasons,
        "policy": policy.reference,
        "source": {
            "topic": topic,
            "partition": partition,
            "offset": source.offset,
            "timestamp": source.timestamp_ms,
        },
        "duplicate_of": event.duplicate_of,
        "timings": {"received_at": source.received_at_ms, "judged_ms": judged_ms},
        "created_at": body.get("created_at"),
        "attributes": attributes and carried(attributes, carry_attributes),
        "ignored_fields": event.ignored_fields,
        "truncated_text_chars": event.truncated_text_chars,
    }
    # Left out of most verdicts, because each would cost bytes in every record.
    if event.strikes is not None:
        document["strikes"] = event.strikes
    if event.similarity is not None:
        document["similarity"] = event.similarity
    document["assessment"] = event.assessment
    value = compact(document)
    if decision != "review":
        return Decided(decision, value, None)
    document["text"] = body["text"]
    document["context"] = body.get("context", [])
    document["attributes"] = attributes
    return Decided(decision, value, compact(document))


def carried(attributes: Mapping[str, object], names: bool | Sequence[str]) -> Mapping[str, object]:
    """Give the attributes that a verdict has, by the setting `events.carry_attributes`."""
    if names is True:
        return attributes
    return {name: attributes[name] for name in names or () if name in attributes}
