"""Reads a prompt and a completion as trainers give them, and splits a thought from its answer.

Both may be texts, or lists of messages with `role` and `content`. All text of a completion is judged, as thought or as
answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.errors import Unjudgeable

BEGIN, END = "<think>", "</think>"

Text = str | Sequence[Mapping[str, Any]]
"""A text, or a list of messages."""


@dataclass(frozen=True)
class Exchange:
    """One completion to judge.

    Attributes:
        context: (role, text) of the turns of user and assistant before the completion.
        thought: the text of the thought; empty if there is none.
        answer: the text of the answer; empty if the completion ends within the thought.
        score: that of another reward model; None if there is none.
    """

    context: tuple[tuple[str, str], ...]
    thought: str
    answer: str
    score: float | None = None


def read_exchange(prompt: Text, completion: Text, score: float | None = None) -> Exchange:
    """Read one completion.

    Only the messages of user and assistant of a prompt are read: the guard's template has no place for those of other
    roles. `reasoning_content` of a message is a thought, as is the text before `</think>`. A text prompt that ends with
    `<think>` begins a thought.

    Raises:
        Unjudgeable: prompt or completion is of another shape, or is not only text.
    """
    is_begun = False
    if isinstance(prompt, str):
        is_begun = prompt.rstrip().endswith(BEGIN)
        context = [("user", prompt.rstrip().removesuffix(BEGIN) if is_begun else prompt)] if prompt.strip() else []
    else:
        context = [
            (role, text)
            for role, text, _ in map(_read_message, _messages(prompt, "prompt"))
            if role in ("user", "assistant") and text.strip()
        ]
    thoughts: list[str] = []
    answers: list[str] = []
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    for role, text, reasoning in map(_read_message, _messages(completion, "completion")):
        if role != "assistant":
            raise Unjudgeable("shape", f"completion: a message has the role {role!r}, and only 'assistant' is judged")
        thought, answer = split_thought(text, is_begun=is_begun)
        thoughts += [part for part in (reasoning, thought) if part.strip()]
        answers += [answer] if answer.strip() else []
    return Exchange(tuple(context), "\n\n".join(thoughts), "\n\n".join(answers), score)


def split_thought(text: str, *, is_begun: bool = False) -> tuple[str, str]:
    """Give the thought and the answer of a completion.

    The text before the first `</think>` is the thought, with or without `<think>`: some chat templates write `<think>`
    into the prompt. A completion that begins with `<think>` and never ends it is a thought without an answer, and so is
    one whose prompt began the thought (`is_begun`).
    """
    head, end, tail = text.partition(END)
    if end:
        return head.replace(BEGIN, "", 1).strip(), tail.strip()
    if is_begun or text.lstrip().startswith(BEGIN):
        return head.replace(BEGIN, "", 1).strip(), ""
    return "", text


def _messages(value: Any, name: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(message, Mapping) for message in value):
        raise Unjudgeable("shape", f"{name}: must be a text, or a list of messages with role and content")
    return value


def _read_message(message: Mapping[str, Any]) -> tuple[str, str, str]:
    """Give role, text and reasoning of a message. Content may be a list of parts of the type `text`."""
    if message.get("tool_calls"):
        raise Unjudgeable("shape", "a message has tool calls, which the guard cannot judge")
    content = message.get("content") or ""
    if isinstance(content, (list, tuple)):
        if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
            raise Unjudgeable("shape", "a message has a part that is not text")
        content = "\n".join(part["text"] for part in content)
    reasoning = message.get("reasoning_content") or ""
    role = message.get("role")
    if not all(isinstance(value, str) for value in (role, content, reasoning)):
        raise Unjudgeable("shape", "a message must have role and content, both texts")
    return str(role), content, reasoning
