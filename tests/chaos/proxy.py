"""A TCP proxy in front of one broker that can hold one Kafka request, cut its connection, and deliver it later.

It does what a lossy network, a load balancer or a sidecar does sometimes, at a moment that the test chooses. It knows
only the frame of a request (length, API key, version, correlation id).
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import Counter
from contextlib import suppress
from enum import IntEnum

HOST = "127.0.0.1"


class Api(IntEnum):
    """The requests that tests ask for, by their keys."""

    PRODUCE = 0
    INIT_PRODUCER_ID = 22
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28


class Held:
    """One request that the proxy holds back when it arrives."""

    def __init__(self, proxy: Proxy, api: Api, *, is_cut: bool) -> None:
        self.api = api
        self.is_cut = is_cut
        self.has_come = threading.Event()
        self.may_go = asyncio.Event()
        self.has_answer = asyncio.Event()
        self._is_answered = threading.Event()
        self._proxy = proxy

    def deliver(self) -> None:
        """Send the request to the broker now, and return when the broker has answered it."""
        self._proxy.loop.call_soon_threadsafe(self.may_go.set)
        assert self._is_answered.wait(10), f"the broker did not answer the late {self.api.name}"

    def answer(self) -> None:
        """Note that the broker has answered. The proxy's own thread."""
        self.has_answer.set()
        self._is_answered.set()


class Proxy:
    """Listens on `port` and forwards everything to the broker at `upstream`, until `close`."""

    def __init__(self, port: int, upstream: int) -> None:
        self.address = f"{HOST}:{port}"
        self.answered: Counter[int] = Counter()
        """The answers of the broker, by API key."""
        self._upstream = upstream
        self._wanted: list[Held] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._is_listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(port)), daemon=True)
        self._thread.start()
        assert self._is_listening.wait(10)

    def hold(self, api: Api, *, is_cut: bool = False) -> Held:
        """Hold the next request of this kind; with `is_cut`, cut its connection.

        Later requests of its connection overtake it, as if it were sent to another broker.
        """
        held = Held(self, api, is_cut=is_cut)
        self._wanted.append(held)
        return held

    def close(self) -> None:
        """End all connections, and discard held requests."""
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self, port: int) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connect, HOST, port)
        self._is_listening.set()
        await self._stop.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            broker_reader, broker_writer = await asyncio.open_connection(HOST, self._upstream)
            asked: dict[int, tuple[int, Held | None]] = {}
            answers = asyncio.create_task(self._pass_down(broker_reader, writer, asked))
            try:
                await self._pass_up(reader, broker_writer, writer, asked)
            finally:
                answers.cancel()
                await end(broker_writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            await end(writer)
            self._connections.discard(task)

    async def _pass_up(
        self,
        reader: asyncio.StreamReader,
        broker: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        asked: dict[int, tuple[int, Held | None]],
    ) -> None:
        async with asyncio.TaskGroup() as late:
            while frame := await read_frame(reader):
                api, _, correlation = struct.unpack_from(">hhi", frame, 4)
                held = next((held for held in self._wanted if held.api == api), None)
                asked[correlation] = (api, held)
                if held is None:
                    broker.write(frame)
                    await broker.drain()
                    continue
                self._wanted.remove(held)
                late.create_task(deliver_later(held, frame, broker))
                held.has_come.set()
                if held.is_cut:
                    client.close()

    async def _pass_down(
        self, broker: asyncio.StreamReader, client: asyncio.StreamWriter, asked: dict[int, tuple[int, Held | None]]
    ) -> None:
        while frame := await read_frame(broker):
            (correlation,) = struct.unpack_from(">i", frame, 4)
            api, held = asked.pop(correlation)
            self.answered[api] += 1
            if held is not None:
                held.answer()
            if not client.is_closing():
                client.write(frame)
                await client.drain()
        client.close()


async def deliver_later(held: Held, frame: bytes, broker: asyncio.StreamWriter) -> None:
    """Hand a request to the broker when the test says so, and keep the connection until its answer is there."""
    await held.may_go.wait()
    broker.write(frame)
    await held.has_answer.wait()


async def end(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and return once it is closed."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Give one request or answer with its length in front; nothing at the end of the connection."""
    try:
        length = await reader.readexactly(4)
        return length + await reader.readexactly(int.from_bytes(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
