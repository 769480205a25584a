"""What the proxy needs of the guard that judges live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from schemas.policy import StreamPolicy
from workers.live.session import Prompt as Found
from workers.policy.streams import Cut


class Ruling(Protocol):
    """What one call of a session says."""

    @property
    def shown_chars(self) -> int:
        """How many characters of the session's answer may be shown."""
        ...

    @property
    def cut(self) -> Cut | None:
        """The end of the session by its policy, if this call led to it."""
        ...

    @property
    def prompt(self) -> Found | None:
        """What the guard finds in a turn of the user."""
        ...

    @property
    def is_unavailable(self) -> bool:
        """Whether the guard could not judge."""
        ...


class Session(Protocol):
    """One conversation. Its calls come one after the other, and each has a time limit: `streams.append_within_s`."""

    async def user(self, text: str, /, *, earlier: Sequence[tuple[str, str]]) -> Ruling:
        """Judge a turn of the user. `earlier`: the turns before it, as (role, text), which are read and not judged."""
        ...

    async def delta(self, text: str, /) -> Ruling:
        """Judge the next part of the answer."""
        ...

    async def finish(self) -> Ruling:
        """Judge what is left of the answer."""
        ...

    async def close(self) -> None:
        """Free the session's slot."""
        ...


class LiveGuard(Protocol):
    """The guard that all sessions share."""

    def open(self, policy: StreamPolicy) -> Session:
        """Begin a conversation."""
        ...
