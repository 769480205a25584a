"""The token ids around the turns of a conversation, as Qwen3Guard-Stream was trained on them: ChatML.

No content can become a control token: contents are encoded without them, and given ids are checked.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.errors import Misconfigured, Unjudgeable
from workers.guard.tokens import Tokens

ROLES = ("system", "user", "assistant")

_BEGIN, _END = "<|im_start|>", "<|im_end|>"


class ChatML:
    """The fixed ids of a checkpoint's conversations.

    Attributes:
        before_user: the ids before a turn of the user.
        after_turn: the id that ends a turn. The model's findings on a turn of the user are those at this id.
        before_answer: the ids between a turn of the user and the answer to it.
        after_answer, between_turns: the ids before a turn of the user that follows an answer, or another such turn.
    """

    def __init__(self, tokens: Tokens) -> None:
        """Encode the fixed parts.

        Raises:
            Misconfigured: the tokenizer has no control tokens of ChatML.
        """
        self._tokens = tokens
        missing = {_BEGIN, _END} - tokens.control_words
        if missing:
            raise Misconfigured(
                f"streams.model: the tokenizer has no control token {' and '.join(sorted(missing))}, so the checkpoint "
                "is not of the kind of Qwen3Guard-Stream"
            )
        self._before = {role: tokens.fixed(f"{_BEGIN}{role}\n") for role in ROLES}
        self.after_answer = tokens.fixed(f"{_END}\n")
        self.between_turns = tokens.fixed("\n")
        self.before_user = self._before["user"]
        self.after_turn = tokens.fixed(_END)
        self.before_answer = tokens.fixed(f"\n{_BEGIN}assistant\n")

    def content(self, text: str) -> list[int]:
        """Encode a whole turn. Half a surrogate pair becomes U+FFFD. Blocks: 1 s for 2 million characters."""
        whole = text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._tokens.content([whole])[0]

    def earlier(self, turns: Sequence[tuple[str, str]], room: int) -> list[int]:
        """Encode earlier turns, as (role, text), as many of the newest as fit into `room` tokens."""
        kept: list[list[int]] = []
        for role, text in reversed(turns):
            ids = [*self._before[role if role in self._before else "user"], *self.content(text), *self.after_answer]
            room -= len(ids)
            if room < 0:
                break
            kept.append(ids)
        return [token for ids in reversed(kept) for token in ids]

    def check(self, ids: Sequence[int]) -> None:
        """Refuse ids that are no content.

        Raises:
            Unjudgeable: an id is outside the vocabulary, or of a control token.
        """
        for token in ids:
            if not 0 <= token < self._tokens.size:
                raise Unjudgeable("token_ids", f"{token} is outside the vocabulary of {self._tokens.size} tokens")
            if token in self._tokens.control:
                raise Unjudgeable("token_ids", f"{token} is the id of a control token")
