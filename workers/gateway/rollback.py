"""Goes back behind a cut in the middle of a stream: the model server is asked again for what no client has seen.

Guarantee: what was shown stays as it was, and what follows was judged in one conversation with it. If nobody can say
where the model server's next text would stand in the answer, it is not asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from workers.gateway.choice import Choice
from workers.gateway.faults import BadUpstream
from workers.gateway.parts import TEXTS, Api, Json
from workers.gateway.problems import Problem
from workers.policy.streams import Cut

if TYPE_CHECKING:
    import httpx

Attempt: TypeAlias = "tuple[Choice, httpx.Response]"
Ask: TypeAlias = Callable[[Json, str], Awaitable[Attempt]]
"""Sends a request with this body, after the guard has read the text that was shown. Raises `Problem` if the model
server or the guard refuses."""

CONTINUED = frozenset(
    {
        *("model", "messages", "prompt", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"),
        *("temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "chat_template_kwargs"),
        *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    }
)
"""The fields of a request that mean the same for the rest of its answer. Others do not: `stop` may match across the
border, a penalty forgets what was written, and a grammar begins anew."""


def may_help(cut: Cut | None) -> bool:
    """Say whether another answer may help: the policy cut this one for what it says."""
    return cut is not None and cut.reason not in ("prompt", "unavailable")


class Shown:
    """What a client has seen of an answer, over all attempts.

    Attributes:
        is_content: whether there is nothing but content (of `/v1/completions`: text).
        deltas: how many of the model server's deltas were shown completely.
        is_empty: whether the client has seen nothing of the model yet.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._has_role = False
        self.is_content = True
        self.deltas = 0
        self.is_empty = True

    @property
    def text(self) -> str:
        """The content."""
        return "".join(self._texts)

    def note(self, fields: Json) -> bool:
        """Note what a chunk shows. Returns False for a second role, which clients would append to the first."""
        if "role" in fields:
            is_new, self._has_role = not self._has_role, True
            return is_new
        self.is_empty = False
        text = fields.get("content", fields.get("text"))
        if text is None:
            self.is_content = False
        else:
            self._texts.append(text)
        return True


class Joint:
    """Where a text goes on. The model server writes the white space at the end of the shown text again.

    It is not sent as the end of a prompt: chat templates strip it, and tokenizers join it with the next word.
    """

    def __init__(self, api: Api, white: str) -> None:
        self._api = api
        self._white = white
        self._is_open = True

    def take(self, choice: Json) -> Json:
        """Give a choice of a chunk without what the client has already seen.

        Raises:
            BadUpstream: the text does not go on where the shown one ends.
        """
        fields = choice if self._api == "completions" else choice.get("delta")
        if not self._is_open or not isinstance(fields, dict):
            return choice
        name = "text" if self._api == "completions" else "content"
        others = [field for field in (*TEXTS, "tool_calls", "function_call") if field != name and fields.get(field)]
        text = fields.get(name)
        if others or not isinstance(text, str | None):
            raise BadUpstream("it does not go on with the text")
        if not text:
            return choice
        known = min(len(self._white), len(text))
        if text[:known] != self._white[:known]:
            raise BadUpstream("it does not go on where the shown text ends")
        self._white = self._white[known:]
        self._is_open = bool(self._white)
        rest = {**fields, name: text[known:]}
        return {**choice, **rest} if self._api == "completions" else {**choice, "delta": rest}


class Rollback:
    """The further attempts at one streamed answer of one choice.

    Attributes:
        shown: what the client has seen.
        joint: where the present attempt goes on; None if it begins the answer.
        has_begun: whether there was a further attempt.
    """

    def __init__(self, api: Api, body: Json, retries: int, ask: Ask, *, continues_chats: bool) -> None:
        """`continues_chats`: whether the model server goes on with a last message of the assistant."""
        self._api = api
        self._body = body
        self._left = retries
        self._ask = ask
        self._continues_chats = continues_chats
        self.shown = Shown()
        self.joint: Joint | None = None
        self.has_begun = False

    def may_undo(self, choice: Choice) -> bool:
        """Whether a further attempt may take the place of what was cut. Call it once for each cut."""
        if not may_help(choice.cut) or not self._left:
            return False
        self._left -= 1
        self.shown.deltas += choice.held.shown_deltas
        return True

    async def again(self) -> Attempt | None:
        """Ask the model server again. Gives None if it cannot be asked, or refuses."""
        self.has_begun = True
        shown = self.shown.text
        body = self._body
        self.joint = None
        if not self.shown.is_empty:
            continued = self._continued(shown.rstrip())
            if continued is None:
                return None
            body = continued
            self.joint = Joint(self._api, shown[len(shown.rstrip()) :])
        try:
            return await self._ask(body, shown)
        except Problem:
            return None  # The client gets the cut that there is.

    def _continued(self, text: str) -> Json | None:
        """Give the request for the rest of the answer after a text; None if no request asks for exactly that."""
        body = dict(self._body)
        if not self.shown.is_content or body.keys() - CONTINUED:
            return None
        for limit in ("max_tokens", "max_completion_tokens"):
            if body.get(limit) is None:
                continue
            if type(body[limit]) is not int or body[limit] <= self.shown.deltas:
                return None
            body[limit] -= self.shown.deltas
        if self._api == "completions":
            prompt = body["prompt"] if isinstance(body["prompt"], str) else body["prompt"][0]
            # Without a limit, the server has one of its own, which nobody knows here.
            return None if body.get("max_tokens") is None else {**body, "prompt": prompt + text}
        messages = body["messages"]
        if not self._continues_chats or messages[-1].get("role") == "assistant":
            return None
        if text:
            body["messages"] = [*messages, {"role": "assistant", "content": text}]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body
