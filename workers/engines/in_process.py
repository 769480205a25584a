"""The common part of the engines whose model is an object of this process and runs in threads."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from workers.engines.engine import CLOSED, Refused, answer_valid
from workers.errors import Fatal, Unavailable

Result = TypeVar("Result")


class InProcessEngine(ABC):
    """Loads a model and calls it in its own threads, one call in each.

    `_model` is the result of `_load` while the engine runs.
    """

    prompts_at_a_time = None
    """On a CPU it makes no difference."""

    def __init__(self, name: str, *, threads: int, context_tokens: int) -> None:
        self._name = name
        self._threads = threads
        self._context_tokens = context_tokens
        self._model: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self.answered = 0
        """See `Engine.answered`."""

    @abstractmethod
    def _load(self) -> Any:
        """Load the model.

        Raises:
            Misconfigured: the engine cannot run it.
        """

    @abstractmethod
    def _vocabulary(self) -> int:
        """Return the size of the running model's vocabulary."""

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        return self._name

    async def start(self, shared_tokens: int = 0) -> None:
        """See `Engine.start`."""
        if self._pool is None:
            pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
            try:
                self._model = await asyncio.get_running_loop().run_in_executor(pool, self._load)
            except BaseException:
                pool.shutdown(wait=False)
                raise
            self._pool = pool

    async def close(self) -> None:
        """Free the model. If a thread still runs it, that thread frees it; do not wait, because it may never end."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._model = self._pool = None

    async def watch(self) -> None:
        """Return at once: see `Engine.watch`."""
        return

    async def _answer(
        self,
        prompts: Sequence[Sequence[int]],
        asked_tokens: int,
        answer: Callable[[Sequence[Sequence[int]]], Awaitable[Sequence[Result | Refused]]],
    ) -> list[Result | Refused]:
        if self._pool is None:
            raise Fatal("the engine is not running: it was not started, or is closed")
        return await answer_valid(
            prompts,
            answer,
            vocabulary=self._vocabulary(),
            context_tokens=self._context_tokens,
            asked_tokens=asked_tokens,
        )

    async def _run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call `function` in a thread. The model is its first argument, because `close` drops the model at once."""
        if self._pool is None:
            raise Fatal(CLOSED)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, self._model, *arguments)
        except RuntimeError as error:
            raise Unavailable(f"{self._name} failed: {error}") from error
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._pool is None and caller is not None and not caller.cancelling():
                raise Fatal(CLOSED) from None
            raise
