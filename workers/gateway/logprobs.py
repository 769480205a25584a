"""The logprobs of one choice, which repeat its text token by token. Pure.

Guarantee: an entry leaves after the text of its token was shown, or at the end of a choice that was not cut. It has
only the fields that are named here.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

from workers.gateway.parts import MAX_PLAIN_CHARS, Api, Json

CHAT = ("content", "refusal")
COMPLETIONS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")

NEAR_CHARS = 64
"""How far behind the text of a token that of the next one may begin: model servers leave out marks between them."""

MAX_WAITING = 8_192
"""How many entries of a stream may wait. Beyond it, the choice has no logprobs any more."""

LOWEST = -9_999.0
"""OpenAI's value for a probability of 0, whose logarithm JSON cannot write."""

PART_BYTES = 4
"""The bytes of a token may differ from its text only if they are a part of one character."""

PLACELESS = re.compile(r"[\ufffd\s]*\ufffd[\ufffd\s]*|(bytes:)?(\\x[0-9a-fA-F]{2}){1,8}|<[^<>\s]{0,64}>|")
"""Tokens without a text of their own: parts of a character, marks such as the end of a message, and empty ones."""


class _Entry(NamedTuple):
    token: str
    name: str
    shown: Json


class Logprobs:
    """See the module. The entries leave in their order."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._entries: deque[_Entry] = deque()
        self._ready: list[_Entry] = []
        self._text = ""
        """What was shown behind the text of the last entry that is ready."""
        self._is_too_long = False

    def add(self, found: object, *, is_whole: bool = False) -> None:
        """Append the logprobs of a chunk, or of a whole answer. What has another form is left out."""
        if not isinstance(found, dict) or self._is_too_long:
            return
        self._entries.extend(_of_chat(found) if self._api == "chat" else _of_completion(found))
        if len(self._entries) > MAX_WAITING and not is_whole:
            self._entries.clear()
            self._is_too_long = True

    def shown(self, text: str) -> None:
        """Note a text that leaves now."""
        text = self._text + text
        end = 0  # Where the text of the last entry that is ready ends. To cut the text each time would take too long.
        while (index := self._next(text, end)) is not None:
            token = self._entries[index].token
            begin = text.find(token, end, end + NEAR_CHARS + len(token))
            if begin < 0:
                break
            end = begin + len(token)
            self._ready.extend(self._entries.popleft() for _ in range(index + 1))
        # Further text cannot help an entry whose place has passed: it waits for the end.
        self._text = text[end:][: NEAR_CHARS + MAX_PLAIN_CHARS] if self._entries else text[end:][-NEAR_CHARS:]

    def take(self) -> Json | None:
        """Give the entries whose texts were shown; None if there are none."""
        ready, self._ready = self._ready, []
        if not ready or self._is_too_long:
            return None
        if self._api == "chat":
            return {name: [entry.shown for entry in ready if entry.name == name] or None for name in CHAT}
        return {name: [entry.shown[name] for entry in ready] for name in COMPLETIONS}

    def rest(self) -> Json | None:
        """Give all entries that are left. Only if the whole choice was shown."""
        self._ready.extend(self._entries)
        self._entries.clear()
        return self.take()

    def _next(self, text: str, end: int) -> int | None:
        """Give the index of the next entry whose token has a text. Those before it leave with it."""
        entries = enumerate(self._entries)
        return next((index for index, entry in entries if not _is_placeless(entry.token, text, end)), None)


def _is_placeless(token: str, text: str, begin: int) -> bool:
    if PLACELESS.fullmatch(token):
        return True
    # Model servers strip white space at the borders of a thought or of a call.
    return token.isspace() and len(text) - begin >= len(token) and not text.startswith(token, begin)


def _of_chat(found: Json) -> Iterator[_Entry]:
    for name in CHAT:
        for entry in _list(found.get(name)):
            if (shown := _token(entry)) is not None:
                others = [other for one in _list(entry.get("top_logprobs")) if (other := _token(one)) is not None]
                yield _Entry(shown["token"], name, {**shown, "top_logprobs": others})


def _of_completion(found: Json) -> Iterator[_Entry]:
    lists = [_list(found.get(name)) for name in COMPLETIONS]
    for index, token in enumerate(lists[0]):
        _, logprob, others, offset = (one[index] if index < len(one) else None for one in lists)
        if not _is_token(token):
            continue
        top = None
        if isinstance(others, dict):
            top = {other: _number(value) for other, value in others.items() if _is_token(other)}
        place = offset if type(offset) is int else None
        yield _Entry(token, "", dict(zip(COMPLETIONS, (token, _number(logprob), top, place), strict=True)))


def _token(entry: object) -> Json | None:
    if not isinstance(entry, dict) or not _is_token(token := entry.get("token")):
        return None
    raw = _list(entry.get("bytes"))
    is_known = raw == [*token.encode("utf-8", "surrogatepass")]
    is_part = len(raw) <= PART_BYTES and all(type(byte) is int and 0 <= byte < 256 for byte in raw)
    return {
        "token": token,
        "logprob": _number(entry.get("logprob")),
        "bytes": raw if raw and (is_known or is_part) else None,
    }


def _is_token(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_PLAIN_CHARS


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -math.inf < value < math.inf else LOWEST  # `isfinite` refuses large integers.


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
