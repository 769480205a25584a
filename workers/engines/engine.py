"""The interface of every engine: two calls on token ids, and nothing about moderation."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from workers import telemetry

Row = TypeVar("Row")

MAX_CANDIDATES = 128
"""The limit of vLLM's server for one request, so no engine has to take more."""

CLOSED = "the engine was closed while a call was in flight"


class Refused(Struct, frozen=True, gc=False):
    """Replaces an answer: this prompt or request cannot be answered. The others of the call are answered.

    `reason` is one of a small fixed set (`prompt_length`, `prompt_ids`, `prompt_refused`, `no_number`, `conversation`,
    `not_unicode`, `unreadable_answer`); `detail` is a sentence for a person.
    """

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Engine(Protocol):
    """A language model behind two calls. Neither blocks the event loop.

    The context must hold a prompt and the tokens to generate; a score generates one token. Both calls return one answer
    for each prompt, in order. The engine refuses a prompt that is empty, too long for the context, contains an id
    outside the vocabulary or has no number. It answers the other prompts.

    `deadline` is a `time.monotonic` value. After it the caller no longer waits, and an engine with retries of its own
    makes no further attempt.

    Raises (both calls):
        Unavailable: the engine failed as a whole; the same call may succeed later.
        Fatal: the engine is not running, or does not recover.
    """

    @property
    def answered(self) -> int:
        """The number of prompts answered so far, counted one by one. It shows whether an engine is slow or hangs."""
        ...

    @property
    def identity(self) -> str:
        """What changes the log-probabilities besides the checkpoint's files. Known after the start."""
        ...

    @property
    def prompts_at_a_time(self) -> int | None:
        """How many prompts in flight keep the engine busy. Known after the start; None if it makes no difference."""
        ...

    async def start(self, shared_tokens: int = 0) -> None:
        """Load the model. A second call does nothing.

        `shared_tokens`: the number of equal ids with which all prompts of messages without context begin. An engine
        with a prefix cache may choose its block size by it.

        Raises:
            Misconfigured: the engine cannot run the model.
        """
        ...

    async def close(self) -> None:
        """Free the model. A second call does nothing. A call in flight is answered, or raises one of the errors."""
        ...

    async def watch(self) -> None:
        """Wait until the engine crashes.

        Returns at once if the engine is part of this process and cannot crash alone.

        Raises:
            Fatal: the engine crashed; the sentence says why.
        """
        ...

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> Sequence[list[float] | Refused]:
        """Return the log-probability of each candidate as the next token, over the full vocabulary.

        At most `MAX_CANDIDATES` candidates. Shape (len(prompts), len(candidates)).
        """
        ...

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> Sequence[list[int] | Refused]:
        """Decode greedily; return the new ids of each prompt, without an end-of-text token at the end."""
        ...


def all_or_refused(answers: Iterable[Row | Refused]) -> list[Row] | Refused:
    """Return the answers to all parts of one request, or the first refusal: a request is never answered in part."""
    found: list[Row] = []
    for answer in answers:
        if isinstance(answer, Refused):
            return answer
        found.append(answer)
    return found


async def answer_valid(
    prompts: Sequence[Sequence[int]],
    answer: Callable[[Sequence[Sequence[int]]], Awaitable[Sequence[Row | Refused]]],
    *,
    vocabulary: int,
    context_tokens: int,
    asked_tokens: int,
) -> list[Row | Refused]:
    """Pass the valid prompts to `answer`, and refuse each of the others.

    An id outside the vocabulary crashes some engines.
    """
    telemetry.ENGINE_PROMPTS.inc(len(prompts))
    telemetry.ENGINE_TOKENS.inc(sum([len(prompt) for prompt in prompts]))
    room = context_tokens - asked_tokens
    refused: dict[int, Refused] = {}
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= room:
            refused[index] = Refused("prompt_length", f"a prompt has {len(prompt)} tokens; 1 to {room} are allowed")
        elif max(prompt) >= vocabulary or min(prompt) < 0:
            refused[index] = Refused("prompt_ids", f"a prompt contains an id outside the vocabulary of {vocabulary}")
    if not refused:
        return list(await answer(prompts)) if prompts else []
    valid = [prompt for index, prompt in enumerate(prompts) if index not in refused]
    rows = iter(await answer(valid) if valid else ())
    return [refused[index] if index in refused else next(rows) for index in range(len(prompts))]


def checked_row(row: list[float]) -> list[float] | Refused:
    """Return the log-probabilities of one prompt, or refuse it if the model's numbers overflow on it."""
    if math.isnan(sum(row)):
        return Refused("no_number", f"the model gave log-probabilities that are not numbers: {row}")
    return row
