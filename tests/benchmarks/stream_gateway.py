"""What the gateway adds to a stream: to the first text and to each token, against the same model server without it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from infra.demo_stream.processes import Processes
from infra.devstack.stack import running

TEXT = (
    "Boil fresh water and warm the pot. Put in one spoon of leaves for each cup, pour the water over them and wait "
    "four minutes. Then enjoy it with a little milk or lemon. "
)
ANSWER = re.findall(r"\S+ ", TEXT) * 2
RATE = 30.0
"""Tokens a second that the model server writes for each stream; here a token is a word."""
STREAMS = (1, 16, 64)
ROUNDS = 3
QUESTION = "How do I make good tea?"


class Server:
    """A model server that writes a harmless answer at a steady rate, and notes when it wrote each word."""

    def __init__(self) -> None:
        self.url = ""
        self.wrote: dict[str, list[float]] = {}

    async def start(self) -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        name = str((await request.json())["user"])
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        times = self.wrote[name] = []
        begin = time.perf_counter()
        for number, word in enumerate(ANSWER):
            await asyncio.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
            times.append(time.perf_counter())
            await response.write(_event(name, {"content": word}, None))
        await response.write(_event(name, {}, "stop") + b"data: [DONE]\n\n")
        return response


def _event(name: str, delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {"id": name, "object": "chat.completion.chunk", "created": 0, "model": "steady", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


class Times:
    """Milliseconds from the request to the first text, and from the writing of each word to its arrival."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.word: list[float] = []
        self.wrong = 0

    def median_and_p99(self) -> dict[str, float]:
        return {
            "first_p50": statistics.median(self.first),
            "first_p99": _p99(self.first),
            "token_p50": statistics.median(self.word),
            "token_p99": _p99(self.word),
        }


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


async def ask(client: httpx.AsyncClient, url: str, name: str, server: Server, times: Times) -> None:
    """Read one answer, and note when each of its words was complete."""
    body = {"model": "steady", "stream": True, "user": name, "messages": [{"role": "user", "content": QUESTION}]}
    began = time.perf_counter()
    text, number, end, is_begun = "", 0, len(ANSWER[0]), False
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            now = time.perf_counter()
            for choice in json.loads(line[6:]).get("choices", ()):
                text += choice["delta"].get("content") or ""
            if text and not is_begun:
                is_begun = True
                times.first.append((now - began) * 1_000)
            while number < len(ANSWER) and len(text) >= end:
                times.word.append((now - server.wrote[name][number]) * 1_000)
                number += 1
                end += len(ANSWER[number]) if number < len(ANSWER) else 0
    times.wrong += text != "".join(ANSWER)


async def compared(server: Server, gateway: str) -> dict[str, Any]:
    """Ask the server and the gateway in turns. `wrong`: answers that a client did not get as they were written."""
    found: dict[str, Any] = {}
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as client:
        for streams in STREAMS:
            bare, through = Times(), Times()
            for turn in range(ROUNDS):
                for url, times, way in ((server.url, bare, "bare"), (gateway, through, "through")):
                    names = [f"{way}-{streams}-{turn}-{number}" for number in range(streams)]
                    await asyncio.gather(*(ask(client, url, name, server, times) for name in names))
            one, other = bare.median_and_p99(), through.median_and_p99()
            found[str(streams)] = {name: round(other[name] - one[name], 1) for name in one} | {"wrong": through.wrong}
    return found


async def measured() -> dict[str, Any]:
    """Start everything, and give the milliseconds that the gateway adds, by the number of streams at a time."""
    server = Server()
    await server.start()
    try:
        with running() as stack, tempfile.TemporaryDirectory(prefix="guardline-bench-") as folder:
            os.environ |= {
                "GUARDLINE_REDIS__URL": stack.redis,
                "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": stack.kafka,
                "GUARDLINE_HTTP__PORT": "0",
                "GUARDLINE_GUARD__THREADS": "1",
                "GUARDLINE_STREAMS__THREADS": "1",
                "GUARDLINE_STREAMS__MAX_SESSIONS": str(2 * max(STREAMS)),
                "GUARDLINE_GATEWAY__MAX_CONCURRENT": str(2 * max(STREAMS)),
            }
            with Processes(Path(folder)) as processes:
                url = await asyncio.to_thread(processes.gateway, server.url)
                return await compared(server, url)
    finally:
        await server.stop()
