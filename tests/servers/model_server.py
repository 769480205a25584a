"""A small server with the API of OpenAI, whose answers are scripts of bytes, pauses and ends.

A script is chosen by the name of the model in the request. The server notes each request, and how it ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]
Step: TypeAlias = bytes | float | asyncio.Event | str
"""Bytes are sent in one chunk. A number is a pause in seconds. An event is waited for. `reset` ends the connection."""
Script: TypeAlias = Callable[[Json], "Reply"]

ENVELOPE: Json = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


class Reply:
    """What the server sends."""

    def __init__(
        self,
        steps: Sequence[Step] = (),
        *,
        status: int = 200,
        kind: str = "text/event-stream",
        headers: dict[str, str] | None = None,
    ) -> None:
        self.steps = steps
        self.status = status
        self.headers = {"content-type": kind, **(headers or {})}


def chunk(index: int = 0, finish: str | None = None, /, **delta: Any) -> bytes:
    """Give an event of a chat."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return sse({**ENVELOPE, "choices": [choice]})


def sse(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def said(*texts: str, index: int = 0) -> list[bytes]:
    """Give the events of a whole answer in these deltas."""
    return [
        chunk(index, role="assistant", content=""),
        *(chunk(index, content=text) for text in texts),
        chunk(index, "stop"),
    ]


def anything(body: Json) -> Reply:
    """Answer every request in its own shape: a chat, a completion or a list of models, streamed or not."""
    if "messages" not in body and "prompt" not in body:
        return Reply([b'{"object": "list", "data": []}'], kind="application/json")
    is_chat = "messages" in body
    prompts = 1 if is_chat or isinstance(body["prompt"], str) else len(body["prompt"])
    field = "message" if is_chat else "text"
    answer: Json = {"role": "assistant", "content": "Good morning!"} if is_chat else {field: "Good morning!"}
    choices = [
        {"index": index, "finish_reason": "stop", **({field: answer} if is_chat else answer)}
        for index in range(prompts * (body.get("n") or 1))
    ]
    if not body.get("stream"):
        return Reply([json.dumps({**ENVELOPE, "choices": choices}).encode()], kind="application/json")
    if is_chat:
        choices = [{**choice, "delta": choice.pop("message")} for choice in choices]
    return Reply([*(sse({**ENVELOPE, "choices": [choice]}) for choice in choices), DONE])


class ModelServer:
    """The server, its scripts by the names of models, and what it was asked."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.otherwise: Script | None = None
        """The script of all other models. None: status 404."""
        self.asked: list[Json] = []
        """The bodies of the requests."""
        self.headers: list[dict[str, str]] = []
        self.ends: list[str] = []
        """How each answer ended: `complete`, or `gone` if the client closed the connection before."""
        self.port = 0
        self.connections: set[asyncio.Task[Any]] = set()

    def script(self, model: str, *steps: Step) -> None:
        self.scripts[model] = lambda _: Reply(steps)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._request(reader, writer):
                    pass
        finally:
            self.connections.discard(task)
            writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(content) if content else {"model": first.split()[1]}
        self.asked.append(body)
        self.headers.append(headers)
        script = self.scripts.get(str(body.get("model")), self.otherwise)
        reply = (
            Reply(
                [b'{"error":{"message":"no such model","code":"model_not_found"}}'], status=404, kind="application/json"
            )
            if script is None
            else script(body)
        )
        # Whoever closes the connection while an answer is sent is noticed at once.
        leaving = asyncio.ensure_future(reader.read(1))
        sending = asyncio.ensure_future(self._send(writer, reply))
        try:
            await asyncio.wait({leaving, sending}, return_when=asyncio.FIRST_COMPLETED)
            self.ends.append("complete" if sending.done() else "gone")
            return sending.done() and sending.result() and not leaving.done()
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(leaving, sending, return_exceptions=True)

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        lines = [f"HTTP/1.1 {reply.status} x", *(f"{name}: {value}" for name, value in reply.headers.items())]
        writer.write("\r\n".join([*lines, "transfer-encoding: chunked", "", ""]).encode())
        for step in reply.steps:
            if isinstance(step, bytes):
                writer.write(b"%x\r\n%s\r\n" % (len(step), step))
                await writer.drain()
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, str):
                await writer.drain()
                writer.transport.abort()
                return False
            else:
                await asyncio.sleep(step)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """Serve on a free port."""
    server = ModelServer()
    listening = await asyncio.start_server(server._connection, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for connection in list(server.connections):
            connection.cancel()
        await asyncio.gather(*server.connections, return_exceptions=True)
