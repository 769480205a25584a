"""Judges an answer that is not streamed, and makes of it what may be shown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from schemas.policy import StreamPolicy
from workers import telemetry
from workers.gateway.choice import Choice, reason_of
from workers.gateway.faults import BadUpstream
from workers.gateway.parts import TEXTS, Api, Json, envelope_of, finish_of, joined, usage_of
from workers.gateway.upstream import choices_of


async def judged(api: Api, choices: Sequence[Choice], answer: Json, policy: StreamPolicy) -> Json:
    """Give an answer as the policy shows it, once all its choices are judged.

    Raises:
        BadUpstream: it is not an answer of this API.
    """
    found = dict(choices_of(answer, len(choices)))
    if not found:
        raise BadUpstream("it has no choices")
    for index, fields in found.items():
        choices[index].held.add(fields, "message")
        choices[index].held.end()
    async with asyncio.TaskGroup() as group:
        for index in found:
            group.create_task(_judge(choices[index]))
    usage = {} if (counts := usage_of(answer)) is None else {"usage": counts}
    shown = [_shown(api, choices[index], fields, policy) for index, fields in sorted(found.items())]
    return {**envelope_of(answer), "choices": shown, **usage}


async def _judge(choice: Choice) -> None:
    while choice.cut is None and choice.held.taken < choice.held.arrived:
        await choice.judge()
    if choice.cut is None:
        await choice.end()
    if choice.cut is not None:
        telemetry.GATEWAY_CUTS.labels(choice.cut.reason).inc()


def _shown(api: Api, choice: Choice, fields: Json, policy: StreamPolicy) -> Json:
    message: Json = {"text": ""} if api == "completions" else {"role": "assistant", "content": None}
    logprobs: Any = None
    for piece in choice.released():
        _merge(message, piece.fields)
        logprobs = joined(logprobs, piece.logprobs)
    reason = finish_of(fields)
    if choice.cut is None:
        logprobs = joined(logprobs, choice.held.rest_of_logprobs())
    else:
        logprobs, reason = None, "content_filter"
        _merge(message, {"text" if api == "completions" else "content": policy.replacement})
    more = {} if (why := reason_of(choice)) is None else {"guardline": why}
    content = message if api == "completions" else {"message": message}
    return {"index": choice.index, **content, "logprobs": logprobs, "finish_reason": reason, **more}


def _merge(message: Json, fields: Json) -> None:
    for name, value in fields.items():
        if name == "tool_calls":
            for call in value:
                _merge_call(message.setdefault(name, []), call)
        elif name == "function_call":
            _append(message.setdefault(name, {}), value)
        elif name in TEXTS or name == "text":
            message[name] = (message.get(name) or "") + value if value else message.get(name)
        else:
            message[name] = value


def _merge_call(calls: list[Json], call: Json) -> None:
    index = call.pop("index")
    while len(calls) <= index:
        calls.append({})
    for name, value in call.items():
        if isinstance(value, dict):
            _append(calls[index].setdefault(name, {}), value)
        else:
            calls[index][name] = value


def _append(function: Json, value: Json) -> None:
    for name, text in value.items():
        function[name] = function.get(name, "") + text
