"""A receiver of webhooks as a process of its own: it writes one line for each call, and answers as the path says.

`/ok` accepts, `/flaky` answers each fifth call with 500, `/refuse` answers 422 until the file `accept` is there,
`/gone` answers 410, `/hang` does not answer. With a secret it verifies each signature by the reference library.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

import uvloop
from standardwebhooks.webhooks import Webhook

from tests.site import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answer(status: int) -> bytes:
    return b"HTTP/1.1 %d \r\nContent-Length: 0\r\n\r\n" % status


class Connection(asyncio.Protocol):
    """One connection. It reads only what the worker writes: a body with its length."""

    calls = 0

    def __init__(self, folder: Path, log: BinaryIO, verifier: Webhook | None) -> None:
        self._folder, self._log, self._verifier = folder, log, verifier
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has a class of its own.

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            size = end + 4 + int(headers["content-length"])
            if len(self._buffer) < size:
                return
            body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
            self._called(first.split()[1], headers, body)

    def _called(self, path: str, headers: dict[str, str], body: bytes) -> None:
        Connection.calls += 1
        said = self._answer(path)
        line: dict[str, Any] = {"path": path, "id": headers["webhook-id"], "status": int(said[9:12] or 0)}
        if self._verifier is not None:
            line["data"] = self._verifier.verify(body, headers)["data"]
        self._log.write(json.dumps(line).encode() + b"\n")
        self._transport.write(said)

    def _answer(self, path: str) -> bytes:
        match path:
            case "/flaky" if Connection.calls % 5 == 0:
                return answer(500)
            case "/refuse" if not (self._folder / "accept").exists():
                return answer(422)
            case "/gone":
                return answer(410)
            case "/hang":
                return b""
        return OK


async def serve(folder: Path, secret: str) -> None:
    verifier = Webhook(secret) if secret else None
    with (folder / "calls").open("ab", buffering=0 if secret else 1_000_000) as log:
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(folder, log, verifier), "127.0.0.1", 0, backlog=1_000
        )
        (folder / "port.new").write_text(str(server.sockets[0].getsockname()[1]))
        (folder / "port.new").rename(folder / "port")
        await server.serve_forever()


class Receiver:
    """The process, from the test's side. `folder` must be empty."""

    def __init__(self, folder: Path, secret: str = "") -> None:
        self.folder = folder
        self.popen = subprocess.Popen([sys.executable, "-m", "tests.servers.receiver", str(folder), secret])
        eventually(lambda: (folder / "port").exists(), "the receiver listens")
        self.port = int((folder / "port").read_text())

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def calls(self, path: str = "") -> list[dict[str, Any]]:
        """Return the calls so far, in the order of their arrival."""
        lines = (self.folder / "calls").read_bytes().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [call for call in found if not path or call["path"] == f"/{path}"]

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2]))
