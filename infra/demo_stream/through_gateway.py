"""The first part of the demo: a client asks a model server through the gateway, and gets what may be shown."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import httpx

from infra.demo_stream.conversations import Conversation

TIMEOUT_S = 60


@dataclass(frozen=True)
class Got:
    """What a client got of an answer."""

    text: str
    finish_reason: str | None
    first_s: float


def ask(url: str, conversation: Conversation) -> Got:
    """Ask for a conversation's answer as a stream, and read it to its end."""
    body = {"model": "scripted", "stream": True, "messages": [{"role": "user", "content": conversation.question}]}
    text, reason, first = "", None, 0.0
    began = time.monotonic()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=TIMEOUT_S) as response:
        if response.is_error:
            error = json.loads(response.read()).get("error", {})
            return Got("", str(error.get("code")), time.monotonic() - began)
        for line in response.iter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            for choice in json.loads(line.removeprefix("data: ")).get("choices", ()):
                if content := choice["delta"].get("content"):
                    first = first or time.monotonic() - began
                    text += content
                reason = choice["finish_reason"] or reason
    return Got(text, reason, first)
