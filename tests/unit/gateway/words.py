"""A guard whose judgements a test can foresee: a token is a word, and the word `BOMB` is Unsafe. The rules are real."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import NamedTuple

from schemas.policy import StreamPolicy
from workers.live.session import Prompt
from workers.policy.streams import Cut, StreamRules

SAFE, UNSAFE = [0.98, 0.01, 0.01], [0.01, 0.01, 0.98]
BAD = "BOMB"


class Ruling(NamedTuple):
    shown_chars: int
    cut: Cut | None = None
    is_unavailable: bool = False
    prompt: Prompt | None = None


class Words:
    """One session. The last word of the text is not judged before the next one begins, as with real tokens."""

    def __init__(self, guard: WordGuard, policy: StreamPolicy) -> None:
        self._guard = guard
        self._rules = StreamRules(policy)
        self._waiting = ""
        self._covered = 0

    async def user(self, content: str, *, earlier: Sequence[tuple[str, str]] = ()) -> Ruling:
        self._guard.prompts.append((content, list(earlier)))
        if await self._guard.fails():
            return self._unavailable()
        cut = self._rules.prompt(UNSAFE if BAD in content else SAFE, [1.0] + [0.0] * 8)
        found = Prompt("Unsafe", UNSAFE, ("Violent",)) if cut else Prompt("Safe", SAFE, ())
        return Ruling(shown_chars=self._rules.shown_chars, cut=cut, prompt=found)

    async def delta(self, content: str) -> Ruling:
        self._guard.judged += content
        self._guard.longest = max(self._guard.longest, len(content))
        self._rules.pushed(content)
        self._waiting += content
        *words, self._waiting = re.findall(r"^\s+|\S+\s*", self._waiting) or [""]
        return await self._judge(words)

    async def finish(self) -> Ruling:
        word, self._waiting = self._waiting, ""
        ruling = await self._judge([word] if word else [])
        if ruling.cut is None:
            self._rules.end_turn()
        return Ruling(shown_chars=self._rules.shown_chars, cut=ruling.cut, is_unavailable=ruling.is_unavailable)

    async def close(self) -> None:
        self._guard.open_sessions.discard(self)

    async def _judge(self, words: Sequence[str]) -> Ruling:
        if await self._guard.fails():
            return self._unavailable()
        cut = None
        for word in words:
            self._covered += len(word)
            cut = self._rules.position(UNSAFE if BAD in word else SAFE, [1.0] + [0.0] * 7, self._covered)
            if cut is not None:
                break
        return Ruling(shown_chars=self._rules.shown_chars, cut=cut)

    def _unavailable(self) -> Ruling:
        cut = self._rules.unavailable()
        return Ruling(shown_chars=self._rules.shown_chars, cut=cut, is_unavailable=True)


class WordGuard:
    """The guard of all sessions."""

    def __init__(self) -> None:
        self.prompts: list[tuple[str, list[tuple[str, str]]]] = []
        self.judged = ""
        self.longest = 0
        self.open_sessions: set[Words] = set()
        self.is_down = False
        self.hangs: asyncio.Event | None = None

    def open(self, policy: StreamPolicy) -> Words:
        session = Words(self, policy)
        self.open_sessions.add(session)
        return session

    async def fails(self) -> bool:
        if self.hangs is not None:
            await self.hangs.wait()
        return self.is_down
