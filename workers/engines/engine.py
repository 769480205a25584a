"""What every engine does: two primitives on token ids, and nothing about moderation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Protocol

from workers.errors import Unjudgeable

MAX_CANDIDATES = 128
"""vLLM's server takes no more in a request, so no engine has to."""

CLOSED = "the engine was closed while a call was under way"

DEADLINE: ContextVar[float] = ContextVar("DEADLINE", default=math.inf)
"""By `time.monotonic`: past it nobody waits for a call, and an engine that tries again by itself does not."""


class Engine(Protocol):
    """A language model behind two calls. Neither blocks the event loop.

    A prompt and the tokens asked for have to fit into the context together; a score asks for one token.

    Raises (both calls):
        Unjudgeable: a prompt is empty, too long for the context, or holds an id outside the vocabulary.
        Unavailable: the same call may succeed later.
        Fatal: the engine is not running, or is gone for good.
    """

    @property
    def identity(self) -> str:
        """Name what changes the log-probabilities besides the files of the checkpoint. Known once it is started."""
        ...

    async def start(self) -> None:
        """Load the model. A second call does nothing.

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

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> list[list[float]]:
        """Give the log-probability of each candidate as the next token, over the full vocabulary.

        At most `MAX_CANDIDATES` candidates. Shape (len(prompts), len(candidates)).
        """
        ...

    async def complete(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """Decode greedily; give the new ids of each prompt, without the end-of-text token that may end them."""
        ...


def check_prompts(
    prompts: Sequence[Sequence[int]], *, vocabulary: int, context_tokens: int, asked_tokens: int = 1
) -> None:
    """Check what an engine is given. An id outside the vocabulary takes some engines down, with all that is in them.

    Raises:
        Unjudgeable: naming what is wrong with the first bad prompt.
    """
    room = context_tokens - asked_tokens
    for prompt in prompts:
        if not 0 < len(prompt) <= room:
            raise Unjudgeable("prompt_length", f"a prompt has {len(prompt)} tokens; 1 to {room} are taken")
        if max(prompt) >= vocabulary or min(prompt) < 0:
            raise Unjudgeable("prompt_ids", f"a prompt holds an id outside the vocabulary of {vocabulary}")
