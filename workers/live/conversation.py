"""A conversation at the engine, which survives the loss of its session there.

The conversation keeps the ids that its session holds. If the session is lost or given to another conversation, the ids
are sent again. Past the bound of a session, the conversation goes on in a new one with its turn of the user and the
last tokens of the answer.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

import numpy as np

from workers.engines.stream import Floats, Judged, Session, StreamEngine
from workers.errors import Unavailable, Unjudgeable
from workers.live.chatml import ChatML
from workers.live.slots import Slots

CHUNK_TOKENS = 256
"""The most tokens of one call: a long text must not keep the engine from other sessions."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
_SUM_ERROR = 0.01
_GRACE_S = 1.0
"""The engine keeps deadlines itself. Only one that hangs is still busy this long after it."""


class Conversation:
    """The ids of one conversation, and its session at the engine.

    Where a session is divided depends only on the ids. So the judgements depend neither on the chunks nor on lost
    sessions, up to the rounding of the arithmetic.

    Raises (`turn` and `answer`):
        Unavailable: no judgement within `within_s` for one call of the engine and its retries, or by the deadline; or
            the engine cannot judge these tokens.
        Fatal: the engine is not running.
    """

    def __init__(
        self,
        engine: StreamEngine,
        slots: Slots,
        chatml: ChatML,
        *,
        max_tokens: int,
        anchor_tokens: int,
        within_s: float,
    ) -> None:
        self._engine = engine
        self._slots = slots
        self._chatml = chatml
        self._bound = max_tokens
        self._anchor_tokens = anchor_tokens
        self._within_s = within_s
        self._session: Session | None = None
        self._has_slot = False
        self._ids = array("i")
        """What the session holds, or would hold if it were not lost."""
        self._turn = array("i", [*chatml.before_user, *chatml.after_turn])
        """The newest turn of the user, from its first to its last control token. An answer without one has an empty
        one."""
        self._answer = array("i")
        """The end of the present answer, at least `anchor_tokens` of it."""
        self._is_in_answer = False
        self.earlier_tokens = max_tokens // 4
        """How many tokens of earlier turns fit before a turn of the user."""

    async def turn(
        self, ids: Sequence[int], earlier: Sequence[int] = (), deadline: float = math.inf
    ) -> list[tuple[Floats, Floats]]:
        """Take a turn of the user. Returns the probabilities of its 3 severities and 9 categories.

        A turn longer than half of a session is judged in windows, with one result for each. The answer follows the last
        of them.

        `earlier`: ids of earlier turns. They replace what the conversation holds.
        """
        before, after = self._chatml.before_user, self._chatml.after_turn
        room = self._bound // 2 - len(before) - len(after)
        windows = [ids[start : start + room] for start in range(0, len(ids), room)] or [ids]
        found = []
        for window in windows:
            turn = array("i", [*before, *window, *after])
            if earlier or len(windows) > 1 or len(self._ids) + len(turn) > self._bound * 3 // 4:
                await self._begin_anew(array("i", earlier))
                between: Sequence[int] = ()
            else:
                between = self._between()
            self._turn, self._answer, self._is_in_answer = turn, array("i"), False
            judged = await self._send([*between, *turn], 0, deadline)
            found.append((judged.prompt_risk, judged.prompt_categories))
        return found

    async def answer(self, ids: Sequence[int], deadline: float = math.inf) -> Judged:
        """Take the next tokens of the answer, and judge the first of them: at least one, at most `CHUNK_TOKENS`.

        The number of rows says how many. Call it again with the rest.
        """
        lead = self._lead()
        if len(self._ids) + len(lead) >= self._bound:
            await self._begin_anew(array("i"))
            lead = self._lead()
        chunk = ids[: min(self._bound - len(self._ids) - len(lead), CHUNK_TOKENS)]
        judged = await self._send([*lead, *chunk], len(chunk), deadline)
        self._is_in_answer = True
        self._answer.extend(chunk)
        if len(self._answer) > 2 * self._anchor_tokens + CHUNK_TOKENS:
            self._answer = self._anchor()
        return judged

    async def release(self) -> None:
        """Give the session and its slot back. The next call opens another one, and sends all ids again."""
        if self._has_slot:
            self._slots.give_back(self)
            await self.lose_slot()

    async def lose_slot(self) -> None:
        """See `Holder.lose_slot`."""
        self._has_slot = False
        await self._end()

    def _between(self) -> Sequence[int]:
        """Return the ids between what the session holds and the next turn of the user."""
        if not self._ids:
            return ()
        return self._chatml.after_answer if self._is_in_answer else self._chatml.between_turns

    def _lead(self) -> Sequence[int]:
        """Return the ids between what the session holds and the next token of the answer."""
        if not self._ids:
            return [*self._turn, *self._chatml.before_answer, *self._anchor()]
        return () if self._is_in_answer else self._chatml.before_answer

    def _anchor(self) -> array[int]:
        """Return the last tokens of the answer with which a new session begins. There may be none."""
        return self._answer[max(0, len(self._answer) - self._anchor_tokens) :]

    async def _begin_anew(self, ids: array[int]) -> None:
        self._ids = ids
        await self._end()

    async def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(TimeoutError, Unavailable):
                async with asyncio.timeout(_GRACE_S):
                    await self._engine.end(session)

    async def _send(self, ids: Sequence[int], wanted: int, deadline: float) -> Judged:
        """Add ids to the session, and return the judgements of the last `wanted` ones."""
        limit = min(deadline, monotonic() + self._within_s)
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                async with self._slots.work(limit - monotonic()):
                    judged = await self._attempt(ids, wanted, limit)
                self._ids.extend(ids)
                return judged
            except Unjudgeable as error:  # The model's numbers overflow, and would again.
                raise Unavailable(f"the engine cannot judge this part: {error}") from error
            except Unavailable:
                if monotonic() + wait_s >= limit:
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _attempt(self, ids: Sequence[int], wanted: int, limit: float) -> Judged:
        self._slots.resume(self)
        is_done = False
        try:
            async with asyncio.timeout(limit - monotonic() + _GRACE_S):
                judged = await self._all_sent(ids, limit)
            result = _last(judged, wanted)
            is_done = True
            return result
        except TimeoutError:
            raise Unavailable("the engine does not answer by the deadline (streams.append_within_s)") from None
        finally:
            try:
                if not is_done:  # Then it is not known which tokens the engine has taken.
                    await self._end()
            finally:
                if self._has_slot:
                    self._slots.wait(self)

    async def _all_sent(self, ids: Sequence[int], limit: float) -> list[Judged]:
        session = self._session
        if session is not None and (session.is_lost or session.tokens != len(self._ids)):
            await self._end()
            session = None
        judged = []
        missing = list(ids)
        if session is None:
            if not self._has_slot:
                await self._slots.take()
                self._has_slot = True
            missing = [*self._ids, *ids]
            first, missing = missing[:CHUNK_TOKENS], missing[CHUNK_TOKENS:]
            session, opened = await self._engine.open(first, limit)
            self._session = session
            judged.append(opened)
            _check_count(opened, len(first))
        for start in range(0, len(missing), CHUNK_TOKENS):
            chunk = missing[start : start + CHUNK_TOKENS]
            judged.append(await self._engine.append(session, chunk, limit))
            _check_count(judged[-1], len(chunk))
        return judged


def _check_count(judged: Judged, count: int) -> None:
    if judged.risk.shape != (count, 3) or judged.categories.shape != (count, 8):
        raise Unavailable(f"the engine judged {len(judged.risk)} of {count} tokens")


def _last(judged: list[Judged], wanted: int) -> Judged:
    """Join the judgements of the last `wanted` tokens, or take those of the turn of the user if `wanted` is 0.

    Raises:
        Unavailable: they are not probabilities. A missing judgement must never count as Safe.
    """
    risk = np.concatenate([part.risk for part in judged])
    categories = np.concatenate([part.categories for part in judged])
    rows = slice(len(risk) - wanted, None)
    newest = judged[-1]
    result = Judged(risk[rows], categories[rows], newest.prompt_risk, newest.prompt_categories)
    if wanted:
        _check_probabilities(result.risk, result.categories)
    else:
        _check_probabilities(newest.prompt_risk, newest.prompt_categories)
    return result


def _check_probabilities(risk: Floats, categories: Floats) -> None:
    if not (np.isfinite(risk).all() and np.isfinite(categories).all()):
        raise Unavailable("the engine gave probabilities that are not numbers")
    if min(risk.min(), categories.min()) < 0 or np.abs(risk.sum(axis=-1) - 1).max() > _SUM_ERROR:
        raise Unavailable("the engine gave probabilities of severities whose sum is not 1")
