"""Judges one choice of an answer: gives its text to the guard, and what the policy shows to whoever sends it on.

Guarantee: with every hold-back but `none`, a text is shown after the guard has ruled on it, and never without a ruling.
"""

from __future__ import annotations

import uuid
from typing import NamedTuple

from workers.gateway.guarding import Ruling, Session
from workers.gateway.held import Held, Piece
from workers.gateway.parts import Api, Json
from workers.gateway.turns import Prompt
from workers.live.session import Prompt as Found
from workers.policy.streams import Cut

SLICE_CHARS = 4_096
"""How much text one call of the guard gets. A delta may have a megabyte: so it is shown, or cut, on the way."""


class Finish(NamedTuple):
    """The model server's end of a choice."""

    reason: str
    fields: Json


class Choice:
    """One choice: its session, its text, and how far it has come. Only one task judges it."""

    def __init__(self, api: Api, index: int, session: Session) -> None:
        self.id = uuid.uuid4().hex
        self.index = index
        self.held = Held(api)
        self.cut: Cut | None = None
        self.finish: Finish | None = None
        self.is_unjudged = False
        """Whether a part of the answer was shown without a judgement, because the policy allows that."""
        self.is_over = False
        self.found: Found | None = None
        """What the guard finds in the prompt."""
        self._session = session
        self._ruled_chars = 0
        self._chars_before = 0

    async def prompt(self, prompt: Prompt) -> Cut | None:
        """Judge the last turn of the user, and the beginning of the answer if the client wrote one. Returns the cut."""
        ruling = await self._session.user(prompt.text, earlier=prompt.earlier)
        self.found = ruling.prompt
        self._note(ruling)
        for begin in range(0, len(prompt.begun), SLICE_CHARS):
            if self.cut is None:
                part = prompt.begun[begin : begin + SLICE_CHARS]
                self._chars_before += len(part)
                self._note(await self._session.delta(part))
        return self.cut

    async def judge(self) -> None:
        """Judge the next slice of what has arrived. After a cut, call it no more."""
        self._note(await self._session.delta(self.held.take(SLICE_CHARS)))

    async def end(self) -> None:
        """Judge what is left of a finished choice."""
        self._note(await self._session.finish())

    async def permits(self, message: str) -> bool:
        """Judge the message of an error, in the place of an answer. Returns whether it may be shown."""
        self._note(await self._session.delta(message))
        if self.cut is None:
            await self.end()
        return self.cut is None and not self.is_unjudged

    def released(self) -> list[Piece]:
        """Give what may be shown by now, and was not given yet."""
        return self.held.release(min(self.shown_chars, self.held.taken))

    @property
    def shown_chars(self) -> int:
        """How many characters of the answer may be shown by now."""
        return max(0, self._ruled_chars - self._chars_before)

    async def close(self) -> None:
        """Free the session."""
        await self._session.close()

    def _note(self, ruling: Ruling) -> None:
        self._ruled_chars = ruling.shown_chars
        self.cut = self.cut or ruling.cut
        self.is_unjudged = self.is_unjudged or (ruling.is_unavailable and ruling.cut is None)


def reason_of(choice: Choice) -> Json | None:
    """Give the object `guardline` of a choice that ends; None if it was judged to its end and not cut."""
    if (cut := choice.cut) is not None:
        found = {"severity": cut.severity, "categories": [*cut.categories], "position": cut.position}
        return {"reason": cut.reason, **found}
    return {"reason": "unavailable"} if choice.is_unjudged else None
