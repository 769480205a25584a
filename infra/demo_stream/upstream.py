"""A small model server with OpenAI's API: it streams the answer of a script, a few characters at a time."""

from __future__ import annotations

import asyncio
import json
import threading

from aiohttp import web

from infra.demo_stream.conversations import CONVERSATIONS

CHUNK_CHARS = 7
PAUSE_S = 0.02
"""About 90 tokens a second."""

_ANSWERS = {conversation.question: conversation.answer for conversation in CONVERSATIONS}


class Upstream:
    """The server, in a thread of its own.

    Attributes:
        url: its address, without `/v1`.
        sent: how many characters of the answer to each question were sent.
    """

    def __init__(self) -> None:
        self.url = ""
        self.sent: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to serve; return when the address is known."""
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """End."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    async def _serve(self) -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        question = str(body["messages"][-1]["content"])
        answer = _ANSWERS[question]
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        self.sent[question] = 0
        try:
            for start in range(0, len(answer), CHUNK_CHARS):
                part = answer[start : start + CHUNK_CHARS]
                await response.write(_event({"content": part}, None))
                self.sent[question] += len(part)
                await asyncio.sleep(PAUSE_S)
            await response.write(_event({}, "stop"))
            await response.write(b"data: [DONE]\n\n")
        except ConnectionResetError:
            pass  # The gateway has cut the answer, and does not want the rest.
        return response


def _event(delta: dict[str, str], finish_reason: str | None) -> bytes:
    chunk = {
        "id": "chatcmpl-demo",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()
