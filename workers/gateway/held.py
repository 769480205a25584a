"""The text of one choice that waits: first for its judgement, then for the policy to show it. Pure.

Guarantee: `release(n)` gives nothing of the text after its first n characters, nor anything that repeats that text.
Each call of a tool is judged as one text, also where the model server writes several calls in turns.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeAlias

from workers.gateway.logprobs import Logprobs
from workers.gateway.parts import TEXTS, Api, Channel, Json, Part, parts, shown

BETWEEN_CHANNELS = Part("\n\n", None, {})
"""Judged between two texts of an answer, and never shown: the last word of one and the first of the next stay apart."""

RETOLD_CHARS = 2_048
"""How much of a call the guard reads again where the call goes on after another text."""

WAITING_CHARS = 4_096
"""How much text of each call that goes on after another text may wait. It is twice `RETOLD_CHARS`, so that the guard
never reads more than half of the text again."""


class Piece(NamedTuple):
    """What one chunk shows."""

    fields: Json
    logprobs: Json | None = None


class Held:
    """The parts of one choice as one text, in the order of their arrival.

    The texts of calls are the exception. A call that goes on after another text waits until the choice ends, or
    too much waits. Then the guard reads the end of what it knows of the call again, and the new text after it.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._parts: deque[Part] = deque()
        self._untaken: deque[str] = deque()
        self._channel: Channel | None = None
        self._told: dict[_Call, tuple[Channel, str]] = {}
        """Of each call: where its newest text stands, and the end of its text, as far as the guard gets it."""
        self._waiting: dict[_Call, list[Part]] = {}
        self._waiting_chars = 0
        self._logprobs = Logprobs(api)
        self._plain: Part | None = None
        """The newest part without a text."""
        self._begin = 0
        """The position of the first waiting part in the text."""
        self._shown_of_first = 0
        self.arrived = 0
        """How many characters have arrived."""
        self.taken = 0
        """How many of them were taken to be judged."""
        self.shown_deltas = 0
        """How many texts of the model server were released to their end."""

    def add(self, choice: Json, key: str) -> None:
        """Append a choice of a chunk (`key` is `delta`) or of a whole answer (`message`).

        Raises:
            BadUpstream: a field has another type than the API says.
        """
        self._logprobs.add(choice.get("logprobs"), is_whole=key == "message")
        for part in parts(self._api, choice, key):
            call = _call_of(part.channel)
            if call is not None and self._is_interrupted(call):
                self._waiting.setdefault(call, []).append(part)
                self._waiting_chars += len(part.text)
            elif part.text:
                self._tell(part)
            elif part != self._plain:  # Some servers repeat the role in every chunk.
                self._plain = part
                self._append(part)
        if self._waiting_chars > WAITING_CHARS * len(self._waiting):
            self.end()

    def end(self) -> None:
        """Give the guard the texts of calls that wait, because no further text comes."""
        waiting, self._waiting, self._waiting_chars = self._waiting, {}, 0
        for call, waits in sorted(waiting.items()):
            self._channel, told = self._told[call]
            self._append(BETWEEN_CHANNELS)
            self._append(Part(told, None, {}))
            for part in waits:
                (self._tell if part.text else self._append)(part)

    def _is_interrupted(self, call: _Call) -> bool:
        return call in self._waiting or (call in self._told and _call_of(self._channel) != call)

    def _tell(self, part: Part) -> None:
        """Append a text behind the newest one, of which it is a part or not."""
        between = ""
        if part.channel != self._channel:
            if self._channel is not None:
                self._append(BETWEEN_CHANNELS)
                between = BETWEEN_CHANNELS.text
            self._channel = part.channel
        self._append(part)
        if part.channel is not None and (call := _call_of(part.channel)) is not None:
            told = self._told[call][1] if call in self._told else ""
            self._told[call] = part.channel, f"{told}{between if told else ''}{part.text}"[-RETOLD_CHARS:]

    def _append(self, part: Part) -> None:
        self._parts.append(part)
        if part.text:
            self._untaken.append(part.text)
            self.arrived += len(part.text)

    def take(self, max_chars: int) -> str:
        """Give the next text to be judged; empty if there is none."""
        taken: list[str] = []
        room = max_chars
        while self._untaken and room:
            text = self._untaken.popleft()
            if len(text) > room:
                self._untaken.appendleft(text[room:])
                text = text[:room]
            taken.append(text)
            room -= len(text)
        text = "".join(taken)
        self.taken += len(text)
        return text

    def release(self, chars: int) -> list[Piece]:
        """Give what was not given yet of the first `chars` characters."""
        pieces: list[Piece] = []
        while self._parts and chars >= self._begin:
            part, done = self._parts[0], self._shown_of_first
            until = min(len(part.text), chars - self._begin)
            is_whole = until == len(part.text)
            # A client takes the name of a function as a whole: half a name is another function.
            if not is_whole and (until <= done or (part.channel is not None and part.channel.inner == "name")):
                break
            if part.channel is not None:
                text = part.text[done:until]
                self._logprobs.shown(text)
                pieces.append(Piece(shown(self._api, part, text, is_first=done == 0)))
            if not is_whole:
                self._shown_of_first = until
                break
            self._parts.popleft()
            self.shown_deltas += bool(part.text) and part.channel is not None
            self._begin += len(part.text)
            self._shown_of_first = 0
        if pieces and (logprobs := self._logprobs.take()) is not None:
            pieces[-1] = pieces[-1]._replace(logprobs=logprobs)
        return pieces

    def rest_of_logprobs(self) -> Json | None:
        """Give the logprobs whose place in the text is not known. Only after the whole text was released."""
        return self._logprobs.rest()


_Call: TypeAlias = tuple[str, int]
"""The field and the index of a call."""


def _call_of(channel: Channel | None) -> _Call | None:
    if channel is None or channel.field == "role" or channel.field in (*TEXTS, "text"):
        return None
    return channel.field, channel.call
