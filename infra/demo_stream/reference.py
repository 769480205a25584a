"""What the guard decides on each answer when nobody disturbs it: the yardstick of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from infra.demo_stream.conversations import CONVERSATIONS
from schemas.policy import StreamPolicy
from workers.guard.tokens import Tokens
from workers.live.load import load_live_guard, stream_folder
from workers.settings import Settings


@dataclass(frozen=True)
class Reference:
    """By the name of a conversation: where its answer is cut (None: nowhere), and how much of it may be shown."""

    positions: dict[str, int | None]
    shown: dict[str, str]
    tokens: Tokens

    def is_cut(self, name: str) -> bool:
        """Whether the answer is cut."""
        return self.positions[name] is not None

    def leaked_tokens(self, name: str, got: str) -> int:
        """Count the tokens of what a client got that may not be shown."""
        shown = self.shown[name]
        same = next((at for at, pair in enumerate(zip(got, shown, strict=False)) if pair[0] != pair[1]), len(shown))
        return len(self.tokens.content([got[same:]])[0])


async def judged(settings: Settings) -> Reference:
    """Judge each conversation alone and in one piece, in this process, by the policy of a tenant without one."""
    guard = load_live_guard(settings.streams)
    await guard.start()
    positions: dict[str, int | None] = {}
    shown: dict[str, str] = {}
    try:
        for conversation in CONVERSATIONS:
            session = guard.open(StreamPolicy())
            await session.user(conversation.question)
            await session.delta(conversation.answer)
            await session.finish()
            positions[conversation.name] = None if session.cut is None else session.cut.position
            shown[conversation.name] = conversation.answer[: session.shown_chars]
            await session.close()
    finally:
        await guard.close()
    return Reference(positions, shown, Tokens(stream_folder(settings.streams)))
