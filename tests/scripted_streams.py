"""An engine of streams whose probabilities follow a rule on the ids, and which can be made to fail.

It checks what every engine requires of its callers, so that a test fails that breaks the protocol.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from time import monotonic

import numpy as np

from workers.engines.stream import Judged, Session
from workers.errors import Fatal, Unavailable, Unjudgeable

Rule = Callable[[list[int]], Sequence[float]]
"""Gives the risk at the last of the ids."""


class ScriptedSession(Session):
    """Remembers its ids."""

    __slots__ = ("ids",)

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[int] = []


class ScriptedEngine:
    """See the module.

    Attributes:
        rule: gives the risk at a position from all ids of its session.
        prompt: the risk of every turn of the user.
        opened: the first ids of every session that was opened.
        sent: how many tokens were sent, also again.
        calls: how many calls were answered.
        takes_s: how long each call takes.
        failures: what the next calls do instead of answering: `lose`, `fail`, `hang`, `nan`, `short`, `zero`,
            `overflow`.
    """

    identity = "scripted"

    def __init__(self, rule: Rule, *, max_sessions: int = 4, max_tokens: int = 4_096, vocabulary: int = 1_000_000):
        self.rule = rule
        self.prompt: Sequence[float] = (0.9, 0.06, 0.04)
        self.max_sessions = max_sessions
        self.max_tokens = max_tokens
        self.vocabulary = vocabulary
        self.sessions: set[ScriptedSession] = set()
        self.opened: list[list[int]] = []
        self.failures: list[str] = []
        self.sent = 0
        self.calls = 0
        self.takes_s = 0.0
        self.is_running = False

    async def start(self) -> None:
        self.is_running = True

    async def close(self) -> None:
        self.is_running = False

    async def watch(self) -> None:
        return

    def lose_all(self) -> None:
        """Lose every session, as a restart of the engine does."""
        for session in self.sessions:
            session.is_lost = True
        self.sessions.clear()

    async def open(self, ids: Sequence[int], deadline: float = math.inf) -> tuple[Session, Judged]:
        if len(self.sessions) >= self.max_sessions:
            raise Unavailable("no slot is free")
        session = ScriptedSession()
        judged = await self._judge(session, ids, deadline)
        self.sessions.add(session)
        self.opened.append(list(ids))
        return session, judged

    async def append(self, session: Session, ids: Sequence[int], deadline: float = math.inf) -> Judged:
        assert isinstance(session, ScriptedSession)
        if session.is_lost:
            raise Unavailable("the session is lost")
        assert session in self.sessions
        return await self._judge(session, ids, deadline)

    async def end(self, session: Session) -> None:
        assert isinstance(session, ScriptedSession)
        self.sessions.discard(session)

    async def _judge(self, session: ScriptedSession, ids: Sequence[int], deadline: float) -> Judged:
        if not self.is_running:
            raise Fatal("not running")
        if not ids or not all(0 <= token < self.vocabulary for token in ids):
            raise Unjudgeable("token_ids", "no token, or one outside the vocabulary")
        if len(session.ids) + len(ids) > self.max_tokens:
            raise Unjudgeable("too_long", "more tokens than a session has")
        await asyncio.sleep(self.takes_s)
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "hang":
            await asyncio.sleep(60)
        if failure == "lose":
            session.is_lost = True
            self.sessions.discard(session)
        if failure == "overflow":
            session.is_lost = True
            self.sessions.discard(session)
            raise Unjudgeable("no_number", "the model's numbers overflow")
        if failure in ("lose", "fail") or monotonic() > deadline:
            raise Unavailable("the engine failed")
        risk = []
        for token in ids:
            session.ids.append(token)
            risk.append(self.rule(session.ids))
        session.tokens = len(session.ids)
        self.sent += len(ids)
        self.calls += 1
        rows = np.array(risk, np.float32)
        if failure == "nan":
            rows[-1] = np.nan
        if failure == "zero":
            rows[-1] = 0
        if failure == "short":
            rows = rows[:-1]
        return Judged(
            rows,
            np.full((len(rows), 8), 0.125, np.float32),
            np.array(self.prompt, np.float32),
            np.full(9, 1 / 9, np.float32),
        )
