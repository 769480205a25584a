"""What every engine does: two primitives on token ids, and nothing about moderation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Engine(Protocol):
    """A language model behind two calls. Neither blocks the event loop.

    Raises (both calls):
        BadInput: a prompt is empty, over the context limit, or holds an id outside the vocabulary.
        Retriable: the same call may succeed later.
        Fatal: the engine is gone for good.
    """

    async def start(self) -> None:
        """Load the model. A second call does nothing."""
        ...

    async def close(self) -> None:
        """Free the model. A second call does nothing."""
        ...

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> list[list[float]]:
        """Give the log-probability of each candidate as the next token, over the full vocabulary.

        Shape (len(prompts), len(candidates)).
        """
        ...

    async def complete(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """Decode greedily; give the new ids of each prompt."""
        ...
