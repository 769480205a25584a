"""The interface of every engine that judges an answer while it is written: sessions that keep their state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from workers.errors import Unjudgeable

Floats: TypeAlias = NDArray[np.float32]


class Judged(Struct, frozen=True, gc=False):
    """The probabilities of one chunk of n tokens. The order of the columns is that of `schemas.stream`."""

    risk: Floats
    """Shape (n, 3): for each position, the severities of the answer up to and including its token."""
    categories: Floats
    """Shape (n, 8): for each position, the categories of the answer up to and including its token."""
    prompt_risk: Floats
    """Shape (3,): the severities of the user's turn, if the last token of the chunk ends one. Otherwise without
    meaning."""
    prompt_categories: Floats
    """Shape (9,): the categories of the user's turn, likewise."""


class Session:
    """One conversation at an engine. Only the engine that opened it changes it."""

    __slots__ = ("is_lost", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        """How many tokens the engine has taken."""
        self.is_lost = False
        """Whether the engine no longer has its state: it was ended, or an error lost it. Its slot is free. To go on,
        open another session, and send all tokens again."""


class StreamEngine(Protocol):
    """A model of the kind of Qwen3Guard-Stream, behind sessions. No call blocks the event loop.

    Calls of different sessions may run at the same time; those of one session come one after the other. Every position
    of a chunk is judged. How the tokens are divided into chunks changes the probabilities by no more than the rounding
    of the arithmetic. A session has a slot and room for `max_tokens` tokens from its opening to its end, so that no
    session can stop another one.

    `deadline` is a `time.monotonic` value.

    Raises (`open` and `append`):
        Unjudgeable: no token, an id outside the vocabulary, or more than `max_tokens` tokens in the session: the
            session stays as it was. Also if the model's numbers overflow (`no_number`): the session is lost.
        Unavailable: no slot is free, the deadline has passed, the engine failed, or the session has ended.
            `Session.is_lost` says whether the session can go on.
        Fatal: the engine is not running, or does not recover.
    """

    @property
    def identity(self) -> str:
        """What changes the probabilities besides the checkpoint's files. Known after the start."""
        ...

    @property
    def max_sessions(self) -> int:
        """How many sessions may be open at a time. Known after the start."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens of a session. Known after the start."""
        ...

    async def start(self) -> None:
        """Load the model. A second call does nothing.

        Raises:
            Misconfigured: the engine cannot run the model, or the order of its labels is not known.
        """
        ...

    async def close(self) -> None:
        """Free the model. A second call does nothing. Open sessions are lost."""
        ...

    async def watch(self) -> None:
        """Wait until the engine cannot be used any more, or is closed.

        Raises:
            Fatal: the engine crashed or hangs, and does not recover; the sentence says why.
        """
        ...

    async def open(self, ids: Sequence[int], deadline: float = math.inf) -> tuple[Session, Judged]:
        """Begin a session with its first chunk, such as the user's turn."""
        ...

    async def append(self, session: Session, ids: Sequence[int], deadline: float = math.inf) -> Judged:
        """Continue a session with the next chunk, of any length."""
        ...

    async def end(self, session: Session) -> None:
        """Free the session's slot. A second call does nothing; a lost session may be ended."""
        ...


def check_ids(ids: Sequence[int], tokens: int, *, vocabulary: int, max_tokens: int) -> None:
    """Refuse a chunk that would crash some engines, or be misread by them, behind a session's `tokens` tokens.

    Raises:
        Unjudgeable: see `StreamEngine`.
    """
    if not ids:
        raise Unjudgeable("chunk_length", "a chunk holds no token")
    if tokens + len(ids) > max_tokens:
        raise Unjudgeable(
            "chunk_length",
            f"a session of {tokens} tokens cannot take {len(ids)} more: streams.max_tokens allows {max_tokens}",
        )
    if min(ids) < 0 or max(ids) >= vocabulary:
        raise Unjudgeable("chunk_ids", f"a chunk contains an id outside the vocabulary of {vocabulary}")
