"""Qwen3Guard-Stream on vLLM in this process: production on a GPU.

In vLLM 0.32 one session can end or stop all others: by an id outside the vocabulary, by reaching vLLM's longest
request, by taking a slot or a block that another one waits for. Each of these is refused here before vLLM sees it.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from workers import telemetry
from workers.engines.engine import CLOSED
from workers.engines.lengths import check_length
from workers.engines.stream import Floats, Judged, Session, check_ids
from workers.engines.stream_checkpoint import StreamConfig, read_config
from workers.engines.stream_vllm_arguments import arguments, check_arguments, check_room
from workers.engines.stream_vllm_core import Core
from workers.engines.stream_vllm_rows import ROWS
from workers.engines.vllm_child import STREAMS_VARIABLE, register_stream_model
from workers.engines.vllm_load import load_vllm
from workers.engines.vllm_platform import Platform
from workers.engines.vllm_reports import Reports
from workers.errors import Fatal, GuardlineError, Misconfigured, Unavailable, Unjudgeable

log = structlog.get_logger(__name__)

HANGS_AFTER_S = 30.0
"""An engine that answers nothing for this time is killed. The longest step is one of `ROWS` tokens of every session."""

REPLACEMENTS = 3
"""How many engine processes in a row are replaced, before the worker ends."""

SETTLED_S = 600.0
"""An engine process that ran for this time is not one of those in a row."""

SELF_TEST = ((ROWS, ROWS), (1, ROWS + 1), (ROWS - 1, 2 * ROWS))
"""The chunks, as length and end, with which the start tests that vLLM tells the model class where a session begins."""

SELF_TEST_S = 300.0
"""The first steps may compile kernels."""

PLUGIN = "guardline_streams"
"""vLLM's plugin that names the model class."""


class VllmSession(Session):
    """A session at one engine process."""

    __slots__ = ("core", "name")

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core
        self.name = core.begin()


class VllmStreamEngine:
    """Runs one checkpoint on vLLM, and replaces an engine process that crashed or hangs.

    The sessions of the replaced process are lost: `LiveSession` opens them again and sends their tokens, as for any
    other engine. While a process is replaced, `open` waits for the next one until its deadline.

    `given` are vLLM's engine arguments (`tensor_parallel_size`, `dtype`, `gpu_memory_utilization`, ...).
    """

    def __init__(
        self,
        folder: Path,
        given: Mapping[str, Any],
        *,
        max_sessions: int,
        max_tokens: int,
        hangs_after_s: float = HANGS_AFTER_S,
        replacements: int = REPLACEMENTS,
    ) -> None:
        check_arguments(given, max_sessions)
        self._folder = folder
        self._given = dict(given)
        self._max_sessions = max_sessions
        self._max_tokens = max_tokens
        self._hangs_after_s = hangs_after_s
        self._replacements = replacements
        self._config: StreamConfig | None = None
        self._core: Core | None = None
        self._ready = asyncio.Event()
        """Set while an engine process runs, and when none will run any more."""
        self._ended: GuardlineError | None = Fatal("the engine is not running: it was not started")
        self._sessions: set[VllmSession] = set()
        self._keeping: asyncio.Task[None] | None = None
        self.identity = f"vLLM {json.dumps(self._given, sort_keys=True, default=str)}"

    @property
    def max_sessions(self) -> int:
        """See `StreamEngine.max_sessions`."""
        return self._max_sessions

    @property
    def max_tokens(self) -> int:
        """See `StreamEngine.max_tokens`."""
        return self._max_tokens

    async def start(self) -> None:
        """Start the engine process, load the model, and run it once. Takes a minute or more.

        Raises:
            Misconfigured: the extra is not installed, vLLM refuses the model or crashes in the first steps, the
                sessions do not fit into its cache, or the order of the labels is not known.
        """
        if self._keeping is not None:
            return
        self._config = read_config(self._folder)
        check_length("streams.max_tokens", self._max_tokens, self._folder, self._config.positions)
        self._core = core = await self._new_core(self._config)
        self._ended = None
        self._ready.set()
        self._keeping = asyncio.create_task(self._keep(core))

    async def _new_core(self, config: StreamConfig) -> Core:
        with Reports("streams") as reports:
            core = Core(await _finished(asyncio.create_task(asyncio.to_thread(self._load))))
            try:
                reports.check()
                cache = core.llm.vllm_config.cache_config
                check_room(
                    self._max_sessions,
                    self._max_tokens,
                    config.window,
                    blocks=cache.num_gpu_blocks,
                    block_tokens=cache.block_size,
                )
                await core.unless_crashed(self._try_out(core))
            except BaseException:
                core.fail(CLOSED)
                await asyncio.to_thread(core.kill)
                raise
        return core

    def _load(self) -> Any:
        os.environ[STREAMS_VARIABLE] = "1"
        try:
            return load_vllm(
                {**self._given, "model": str(self._folder)}, self._complete, section="streams", plugin=PLUGIN
            )
        finally:
            del os.environ[STREAMS_VARIABLE]

    def _complete(self, given: dict[str, Any], platform: Platform) -> dict[str, Any]:
        assert self._config is not None
        register_stream_model()  # vLLM loads plugins once a process, and the guard's engine may have been there first.
        return arguments(
            given,
            max_sessions=self._max_sessions,
            max_tokens=self._max_tokens,
            positions=self._config.positions,
            on_a_cpu=platform is Platform.CPU,
        )

    async def _try_out(self, core: Core) -> None:
        """Run a session beside another one of single tokens, of which no row may be taken."""
        await core.prepare()
        names = other, name = core.begin(), core.begin()
        try:
            async with asyncio.timeout(SELF_TEST_S):
                # All chunks are sent before the first one is answered, so that steps have chunks of both sessions.
                chunks = [(size, end) for size, end in SELF_TEST if end <= self._max_tokens]
                answers = [await core.send(other, [0], number + 1) for number in range(len(chunks))]
                answers += [await core.send(name, [0] * size, end) for size, end in chunks]
                await asyncio.gather(*answers)
        except TimeoutError:
            raise Misconfigured(f"streams.vllm: vLLM did not run {self._folder} within {SELF_TEST_S:.0f} s") from None
        except Unavailable as error:
            raise Misconfigured(
                f"streams.vllm: vLLM runs {self._folder}, but not each session by itself: {error}. Try another "
                "attention_backend"
            ) from error
        finally:
            for name in names:
                await core.end(name)

    async def _keep(self, core: Core) -> None:
        """Replace the engine process each time that it crashes or hangs, until it does so too often."""
        try:
            await self._replace(core)
        except Exception as error:
            fatal = Fatal(f"cannot watch vLLM: {error!r}")
            fatal.__cause__ = error
            self._end(fatal)

    async def _replace(self, core: Core) -> None:
        assert self._config is not None
        failures, started = 0, time.monotonic()
        while True:
            reason = await core.watch(self._hangs_after_s)
            failures = 1 if time.monotonic() - started > SETTLED_S else failures + 1
            self._core = None
            self._ready.clear()
            self._lose_all(core, reason)
            await asyncio.to_thread(core.kill)
            while self._core is None:
                if failures > self._replacements:
                    self._end(Fatal(f"{reason}. It was replaced {self._replacements} times in a row"))
                    return
                log.warning("the vLLM engine for streams is replaced", reason=reason, attempt=failures)
                try:
                    self._core = core = await self._new_core(self._config)
                except GuardlineError as error:
                    failures, reason = failures + 1, f"no vLLM engine process starts: {error}"
                    await asyncio.sleep(1)
            started = time.monotonic()
            self._ready.set()

    def _lose_all(self, core: Core, reason: str) -> None:
        for session in self._sessions:
            session.is_lost = True
        self._sessions.clear()
        telemetry.STREAM_ENGINE_SESSIONS.set(0)
        core.fail(reason)

    def _end(self, error: GuardlineError) -> None:
        self._ended = error
        self._ready.set()

    async def close(self) -> None:
        """End the engine process. A second call does nothing. Open sessions are lost."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        self._end(Fatal("the engine is not running: it is closed"))
        core, self._core = self._core, None
        if core is not None:
            self._lose_all(core, CLOSED)
            await asyncio.to_thread(core.llm.shutdown)

    async def watch(self) -> None:
        """See `StreamEngine.watch`."""
        if self._keeping is None:
            return
        await asyncio.wait([self._keeping])
        if self._keeping is None or self._keeping.cancelled():
            return  # Closed.
        assert self._ended is not None
        raise self._ended

    async def open(self, ids: Sequence[int], deadline: float = math.inf) -> tuple[Session, Judged]:
        """See `StreamEngine.open`."""
        if self._ended is not None:
            raise self._ended
        chunk = self._checked(0, ids, deadline)
        core = self._core
        if core is None:
            core = await self._next_core(deadline)
        if len(self._sessions) >= self._max_sessions:
            raise Unavailable(f"all {self._max_sessions} sessions of the engine are in use")
        session = VllmSession(core)
        self._sessions.add(session)
        telemetry.STREAM_ENGINE_SESSIONS.set(len(self._sessions))
        return session, await self._run(session, chunk, deadline)

    async def _next_core(self, deadline: float) -> Core:
        try:
            async with asyncio.timeout(None if deadline == math.inf else deadline - time.monotonic()):
                while (core := self._core) is None:
                    await self._ready.wait()
                    if self._ended is not None:
                        raise self._ended
        except TimeoutError:
            raise Unavailable("the vLLM engine process is being replaced") from None
        return core

    async def append(self, session: Session, ids: Sequence[int], deadline: float = math.inf) -> Judged:
        """See `StreamEngine.append`."""
        assert isinstance(session, VllmSession)
        if self._ended is not None:
            raise self._ended
        if session.is_lost:
            raise Unavailable(session.core.failure or "the session has ended")
        return await self._run(session, self._checked(session.tokens, ids, deadline), deadline)

    def _checked(self, tokens: int, ids: Sequence[int], deadline: float) -> list[int]:
        assert self._config is not None
        chunk = list(ids)
        check_ids(chunk, tokens, vocabulary=self._config.vocabulary, max_tokens=self._max_tokens)
        if deadline <= time.monotonic():
            raise Unavailable("the deadline has passed")
        return chunk

    async def _run(self, session: VllmSession, ids: list[int], deadline: float) -> Judged:
        """Judge a chunk. The session ends unless every row of the chunk has arrived."""
        assert self._config is not None
        try:
            async with asyncio.timeout(None if deadline == math.inf else deadline - time.monotonic()):
                rows = await self._rows(session, ids)
            if not np.isfinite(rows).all():
                raise Unjudgeable("no_number", "the model's numbers overflow")
        except BaseException as error:
            # The engine may have taken tokens whose rows nobody has seen.
            await self.end(session)
            if isinstance(error, TimeoutError):
                raise Unavailable("the deadline has passed") from None
            if self._ended is not None and isinstance(error, Unavailable):
                raise self._ended from error
            raise
        session.tokens += len(ids)
        telemetry.STREAM_ENGINE_TOKENS.inc(len(ids))
        return self._config.labels.judged(rows)

    async def _rows(self, session: VllmSession, ids: list[int]) -> Floats:
        # All parts are sent at once: vLLM runs one in each of its next steps.
        parts = range(0, len(ids), ROWS)
        answers = [
            await session.core.send(session.name, part := ids[start : start + ROWS], session.tokens + start + len(part))
            for start in parts
        ]
        return np.concatenate(await asyncio.gather(*answers)) if len(answers) > 1 else await answers[0]

    async def end(self, session: Session) -> None:
        """See `StreamEngine.end`."""
        assert isinstance(session, VllmSession)
        session.is_lost = True
        self._sessions.discard(session)
        telemetry.STREAM_ENGINE_SESSIONS.set(len(self._sessions))
        await session.core.end(session.name)


async def _finished(loading: asyncio.Task[Any]) -> Any:
    """Wait for a start of vLLM. A thread cannot be cancelled: if this call is, the engine ends when it has started."""
    try:
        return await asyncio.shield(loading)
    except asyncio.CancelledError:

        def end(loaded: asyncio.Task[Any]) -> None:
            if not loaded.cancelled() and loaded.exception() is None:
                loaded.result().shutdown()

        loading.add_done_callback(end)
        raise
