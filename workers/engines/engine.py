"""What every engine does: two primitives on token ids, and nothing about moderation."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

Row = TypeVar("Row")

MAX_CANDIDATES = 128
"""vLLM's server takes no more in a request, so no engine has to."""

CLOSED = "the engine was closed while a call was under way"


class Refused(Struct, frozen=True, gc=False):
    """Stands in the place of an answer: this one prompt or request cannot be answered, and its neighbours are.

    `reason` is one of a small closed set (`prompt_length`, `prompt_ids`, `prompt_refused`, `no_number`, `conversation`,
    `not_unicode`, `unreadable_answer`); `detail` is a sentence for a person.
    """

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Engine(Protocol):
    """A language model behind two calls. Neither blocks the event loop.

    A prompt and the tokens asked for have to fit into the context together; a score asks for one token. Both calls give
    one answer for each prompt, in order. A prompt that is empty, too long for the context, holds an id outside the
    vocabulary or has no number is Refused, and no other prompt is.

    `deadline` is by `time.monotonic`: past it nobody waits for the call, and an engine that tries again by itself makes
    no further attempt.

    Raises (both calls):
        Unavailable: the engine failed as a whole; the same call may succeed later.
        Fatal: the engine is not running, or is gone for good.
    """

    @property
    def answered(self) -> int:
        """Count the prompts answered so far. By it a slow engine is told from one that hangs: count them one by one."""
        ...

    @property
    def identity(self) -> str:
        """Name what changes the log-probabilities besides the files of the checkpoint. Known once it is started."""
        ...

    @property
    def prompts_at_a_time(self) -> int | None:
        """Say how many prompts under way keep it busy. Known once it is started; None where it makes no difference."""
        ...

    async def start(self, shared_tokens: int = 0) -> None:
        """Load the model. A second call does nothing.

        `shared_tokens`: with how many equal ids all prompts of lone messages begin. An engine with a prefix cache may
        divide it accordingly.

        Raises:
            Misconfigured: the model cannot be run.
        """
        ...

    async def close(self) -> None:
        """Free the model. A second call does nothing; a call under way is answered, or raises one of the errors."""
        ...

    async def watch(self) -> None:
        """Wait until the engine dies by itself.

        Returns at once where the engine is part of this process, and cannot die alone.

        Raises:
            Fatal: it died, and this is why.
        """
        ...

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> Sequence[list[float] | Refused]:
        """Give the log-probability of each candidate as the next token, over the full vocabulary.

        At most `MAX_CANDIDATES` candidates. Shape (len(prompts), len(candidates)).
        """
        ...

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> Sequence[list[int] | Refused]:
        """Decode greedily; give the new ids of each prompt, without the end-of-text token that may end them."""
        ...


def all_or_refused(answers: Iterable[Row | Refused]) -> list[Row] | Refused:
    """Give the answers to all parts of one request, or the first refusal: a request is not answered in part."""
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
    """Give `answer` the prompts that can be run, and put a refusal in the place of each of the others.

    An id outside the vocabulary takes some engines down, with all that is in them.
    """
    room = context_tokens - asked_tokens
    refused: dict[int, Refused] = {}
    for index, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= room:
            refused[index] = Refused("prompt_length", f"a prompt has {len(prompt)} tokens; 1 to {room} are taken")
        elif max(prompt) >= vocabulary or min(prompt) < 0:
            refused[index] = Refused("prompt_ids", f"a prompt holds an id outside the vocabulary of {vocabulary}")
    if not refused:
        return list(await answer(prompts)) if prompts else []
    valid = [prompt for index, prompt in enumerate(prompts) if index not in refused]
    rows = iter(await answer(valid) if valid else ())
    return [refused[index] if index in refused else next(rows) for index in range(len(prompts))]


def checked_row(row: list[float]) -> list[float] | Refused:
    """Give the log-probabilities of one prompt, or refuse it where the model's numbers overflow on it."""
    if math.isnan(sum(row)):
        return Refused("no_number", f"the model gave log-probabilities that are not numbers: {row}")
    return row
