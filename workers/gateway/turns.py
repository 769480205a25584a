"""What of a request is judged before the model server sees it: the turns of the conversation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from workers.gateway.parts import Json
from workers.gateway.problems import Problem
from workers.settings.upstream_sections import Proxy

SYSTEM = frozenset({"system", "developer"})
UNJUDGEABLE_FIELDS = ("prompt_embeds", "prompt_token_ids", "chat_template")
"""Fields of vLLM that replace the messages by something that the guard does not see."""

TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal", "thinking": "thinking"}
"""The kinds of a message's parts that hold text, and the field that holds it."""


class Prompt(NamedTuple):
    """A conversation, as the guard gets it."""

    text: str
    """The last turn of the user: all messages after the last one of the assistant. It is judged."""
    earlier: Sequence[tuple[str, str]] = ()
    """The turns before it, as (role, text): the guard reads them, and judges none."""
    begun: str = ""
    """The beginning of the answer, if the conversation ends with the assistant. It is judged like the answer."""


def of_chat(messages: Sequence[Json], settings: Proxy) -> Prompt:
    """Give what is judged of a conversation. Roles other than `assistant` count as the user: the model reads them.

    Raises:
        Problem: 400, for parts that the guard cannot judge.
    """
    spoken = [
        ("assistant" if message.get("role") == "assistant" else "user", text)
        for number, message in enumerate(messages)
        if (text := _text_of(message, f"messages.{number}", settings))
        and (settings.judge_system or message.get("role") not in SYSTEM)
    ]
    if not any(role == "user" for role, _ in spoken):
        # Nothing but a system message: then it is what the model answers to.
        system = [_text_of(message, "messages", settings) for message in messages if message.get("role") in SYSTEM]
        spoken.insert(0, ("user", "\n\n".join(text for text in system if text)))
    turns = [(role, "\n\n".join(text for _, text in group)) for role, group in groupby(spoken, lambda one: one[0])]
    begun = turns.pop()[1] if turns[-1][0] == "assistant" else ""
    return Prompt(turns[-1][1], turns[:-1], begun)


def check_fields(body: Json) -> None:
    """Refuse what would show text that nobody can judge.

    Raises:
        Problem: 400.
    """
    for field in UNJUDGEABLE_FIELDS:
        if body.get(field) is not None:
            raise Problem(400, f"{field}: the gateway cannot judge it, and refuses it", param=field)
    modalities = body.get("modalities")
    if body.get("audio") is not None or (modalities is not None and modalities != ["text"]):
        raise Problem(400, "modalities: the gateway judges text only, and refuses other answers", param="modalities")


def _text_of(message: Json, where: str, settings: Proxy) -> str:
    texts = [*_texts(message.get("content"), where, settings)]
    if message.get("role") == "assistant":
        fields = (message.get(field) for field in ("reasoning_content", "reasoning", "refusal"))
        texts += (text for text in fields if isinstance(text, str))
        texts += _call_texts(message)
    return "\n\n".join(text for text in texts if text)


def _texts(content: object, where: str, settings: Proxy) -> Iterable[str]:
    if isinstance(content, str):
        yield content
    for number, part in enumerate(content if isinstance(content, list) else []):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get(TEXT_PARTS[kind]) if kind in TEXT_PARTS else None
        if isinstance(text, str):
            yield text
        elif settings.other_parts == "refuse":
            param = f"{where}.content.{number}"
            raise Problem(
                400,
                f"{param}: the gateway judges parts of type text only (gateway.proxy.other_parts)",
                code="unsupported_content",
                param=param,
            )


def _call_texts(message: Json) -> Iterable[str]:
    calls: list[Any] = message["tool_calls"] if isinstance(message.get("tool_calls"), list) else []
    functions = [call.get("function") or call.get("custom") for call in calls if isinstance(call, dict)]
    for function in (message.get("function_call"), *functions):
        if isinstance(function, dict):
            yield from (text for name in ("arguments", "input") if isinstance(text := function.get(name), str))
