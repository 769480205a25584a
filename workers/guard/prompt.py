"""Builds prompts of fixed ids + encoded content + fixed ids, so that content cannot change the structure around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from workers.engines.engine import Refused
from workers.errors import Fatal, Misconfigured
from workers.guard.borders import find_borders
from workers.guard.conversations import USUAL, Roles, possible_roles
from workers.guard.lookalikes import Lookalikes
from workers.guard.template import Template
from workers.guard.tokens import Tokens
from workers.guard.windows import windows

FORCED = "Safety:"
"""The beginning of the answer. The space after it belongs to the label's token."""

ANSWER = ("Safety:", "Categories:", "Refusal:")
"""The beginnings of an answer's lines."""

LEAST_ROOM = 16
"""The least number of tokens that the fixed parts of a prompt must leave for content."""

MAX_FRAMES = 1_024
"""The fixed parts of this many orders of roles are cached. Writers choose the roles, and 33 turns have 2^33 orders."""


class Request(Struct, frozen=True, gc=False):
    """The judged turn of a conversation. `context` holds (role, text) of the earlier turns."""

    text: str
    role: str = "user"
    context: tuple[tuple[str, str], ...] = ()


class Prompt(Struct, frozen=True, gc=False):
    """The prompts of a request, one for each window. Each ends with the forced beginning of the answer."""

    ids: list[list[int]]
    truncated_windows: int
    truncated_context_tokens: int


class Prompts:
    """Builds prompts for one checkpoint."""

    def __init__(
        self,
        tokens: Tokens,
        template: Template,
        *,
        context_tokens: int,
        overlap: int,
        max_windows: int,
        window_tokens: int | None = None,
        forced: str = FORCED,
        reserve: int,
    ) -> None:
        self._tokens = tokens
        self._template = template
        self._strips = template.strips
        self._room = context_tokens - reserve
        self._overlap = overlap
        self._max_windows = max_windows
        self._window_tokens = context_tokens if window_tokens is None else window_tokens
        self._forced = tokens.fixed(forced)
        self._lead, self._trail = find_borders(tokens, template)
        control = re.compile("|".join(map(re.escape, tokens.control_words)) or "(?!)")
        self.neutral = Lookalikes([*ANSWER, *(control.sub("\n", line) for line in template.own_lines())]).neutral
        """Puts a sign before each line of a content that looks like a line of the template."""
        self._frame = lru_cache(MAX_FRAMES)(self._framed)
        for roles in USUAL:
            left = self._room - sum(map(len, self._rendered(roles)))
            if left < LEAST_ROOM:
                raise Misconfigured(
                    f"guard.context_tokens: {context_tokens} leaves {left} tokens for content: the checkpoint's "
                    "template and the answer take the rest"
                )

    def not_shown(self) -> dict[Roles, str]:
        """Return the orders of roles that events can have and the template does not show, with the reasons.

        Takes 0.1 to 0.3 s once. May be called from any thread.
        """
        tried = {roles: self._frame(roles) for roles in possible_roles()}
        return {roles: parts for roles, parts in tried.items() if isinstance(parts, str)}

    @property
    def shared_tokens(self) -> int:
        """The number of ids that all prompts of single messages begin with: the template's text before a message."""
        return len(self._rendered(("user",))[0])

    def build(self, requests: Sequence[Request]) -> list[Prompt | Refused]:
        """Build the prompts of the requests. A conversation that the template does not show is refused.

        May be called from any thread.
        """
        texts: list[str] = []
        for request in requests:
            if request.context:
                texts += [self._shown(earlier) for _, earlier in request.context]
            texts.append(self._shown(request.text))
        encoded = self._tokens.content(texts)
        at = 0
        prompts: list[Prompt | Refused] = []
        for request in requests:
            roles = (*(role for role, _ in request.context), request.role) if request.context else (request.role,)
            parts = self._frame(roles)
            contents = encoded[at : at + len(roles)]
            at += len(roles)
            if isinstance(parts, str):
                # The order of roles of one event must not end the worker. `not_shown` named it at start.
                prompts.append(Refused("conversation", parts))
            elif (
                len(parts) == 2
                and len(contents[0]) <= self._window_tokens
                and len(ids := parts[0] + contents[0] + parts[1]) <= self._room
            ):
                prompts.append(Prompt([ids], 0, 0))
            else:
                prompts.append(self._long(roles, parts, contents))
        if at != len(encoded):
            # One text too many would shift all texts after it: each message would get the verdict of another one.
            raise Fatal(f"{len(encoded)} texts were encoded for {at} that were asked for")
        return prompts

    def _long(self, roles: Roles, parts: list[list[int]], contents: list[list[int]]) -> Prompt | Refused:
        """Cut the context to at most half of the room, the oldest turns first, and the judged text into windows."""
        left_out = 0
        # Many templates refuse a response without the prompt before it.
        frames = (self._frame(roles[start:]) for start in reversed(range(len(roles))))
        most = self._room - next(sum(map(len, frame)) for frame in frames if not isinstance(frame, str))
        if most < 1:
            return Refused("conversation", f"the template leaves no room for content (roles {roles})")
        while (room := self._room - sum(map(len, parts))) < most // 2:
            left_out += len(contents[0])
            roles, contents = roles[1:], contents[1:]
            shorter = self._frame(roles)
            parts = parts if isinstance(shorter, str) else shorter
        kept: list[list[int]] = []
        left = max(room // 2, room - len(contents[-1]))
        for content in reversed(contents[:-1]):
            kept.append(content[-left:] if left > 0 else [])
            left -= len(kept[-1])
            left_out += len(content) - len(kept[-1])
        head = [*parts[0]]
        for content, part in zip(reversed(kept), parts[1:-1], strict=True):
            head += content + part
        size = min(self._window_tokens, self._room - len(head) - len(parts[-1]))
        cut, truncated = windows(contents[-1], size, min(self._overlap, size // 2), self._max_windows)
        return Prompt([[*head, *window, *parts[-1]] for window in cut], truncated, left_out)

    def _framed(self, roles: Roles) -> list[list[int]] | str:
        """Return the fixed parts of a conversation, or the reason why the template refuses the conversation."""
        try:
            return self._rendered(roles)
        except Misconfigured as error:
            return str(error)

    def _rendered(self, roles: Roles) -> list[list[int]]:
        texts = self._template.parts(roles)
        if not all(text.startswith(self._trail) for text in texts[1:]) or not all(
            text.endswith(self._lead) for text in texts[:-1]
        ):
            raise Misconfigured(f"guard.model: the chat template has other text around some messages (roles {roles})")
        texts[1:] = [text.removeprefix(self._trail) for text in texts[1:]]
        texts[:-1] = [text.removesuffix(self._lead) for text in texts[:-1]]
        parts = [self._tokens.fixed(text) for text in texts]
        parts[-1] = parts[-1] + self._forced
        return parts

    def _shown(self, text: str) -> str:
        if self._strips:
            text = text.strip()
        return self._lead + self.neutral(text) + self._trail
