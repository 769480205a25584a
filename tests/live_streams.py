"""Streams on a guard whose engine follows a rule: a bad word, and the token after it, are Unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from schemas.policy import StreamPolicy
from tests.scripted_streams import ScriptedEngine
from workers.guard.tokens import Tokens
from workers.live.guard import LiveGuard
from workers.live.session import LiveSession, Ruling

FOLDER = Path(str(files("infra.nano") / "checkpoint" / "hf"))
TOKENS = Tokens(FOLDER)
SAFE, CONTROVERSIAL, UNSAFE = (0.9, 0.06, 0.04), (0.2, 0.7, 0.1), (0.1, 0.2, 0.7)
BAD = set(TOKENS.content([" kill"])[0] + TOKENS.content(["kill"])[0])


def by_word(ids: list[int]) -> Sequence[float]:
    """Find the token of a bad word, and the one after it."""
    return UNSAFE if BAD & set(ids[-2:]) else SAFE


class Guarded:
    """A guard on a scripted engine."""

    def __init__(self, **changes: Any) -> None:
        limits = {"max_tokens": 256, "anchor_tokens": 32, "append_within_s": 5.0, **changes}
        self.engine = ScriptedEngine(limits.pop("rule", by_word), **limits.pop("engine", {}))
        self.guard = LiveGuard(self.engine, FOLDER, **limits)

    async def open(self, **policy: Any) -> LiveSession:
        await self.guard.start()
        return self.guard.open(StreamPolicy.model_validate(policy))


async def says(session: LiveSession, *texts: str) -> list[Ruling]:
    """Send deltas and the end."""
    return [*[await session.delta(text) for text in texts], await session.finish()]
