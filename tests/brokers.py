"""Brokers with their own settings, and a proxy that makes a broker look older."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.devstack import children, jars
from infra.devstack.kafka import HOST, Broker, free_ports


@contextmanager
def broker(*lines: str, listeners: Callable[[int, int], Iterable[str]] = lambda *_: ()) -> Iterator[str]:
    """Run a broker with these configuration lines; yield its address.

    `listeners` returns further lines, which need the broker's port and its controller's port.
    """
    found = jars.ensure()
    with tempfile.TemporaryDirectory(prefix="guardline-broker-", ignore_cleanup_errors=True) as folder:
        port, controller_port = free_ports(2)
        kafka = Broker(Path(folder), port, controller_port)
        kafka.configure(found, *lines, *listeners(port, controller_port))
        process = kafka.start(found)
        try:
            kafka.wait_until_ready(process, 0)
            yield kafka.address
        finally:
            children.stop(process, at_once=True)


@contextmanager
def rewritten(address: str, old: bytes, new: bytes) -> Iterator[str]:
    """Forward connections to `address`, and replace one sequence of bytes in each answer; yield the proxy's address."""
    host, port = address.split(":")
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def run(work: Callable[..., None], *arguments: object) -> None:
        threads.append(threading.Thread(target=work, args=arguments))
        threads[-1].start()

    def serve(server: socket.socket) -> None:
        with suppress(OSError):  # Closed: the block has ended.
            while True:
                client, _ = server.accept()
                upstream = socket.create_connection((host, int(port)))
                sockets.extend((client, upstream))
                run(pump, client, upstream, b"", b"")
                run(pump, upstream, client, old, new)

    def pump(source: socket.socket, target: socket.socket, old: bytes, new: bytes) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data.replace(old, new) if old else data)
            target.shutdown(socket.SHUT_RDWR)

    server = socket.create_server((HOST, 0))
    sockets.append(server)
    run(serve, server)
    try:
        yield f"{HOST}:{server.getsockname()[1]}"
    finally:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for one in sockets:
            one.close()
