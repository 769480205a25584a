"""One stream: its text becomes tokens, the engine judges them, and the policy's rules decide what is shown."""

from __future__ import annotations

import asyncio
import codecs
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from msgspec import Struct

from workers.engines.stream import Floats
from workers.errors import Unavailable, Unjudgeable
from workers.live.chatml import ChatML
from workers.live.conversation import CHUNK_TOKENS, Conversation
from workers.live.increments import Increments, Piece, slices
from workers.live.vocabulary import Vocabulary
from workers.policy.streams import DIGITS, Cut, StreamRules, answer_category, prompt_found

_LONG_TURN_CHARS = 16_384
"""Encoding a longer text would block the event loop for more than 10 ms."""


class Prompt(Struct, frozen=True, gc=False):
    """What the model finds in a turn of the user: the fields of `schemas.stream.PromptJudgement`."""

    severity: str
    risk: list[float]
    categories: tuple[str, ...]


class Ruling(Struct, frozen=True):
    """What one step of a stream led to."""

    shown_chars: int
    """How many characters of the answer may be shown by now."""
    first_position: int | None = None
    """The position of the first token that this step judged; None if it judged none."""
    risk: list[list[float]] = []
    """For each judged position: the probabilities of Safe, Controversial and Unsafe, as the rules saw them."""
    categories: list[str | None] = []
    """For each judged position: the most likely category, or None if Safe is the most likely severity."""
    cut: Cut | None = None
    """The end of the stream, if this step led to it."""
    is_unavailable: bool = False
    """Whether a part of this step could not be judged, or an earlier one, and the policy goes on without."""
    prompt: Prompt | None = None
    """Of `user`: what the model finds in the turn."""


class LiveSession:
    """One stream. `LiveGuard.open` makes it. Its calls come one after the other.

    Positions and characters are counted over all answers of the stream. The characters are those of the texts as they
    were given, or of the text that given ids stand for.

    Guarantee: text is shown only after it was judged, as the hold-back of the policy says; a part that the engine did
    not judge never counts as Safe, and `on_unavailable` decides. The same calls lead to the same cut at the same
    position, however their texts are divided, and also after the engine or the process was replaced in between (up to
    the rounding of the engine's arithmetic, see `workers.policy.streams.DIGITS`). A time limit that passes can only
    lead to `unavailable`.

    No call blocks the event loop for long: a text of any length is judged in slices. A `deadline` is a
    `time.monotonic` value. Each call of the engine also has `streams.append_within_s`.

    Raises (`user` and `delta`):
        Unjudgeable: given ids are not of contents. The stream stays as it was.
        Fatal: the engine is not running.
    """

    def __init__(self, conversation: Conversation, chatml: ChatML, vocabulary: Vocabulary, rules: StreamRules) -> None:
        self._conversation = conversation
        self._chatml = chatml
        self._vocabulary = vocabulary
        self._rules = rules
        self._increments: Increments | None = None
        self._bytes: codecs.IncrementalDecoder | None = None
        self._pushed = 0
        """How many characters of the answers were given."""
        self._offset = 0
        """The characters before those of `_increments` or `_bytes`."""

    @property
    def cut(self) -> Cut | None:
        """The end of the stream by policy. After it, nothing is judged any more."""
        return self._rules.cut

    @property
    def is_unjudged(self) -> bool:
        """Whether the stream goes on unjudged, because a part could not be judged and the policy allows that."""
        return self._rules.is_unjudged

    @property
    def shown_chars(self) -> int:
        """How many characters of the answers may be shown by now."""
        return self._rules.shown_chars

    async def user(
        self,
        content: str | Sequence[int],
        deadline: float = math.inf,
        *,
        earlier: Sequence[tuple[str, str]] = (),
    ) -> Ruling:
        """Take a turn of the user, and judge it. It ends the answer before it.

        `earlier`: the turns before it that this stream does not have, as (role, text), such as the history that a
        client sends along. As many of the newest as fit into a quarter of a session are read, and none is judged.
        """
        ids = await self._encoded(content)
        step = _Step(self._rules)
        prompt = None
        if step.goes_on:
            try:
                await self._end_answer(step, deadline)
                if step.goes_on:
                    prompt = await self._turn(ids, earlier, deadline)
            except Unavailable:
                await self._unavailable()
        return step.ruling(prompt)

    async def delta(self, content: str | Sequence[int], deadline: float = math.inf) -> Ruling:
        """Take the next part of the answer, and judge what is certain of it."""
        if not isinstance(content, str):
            self._chatml.check(content)
        step = _Step(self._rules)
        for pieces in self._pieces(content):
            await self._judge(step, pieces, deadline)
            await asyncio.sleep(0)
        return step.ruling()

    async def finish(self, deadline: float = math.inf) -> Ruling:
        """End the answer: judge the rest of it. A further turn of the user may follow."""
        step = _Step(self._rules)
        if step.goes_on:
            try:
                await self._end_answer(step, deadline)
            except Unavailable:
                await self._unavailable()
        return step.ruling()

    async def give_up(self, content: str | Sequence[int] = "") -> Ruling:
        """Take a part that is not judged, for a reason outside of this session: `on_unavailable` decides.

        Of given ids that are not of contents, no characters are counted.
        """
        step = _Step(self._rules)
        with suppress(Unjudgeable):
            if not isinstance(content, str):
                self._chatml.check(content)
            for _ in self._pieces(content):
                pass
        if step.goes_on:
            await self._unavailable()
        return step.ruling()

    async def free(self) -> None:
        """Give the engine's session back while the stream waits. The next call sends all tokens to another one."""
        await self._conversation.release()

    async def close(self) -> None:
        """Free everything. A second call does nothing."""
        await self._conversation.release()

    async def _encoded(self, content: str | Sequence[int]) -> Sequence[int]:
        if not isinstance(content, str):
            self._chatml.check(content)
            return content
        if len(content) > _LONG_TURN_CHARS:
            return await asyncio.to_thread(self._chatml.content, content)
        return self._chatml.content(content)

    async def _turn(self, ids: Sequence[int], earlier: Sequence[tuple[str, str]], deadline: float) -> Prompt:
        history = self._chatml.earlier(earlier, self._conversation.earlier_tokens)
        found = await self._conversation.turn(ids, history, deadline)
        judged = [(_rounded(risk), _rounded(categories)) for risk, categories in found]
        risk, categories = max(judged, key=lambda window: (window[0].index(max(window[0])), window[0][2]))
        if self._rules.prompt(risk, categories) is not None:
            await self._conversation.release()
        severity, names = prompt_found(risk, categories)
        return Prompt(severity, risk, names)

    def _pieces(self, content: str | Sequence[int]) -> Iterator[Sequence[Piece]]:
        """Give the new pieces of each slice, and tell the rules of its text. Blocks for some milliseconds each time."""
        if isinstance(content, str):
            if self._bytes is not None:
                yield self._flush()
            if self._increments is None:
                self._increments = Increments(self._vocabulary)
            for part in slices(content):
                self._tell(part)
                # What is not judged any more needs no tokens.
                yield () if self._is_over else self._moved(self._increments.push(part))
        else:
            if self._increments is not None:
                yield self._flush()
            if self._bytes is None:
                self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
            for start in range(0, len(content), CHUNK_TOKENS):
                yield [self._piece(token) for token in content[start : start + CHUNK_TOKENS]]

    def _piece(self, token: int) -> Piece:
        assert self._bytes is not None
        self._tell(self._bytes.decode(self._vocabulary.bytes_of(token)))
        return Piece(token, self._pushed)

    def _flush(self) -> Sequence[Piece]:
        """End the present way of giving content, and give the rest of its pieces."""
        pieces: Sequence[Piece] = ()
        if self._increments is not None:
            pieces = self._moved(self._increments.end())
        if self._bytes is not None:
            self._tell(self._bytes.decode(b"", final=True))
        self._increments = self._bytes = None
        self._offset = self._pushed
        return pieces

    def _tell(self, text: str) -> None:
        self._pushed += len(text)
        self._rules.pushed(text)

    def _moved(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        if self._offset == 0:
            return pieces
        return [Piece(piece.id, piece.chars + self._offset) for piece in pieces]

    @property
    def _is_over(self) -> bool:
        return self._rules.cut is not None or self._rules.is_unjudged

    async def _end_answer(self, step: _Step, deadline: float) -> None:
        await self._judge(step, self._flush(), deadline)
        self._rules.end_turn()

    async def _judge(self, step: _Step, pieces: Sequence[Piece], deadline: float) -> None:
        """Judge pieces until the stream is cut."""
        try:
            while pieces and step.goes_on:
                judged = await self._conversation.answer([piece.id for piece in pieces], deadline)
                count = len(judged.risk)
                step.take(judged.risk, judged.categories, pieces[:count])
                pieces = pieces[count:]
        except Unavailable:
            await self._unavailable()
        if self._rules.cut is not None:
            await self._conversation.release()

    async def _unavailable(self) -> None:
        self._rules.unavailable()
        await self._conversation.release()


class _Step:
    """Collects what one call leads to."""

    def __init__(self, rules: StreamRules) -> None:
        self._rules = rules
        self._was_cut = rules.cut is not None
        self._first = rules.positions
        self._risk: list[list[float]] = []
        self._categories: list[str | None] = []

    @property
    def goes_on(self) -> bool:
        """Whether the rest of the stream is to be judged."""
        return self._rules.cut is None and not self._rules.is_unjudged

    def take(self, risk: Floats, categories: Floats, pieces: Sequence[Piece]) -> None:
        """Give the rules the next positions, up to the cut."""
        for row, named, piece in zip(_rounded(risk), _rounded(categories), pieces, strict=True):
            self._risk.append(row)
            self._categories.append(answer_category(row, named))
            if self._rules.position(row, named, piece.chars) is not None:
                return

    def ruling(self, prompt: Prompt | None = None) -> Ruling:
        cut = self._rules.cut
        return Ruling(
            shown_chars=self._rules.shown_chars,
            first_position=self._first if self._risk else None,
            risk=self._risk,
            categories=self._categories,
            cut=None if self._was_cut else cut,
            is_unavailable=self._rules.is_unjudged or (cut is not None and cut.reason == "unavailable"),
            prompt=prompt,
        )


def _rounded(probabilities: Floats) -> Any:
    """Return floats, or lists of them for each row, that are written and read again without a change."""
    return np.round(np.clip(probabilities.astype(np.float64), 0, 1), DIGITS).tolist()
