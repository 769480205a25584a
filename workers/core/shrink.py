"""Makes verdicts and review items small enough for their topics, so that a judged message keeps its verdict. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from msgspec.structs import replace

from workers.core.dead_letters import size_of
from workers.core.decide import compact
from workers.core.fields import shortened
from workers.core.frames import split
from workers.core.records import Finished, Output

DROPPED: tuple[tuple[str, Any], ...] = (("context", []), ("attributes", {}))
"""What an output loses first, and the value in its place."""

LEAST_TEXT_CHARS = 100
"""A review item with a shorter text would be of no use."""


def shrunk(record: Finished, limits: Mapping[str, int]) -> Finished | None:
    """Make the outputs of a judged record fit into the topics; `limits` are in bytes. None: they cannot.

    An output loses its context, then its attributes, then the middle of its text. `ignored_fields` and
    `truncated_text_chars` say so.
    """
    outputs = [_shrunk(output, limits[output.topic]) for output in record.outputs]
    fitting = tuple([output for output in outputs if output is not None])
    return replace(record, outputs=fitting) if len(fitting) == len(outputs) else None


def _shrunk(output: Output, max_bytes: int) -> Output | None:
    if size_of(output) <= max_bytes:
        return output
    frame, value = split(output.value or b"{}")
    document: dict[str, Any] = orjson.loads(value)
    for name, empty in DROPPED:
        if document.get(name):
            document |= {name: empty, "ignored_fields": [*document["ignored_fields"], name]}
            output = replace(output, value=frame + compact(document))
            if size_of(output) <= max_bytes:
                return output
    text, cut_before = document.get("text", ""), document["truncated_text_chars"]
    limit = len(text)
    while limit > LEAST_TEXT_CHARS:
        limit = max(LEAST_TEXT_CHARS, limit * 3 // 4)
        document["text"], cut = shortened(text, limit)
        document["truncated_text_chars"] = cut_before + cut
        output = replace(output, value=frame + compact(document))
        if size_of(output) <= max_bytes:
            return output
    return None
