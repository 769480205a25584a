"""The parts of an answer: the texts that are judged, and what else a chunk may carry to the client. Pure.

Only fields that are named here reach a client. An unknown field may hold text that nobody has judged: it is dropped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

from workers.gateway.faults import BadUpstream

Json: TypeAlias = dict[str, Any]
Api: TypeAlias = Literal["chat", "completions"]

ENVELOPE = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
"""The fields of a chunk beside its choices."""

TEXTS = ("reasoning_content", "reasoning", "content", "refusal")
"""The fields of a message or a delta that hold text, in the order in which a model writes them."""

MAX_PLAIN_CHARS = 256
"""How long a role or an id may be. A longer one could hold a text."""

PLAIN = re.compile(rf"[!-~]{{0,{MAX_PLAIN_CHARS}}}")
"""A role or an id. With spaces it could be a sentence: some models write the ids of their calls themselves."""


class Channel(NamedTuple):
    """Where in an answer a text stands."""

    field: str
    call: int = 0
    """The index of the tool call."""
    inner: str = ""
    """Of a call: `name`, `arguments` or `input`."""


class Part(NamedTuple):
    """A piece of an answer, in the order of its arrival."""

    text: str
    """What is judged: empty for a part that holds no text of the model."""
    channel: Channel | None
    """None: nothing of it is shown."""
    plain: Json
    """The fields beside the text: a role, or the id of a tool call. They are shown with the first character."""


def parts(api: Api, choice: Json, key: str) -> Iterator[Part]:
    """Give the parts of a choice: `key` is `delta` of a chunk, and `message` of a whole answer.

    Raises:
        BadUpstream: a field has another type than the API says.
    """
    if api == "completions":
        yield from _text(choice, "text")
        return
    delta = choice.get(key)
    if delta is None:
        return
    if not isinstance(delta, dict):
        raise BadUpstream(f"{key} is not an object")
    if (role := _plain(delta, "role")) is not None:
        yield Part("", Channel("role"), {"role": role, "content": ""})
    for field in TEXTS:
        yield from _text(delta, field)
    if (function := delta.get("function_call")) is not None:
        yield from _function(function, Channel("function_call"), {})
    calls = delta.get("tool_calls")
    if calls is not None:
        if not isinstance(calls, list):
            raise BadUpstream("tool_calls is not a list")
        for position, call in enumerate(calls):
            yield from _call(call, position)


def _call(call: object, position: int) -> Iterator[Part]:
    if not isinstance(call, dict):
        raise BadUpstream("a tool call is not an object")
    index = call.get("index", position)
    if type(index) is not int or not 0 <= index < 1_024:
        raise BadUpstream("the index of a tool call is not a small number")
    plain = {name: value for name in ("id", "type") if (value := _plain(call, name)) is not None}
    inner = call.get("custom") if plain.get("type") == "custom" or "custom" in call else call.get("function")
    field = "custom" if inner is not None and inner is call.get("custom") else "function"
    if inner is None:
        if plain:
            yield Part("", Channel(field, index), plain)
        return
    yield from _function(inner, Channel(field, index), plain)


def _function(function: object, channel: Channel, plain: Json) -> Iterator[Part]:
    if not isinstance(function, dict):
        raise BadUpstream(f"{channel.field} is not an object")
    for inner in ("name", "arguments", "input"):
        text = function.get(inner)
        if text is None:
            continue
        if not isinstance(text, str):
            raise BadUpstream(f"{inner} of a call is not a string")
        if text or plain:
            yield Part(text, channel._replace(inner=inner), plain)
        plain = {}
    if plain:
        yield Part("", channel, plain)


def _text(fields: Json, field: str) -> Iterator[Part]:
    text = fields.get(field)
    if text is None:
        return
    if not isinstance(text, str):
        raise BadUpstream(f"{field} is not a string")
    if text:
        yield Part(text, Channel(field), {})


def _plain(fields: Json, name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not PLAIN.fullmatch(value.strip()):
        raise BadUpstream(f"{name} is not a short word")
    return value.strip()


def shown(api: Api, part: Part, text: str, *, is_first: bool) -> Json:
    """Give the fields of a delta (or, of completions, of a choice) that show a piece of a part."""
    assert part.channel is not None
    field, call, inner = part.channel
    plain = part.plain if is_first else {}
    if api == "completions" or field in TEXTS:
        return {**plain, field: text}
    if field == "role":
        return dict(plain)
    function = {inner: text} if inner else {}
    if inner == "name":
        # Clients append the further arguments to those of the first chunk, as the model servers send them.
        function["input" if field == "custom" else "arguments"] = ""
    if field == "function_call":
        return {**plain, field: function}
    return {"tool_calls": [{"index": call, **plain, **({field: function} if function else {})}]}


def joined(earlier: Any, later: Any) -> Any:
    """Join the logprobs of two chunks: the lists of both, by name."""
    if earlier is None or later is None:
        return later if earlier is None else earlier
    if not isinstance(earlier, dict) or not isinstance(later, dict):
        return later
    both: Json = {**earlier, **later}
    for name in earlier.keys() & later.keys():
        if isinstance(earlier[name], list) and isinstance(later[name], list):
            both[name] = [*earlier[name], *later[name]]
        else:
            both[name] = later[name] if earlier[name] is None else earlier[name]
    return both


def envelope_of(chunk: Json) -> Json:
    """Give the fields of a chunk that every chunk of its answer repeats."""
    return {name: value for name in ENVELOPE if _is_short(value := chunk.get(name))}


def usage_of(chunk: Json) -> Json | None:
    """Give the counts of tokens of a chunk or an answer, without anything else: numbers under plain names."""
    usage = chunk.get("usage")
    return _numbers(usage) if isinstance(usage, dict) else None


def finish_of(choice: Json) -> str | None:
    """Give the `finish_reason` of a choice.

    Raises:
        BadUpstream: it is not a short word.
    """
    return _plain(choice, "finish_reason")


def _numbers(counts: Json) -> Json:
    return {
        name: _numbers(value) if isinstance(value, dict) else value
        for name, value in counts.items()
        if (isinstance(value, dict) or _is_number(value)) and PLAIN.fullmatch(name)
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -math.inf < value < math.inf


def _is_short(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_PLAIN_CHARS)
