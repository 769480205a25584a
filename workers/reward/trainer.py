"""The reward as a function for trainers, with the signature of TRL's `reward_funcs`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from workers.errors import Misconfigured, OneAtFault, Unjudgeable
from workers.guard.load import load_guard
from workers.guard.retries import start_with_retries
from workers.reward.equations import Equation
from workers.reward.exchange import Exchange, Text, read_exchange
from workers.reward.rewards import Rewarded, rewards
from workers.settings import Settings, load

Scores = Sequence[float | None]
ScoreFunction = Callable[..., Scores]
"""Another reward function with the same signature."""

Answer = TypeVar("Answer")


class GuardReward:
    """Rewards completions with the guard of the settings. The guard starts at the first call.

    Calls from any thread are possible. The guard runs in a thread of its own with its own event loop, so that a caller
    may have one too. A call blocks until all completions are judged.

    Raises (each call):
        Misconfigured: the guard cannot be started. Unavailable: the engine gave no answer for
            `worker.unavailable_after_s`. Fatal: the engine does not recover.
    """

    def __init__(
        self,
        equation: Equation | None = None,
        *,
        score: str | ScoreFunction | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Take the equation, and where the other model's scores come from.

        Args:
            equation: guard-only by default.
            score: for the mode `hybrid`: another reward function, or the name of a column of the data set.
            settings: those of the environment and of GUARDLINE_CONFIG by default.

        Raises:
            Misconfigured: the mode is `hybrid` and there is no score, or the other way round.
        """
        self._equation = equation or Equation()
        if (self._equation.mode == "hybrid") != (score is not None):
            raise Misconfigured("reward: the mode hybrid needs a score, and the mode guard takes none")
        self.__name__ = f"guardline_{self._equation.mode}"
        """The trainer's metrics have this name."""
        self._score = score
        self._settings = settings or load()
        self._guard = load_guard(self._settings.guard)
        self._is_started = False
        self._lock = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="guardline-reward", daemon=True)
        self._thread.start()

    def __call__(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float | None]:
        """Give one reward for each completion. None: it does not apply, see `Rewarded.problem`.

        Args:
            prompts: texts, or lists of messages.
            completions: one for each prompt, likewise.
            columns: further columns of the data set, and what a trainer passes besides.
        """
        return [rewarded.reward for rewarded in self.judged(prompts, completions, **columns)]

    async def asynchronous(
        self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any
    ) -> list[float | None]:
        """Give the same as a call, without blocking the caller's event loop. The score function runs in a thread."""
        scores = await asyncio.to_thread(self._scores, prompts, completions, columns)
        judged = await asyncio.wrap_future(self._submit(self._judge(_exchanges(prompts, completions, scores))))
        return [rewarded.reward for rewarded in judged]

    def judged(self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[Rewarded]:
        """Give the rewards with what the guard found."""
        scores = self._scores(prompts, completions, columns)
        return self._submit(self._judge(_exchanges(prompts, completions, scores))).result()

    def _scores(self, prompts: Sequence[Text], completions: Sequence[Text], columns: dict[str, Any]) -> Scores:
        if self._score is None:
            return [None] * len(completions)
        if isinstance(self._score, str):
            if self._score not in columns:
                raise Misconfigured(f"reward: the data set has no column {self._score!r} for the score")
            scores: Scores = columns[self._score]
        else:
            scores = self._score(prompts=prompts, completions=completions, **columns)
        if len(scores) != len(completions):
            raise Misconfigured(f"reward: there are {len(scores)} scores for {len(completions)} completions")
        return scores

    async def _judge(self, exchanges: Sequence[Exchange | OneAtFault]) -> list[Rewarded]:
        async with self._lock:
            if not self._is_started:
                await start_with_retries(self._guard.start, self._settings.worker.start_within_s)
                self._is_started = True
        retry_s = self._settings.worker.unavailable_after_s
        return await rewards(self._guard, exchanges, self._equation, self._settings.batch, retry_s)

    def _submit(self, call: Coroutine[Any, Any, Answer]) -> Future[Answer]:
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def close(self) -> None:
        """Free the model. A second call does nothing; no other call is possible afterwards."""
        if self._loop.is_closed():
            return
        self._submit(self._guard.close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> GuardReward:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _exchanges(prompts: Sequence[Text], completions: Sequence[Text], scores: Scores) -> list[Exchange | OneAtFault]:
    exchanges: list[Exchange | OneAtFault] = []
    for prompt, completion, score in zip(prompts, completions, scores, strict=True):
        try:
            exchanges.append(read_exchange(prompt, completion, score))
        except Unjudgeable as problem:
            exchanges.append(problem)
    return exchanges
