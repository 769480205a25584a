"""The guard of streams: one engine, and the sessions of all streams on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.policy import StreamPolicy
from workers.engines.stream import StreamEngine
from workers.errors import Fatal, Misconfigured
from workers.guard.tokens import Tokens
from workers.live.chatml import ChatML
from workers.live.conversation import Conversation
from workers.live.session import LiveSession
from workers.live.slots import Slots
from workers.live.vocabulary import Vocabulary
from workers.policy.streams import StreamRules


class LiveGuard:
    """Judges streams with one engine.

    More streams may be open than the engine has sessions: those that wait for their sender do without one.

    Attributes:
        threshold: the checkpoint's recommended threshold, `guardline.threshold` in its `config.json`; None if it has
            none.
    """

    def __init__(
        self,
        engine: StreamEngine,
        folder: Path,
        *,
        max_tokens: int,
        anchor_tokens: int,
        append_within_s: float,
    ) -> None:
        """Read the checkpoint's tokenizer and threshold.

        Raises:
            Misconfigured: the checkpoint is not of the kind of Qwen3Guard-Stream.
        """
        tokens = Tokens(folder)
        self._engine = engine
        self._chatml = ChatML(tokens)
        self._vocabulary = Vocabulary(tokens.byte_pairs)
        self._max_tokens = max_tokens
        self._anchor_tokens = anchor_tokens
        self._append_within_s = append_within_s
        self._slots: Slots | None = None
        self.threshold = recommended_threshold(folder)

    @property
    def identity(self) -> str:
        """What changes the judgements besides the checkpoint's files. Known after the start."""
        return self._engine.identity

    async def start(self) -> None:
        """Load the model. A second call does nothing.

        Raises:
            Misconfigured: the engine cannot run the model, or has sessions that are too short.
        """
        if self._slots is not None:
            return
        await self._engine.start()
        self._max_tokens = min(self._max_tokens, self._engine.max_tokens)
        if self._max_tokens < 4 * self._anchor_tokens:
            raise Misconfigured(
                f"streams.anchor_tokens: {self._anchor_tokens} is more than a quarter of the longest session, which "
                f"has {self._max_tokens} tokens here: lower it, or raise the engine's limit"
            )
        self._slots = Slots(self._engine.max_sessions)

    async def close(self) -> None:
        """Free the model. A second call does nothing. Streams that are still open cannot go on."""
        await self._engine.close()

    async def watch(self) -> None:
        """Wait until the engine cannot be used any more: see `StreamEngine.watch`.

        Raises:
            Fatal: the engine crashed or hangs, and does not recover.
        """
        await self._engine.watch()

    def in_force(self, policy: StreamPolicy) -> StreamPolicy:
        """Return the rules as they apply here: with the checkpoint's threshold, if the policy has none.

        Record these at the beginning of a stream. Then its later owners decide alike, with any checkpoint.
        """
        if policy.threshold is not None or self.threshold is None:
            return policy
        return policy.model_copy(update={"threshold": self.threshold})

    def open(self, policy: StreamPolicy, *, is_unjudged: bool = False) -> LiveSession:
        """Begin a stream. It gets a session of the engine when it has something to judge.

        `is_unjudged`: the stream was found to be unavailable before, and its policy lets it go on.

        Raises:
            Fatal: the guard was not started.
        """
        if self._slots is None:
            raise Fatal("the guard of streams is not running: it was not started")
        rules = StreamRules(self.in_force(policy))
        rules.is_unjudged = is_unjudged
        conversation = Conversation(
            self._engine,
            self._slots,
            self._chatml,
            max_tokens=self._max_tokens,
            anchor_tokens=self._anchor_tokens,
            within_s=self._append_within_s,
        )
        return LiveSession(conversation, self._chatml, self._vocabulary, rules)


def recommended_threshold(folder: Path) -> float | None:
    """Read `guardline.threshold` of a checkpoint's `config.json`; None if the checkpoint recommends none.

    Raises:
        Misconfigured: the file cannot be read, or it is no threshold.
    """
    path = folder / "config.json"
    try:
        own: Any = json.loads(path.read_text(encoding="utf-8")).get("guardline", {})
    except (OSError, ValueError, AttributeError) as error:
        raise Misconfigured(f"streams.model: {path} cannot be read: {error!r}") from error
    found = own.get("threshold") if isinstance(own, Mapping) else None
    if found is None:
        return None
    if not isinstance(found, int | float) or not 0 < found <= 1:
        raise Misconfigured(f"streams.model: {path}: guardline.threshold has to be above 0 and at most 1")
    return float(found)
