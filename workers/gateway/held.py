"""The text of one choice that waits: first for its judgement, then for the policy to show it. Pure.

Guarantee: `release(n)` gives nothing of the text after its first n characters, nor anything that repeats that text.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from workers.gateway.parts import Api, Channel, Json, Part, joined, parts, shown

BETWEEN_CHANNELS = Part("\n\n", None, {})
"""Judged between two texts of an answer, and never shown: the last word of one and the first of the next stay apart."""


class Piece(NamedTuple):
    """What one chunk shows."""

    fields: Json
    logprobs: Any = None


class Held:
    """The parts of one choice in the order of their arrival, as one text."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._parts: deque[Part] = deque()
        self._untaken: deque[str] = deque()
        self._channel: Channel | None = None
        self._logprobs: Any = None
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
        found = list(parts(self._api, choice, key))
        if (logprobs := choice.get("logprobs")) is not None:
            self._logprobs = joined(self._logprobs, logprobs)
        last = max((number for number, part in enumerate(found) if part.text), default=None)
        for number, part in enumerate(found):
            if number == last:
                part, self._logprobs = part._replace(logprobs=self._logprobs), None
            if not part.text:
                if part == self._plain:
                    continue  # Some servers repeat the role in every chunk.
                self._plain = part
            elif part.channel != self._channel:
                if self._channel is not None:
                    self._append(BETWEEN_CHANNELS)
                self._channel = part.channel
            self._append(part)

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
                fields = shown(self._api, part, part.text[done:until], is_first=done == 0)
                pieces.append(Piece(fields, part.logprobs if is_whole else None))
            if not is_whole:
                self._shown_of_first = until
                break
            self._parts.popleft()
            self.shown_deltas += bool(part.text) and part.channel is not None
            self._begin += len(part.text)
            self._shown_of_first = 0
        return pieces

    def rest_of_logprobs(self) -> Any:
        """Give the logprobs that came without a text. Only after the whole text was released."""
        return self._logprobs
