"""The common part of the stream engines whose model is an object of this process: slots, turns and deadlines.

One thread runs the model. A turn takes the next piece of every call that waits, so that no session can stop another one
for longer than a turn.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from workers import telemetry
from workers.engines.engine import CLOSED
from workers.engines.stream import Floats, Judged, Session, check_ids
from workers.engines.stream_checkpoint import StreamConfig
from workers.engines.stream_labels import divided
from workers.errors import Fatal, Unavailable, Unjudgeable

PIECE_TOKENS = 128
"""The most tokens of one call in a turn. The other sessions wait for at most this many of each long call."""

SHORT_TOKENS = 16
"""Pieces up to this length run together; a longer one runs alone, because the attention pads all to the longest."""

HANGS_AFTER_S = 60.0
"""A step that takes longer hangs: the slowest known one, 128 tokens of 0.6B dimensions on one busy core, takes 10 s."""


class SlotSession(Session):
    """A session with its place in the engine's cache."""

    __slots__ = ("call", "in_step", "slot")

    def __init__(self, slot: int) -> None:
        super().__init__()
        self.call: _Call | None = None
        """The call that waits."""
        self.slot: int | None = slot
        """None after the slot was freed."""
        self.in_step = False
        """Whether a step that runs now writes to the slot."""


class Piece:
    """The next tokens of one session in a step."""

    __slots__ = ("ids", "slot", "start")

    def __init__(self, slot: int, start: int, ids: list[int]) -> None:
        self.slot = slot
        self.start = start
        """How many tokens the session has before these; 0 in a slot whose former content is void."""
        self.ids = ids


class _Call:
    __slots__ = ("answer", "ids", "rows", "session", "taken")

    def __init__(self, session: SlotSession, ids: list[int]) -> None:
        self.session = session
        self.ids = ids
        self.taken = 0
        self.rows: list[Floats] = []
        self.answer: asyncio.Future[Judged] = asyncio.get_running_loop().create_future()

    @property
    def is_long(self) -> bool:
        """Whether the next piece runs alone."""
        return len(self.ids) - self.taken > SHORT_TOKENS

    @property
    def next_ids(self) -> list[int]:
        return self.ids[self.taken : self.taken + PIECE_TOKENS]


class InProcessStreamEngine(ABC):
    """Loads a checkpoint, and runs steps of many sessions in its own thread."""

    def __init__(self, name: str, folder: Path, *, max_sessions: int, max_tokens: int) -> None:
        self._name = name
        self._folder = folder
        self._max_sessions = max_sessions
        self._max_tokens = max_tokens
        self._config: StreamConfig | None = None
        self._model: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._free: list[int] = []
        self._sessions: set[SlotSession] = set()
        self._waiting: dict[_Call, None] = {}
        self._turns: asyncio.Task[None] | None = None
        self._step_began: float | None = None

    @abstractmethod
    def _load(self) -> tuple[StreamConfig, Any]:
        """Load the model, in the thread.

        Raises:
            Misconfigured: the engine cannot run it.
        """

    @abstractmethod
    def _step(self, model: Any, pieces: Sequence[Piece]) -> Floats:
        """Run the next tokens of some sessions, in the thread; return (n, 23) outputs of the heads for all n tokens.

        If it raises, the state of all these sessions is void.
        """

    @property
    def identity(self) -> str:
        """See `StreamEngine.identity`."""
        return self._name

    @property
    def max_sessions(self) -> int:
        """See `StreamEngine.max_sessions`."""
        return self._max_sessions

    @property
    def max_tokens(self) -> int:
        """See `StreamEngine.max_tokens`."""
        return self._max_tokens

    async def start(self) -> None:
        """See `StreamEngine.start`."""
        if self._pool is not None:
            return
        pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        try:
            self._config, self._model = await asyncio.get_running_loop().run_in_executor(pool, self._load)
        except BaseException:
            pool.shutdown(wait=False)
            raise
        self._free = list(range(self._max_sessions))
        self._pool = pool

    async def close(self) -> None:
        """Free the model. If the thread still runs a step, the thread frees the model; `close` does not wait for it."""
        if self._pool is None:
            return
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._model = self._pool = None
        for call in list(self._waiting):
            self._fail(call, Fatal(CLOSED))
        for session in self._sessions:
            session.is_lost = True
            session.slot = None
        self._sessions.clear()
        telemetry.STREAM_ENGINE_SESSIONS.set(0)
        if self._turns is not None:
            self._turns.cancel()
            self._turns = None

    async def watch(self) -> None:
        """See `StreamEngine.watch`: a step that hangs holds the only thread."""
        while self._pool is not None:
            await asyncio.sleep(1)
            if self._step_began is not None and time.monotonic() - self._step_began > HANGS_AFTER_S:
                raise Fatal(f"{self._name} hangs: a step has taken more than {HANGS_AFTER_S:.0f} s")

    async def open(self, ids: Sequence[int], deadline: float = math.inf) -> tuple[Session, Judged]:
        """See `StreamEngine.open`."""
        chunk = self._checked(None, ids, deadline)
        if not self._free:
            raise Unavailable(f"all {self._max_sessions} sessions of the engine are in use")
        session = SlotSession(heapq.heappop(self._free))
        self._sessions.add(session)
        telemetry.STREAM_ENGINE_SESSIONS.set(len(self._sessions))
        try:
            return session, await self._run(session, chunk, deadline)
        except BaseException:
            self._lose(session)
            raise

    async def append(self, session: Session, ids: Sequence[int], deadline: float = math.inf) -> Judged:
        """See `StreamEngine.append`."""
        assert isinstance(session, SlotSession)
        chunk = self._checked(session, ids, deadline)
        return await self._run(session, chunk, deadline)

    async def end(self, session: Session) -> None:
        """See `StreamEngine.end`."""
        assert isinstance(session, SlotSession)
        self._lose(session)

    def _checked(self, session: SlotSession | None, ids: Sequence[int], deadline: float) -> list[int]:
        if self._pool is None or self._config is None:
            raise Fatal("the engine is not running: it was not started, or is closed")
        if session is not None and (session.is_lost or session.slot is None):
            raise Unavailable("the session has ended")
        chunk = list(ids)
        tokens = 0 if session is None else session.tokens
        check_ids(chunk, tokens, vocabulary=self._config.vocabulary, max_tokens=self._max_tokens)
        if deadline <= time.monotonic():
            raise Unavailable("the deadline has passed")
        return chunk

    async def _run(self, session: SlotSession, ids: list[int], deadline: float) -> Judged:
        call = session.call = _Call(session, ids)
        self._waiting[call] = None
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns())
        try:
            async with asyncio.timeout(None if deadline == math.inf else deadline - time.monotonic()):
                return await call.answer
        except TimeoutError:
            raise Unavailable("the deadline has passed") from None
        finally:
            session.call = None
            if self._waiting.pop(call, call) is None and (call.taken or session.in_step):
                self._lose(session)  # It has taken tokens whose probabilities nobody has seen.

    async def _take_turns(self) -> None:
        """Alternate: a step of all short pieces, then one long piece, so that a short one waits for one long piece."""
        try:
            while self._waiting:
                await self._take([call for call in self._waiting if not call.is_long])
                if long := next((call for call in self._waiting if call.is_long), None):
                    self._waiting[long] = self._waiting.pop(long)  # Behind the other long calls.
                    await self._take([long])
        finally:
            self._turns = None

    async def _take(self, calls: list[_Call]) -> None:
        """Run the next piece of each call."""
        pool, sessions = self._pool, [call.session for call in calls]
        if pool is None or not calls:
            return
        pieces = [
            Piece(session.slot or 0, session.tokens, call.next_ids)
            for call, session in zip(calls, sessions, strict=True)
        ]
        for session in sessions:
            session.in_step = True
        self._step_began = began = time.monotonic()
        try:
            rows = await asyncio.get_running_loop().run_in_executor(pool, self._judge, self._model, pieces)
            start = 0
            for call, piece in zip(calls, pieces, strict=True):
                self._advance(call, rows[start : start + len(piece.ids)])
                start += len(piece.ids)
        except Exception as error:
            failure = Unavailable(f"{self._name} failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
            for call in calls:
                self._fail(call, failure)
                self._lose(call.session)
        finally:
            self._step_began = None
            for session in sessions:
                session.in_step = False
                if session.is_lost:
                    self._lose(session)
        telemetry.STREAM_ENGINE_STEP_SECONDS.observe(time.monotonic() - began)
        telemetry.STREAM_ENGINE_TOKENS.inc(sum(len(piece.ids) for piece in pieces))

    def _judge(self, model: Any, pieces: Sequence[Piece]) -> Floats:
        """Run a step, in the thread; return the probabilities of all its tokens."""
        assert self._config is not None
        return self._config.labels.probabilities(self._step(model, pieces))

    def _advance(self, call: _Call, rows: Floats) -> None:
        if call.session.is_lost:
            return
        call.session.tokens += len(rows)
        call.taken += len(rows)
        call.rows.append(rows)
        if call.taken == len(call.ids):
            self._answer(call)

    def _answer(self, call: _Call) -> None:
        rows = call.rows[0] if len(call.rows) == 1 else np.concatenate(call.rows)
        if not np.isfinite(rows).all():
            self._fail(call, Unjudgeable("no_number", "the model's numbers overflow"))
            self._lose(call.session)
            return
        self._waiting.pop(call, None)
        if not call.answer.done():
            call.answer.set_result(divided(rows))

    def _fail(self, call: _Call, error: Exception) -> None:
        self._waiting.pop(call, None)
        if not call.answer.done():
            call.answer.set_exception(error)

    def _lose(self, session: SlotSession) -> None:
        """End a session, and free its slot as soon as no step writes to it."""
        session.is_lost = True
        if session.call is not None:
            self._fail(session.call, Unavailable("the session has ended"))
        if session.slot is not None and not session.in_step and session in self._sessions:
            heapq.heappush(self._free, session.slot)
            self._sessions.remove(session)
            telemetry.STREAM_ENGINE_SESSIONS.set(len(self._sessions))
            session.slot = None
