"""Makes every client of librdkafka from the settings: nothing else of the project knows librdkafka's properties.

`workers/settings/kafka_properties.py` refuses in `kafka.properties` what is set here after them. A client that cannot
be made is a `Misconfigured` with a sentence.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata

from workers.errors import Misconfigured
from workers.kafka import causes, tokens
from workers.kafka.route import Route
from workers.settings import Kafka
from workers.settings.kafka_properties import hidden_values
from workers.shown import without

ANSWER_S = 10.0
"""How long the brokers may take to say which topics they have."""

FIRST_LOOK_S = 0.25
"""The time limit of the first metadata request. It doubles with each further one, up to `LOOK_S`."""

LOOK_S = 2.0

REFUSED_S = 1.0
"""How long the other brokers have to answer after one has refused."""

DELIVERY_S = 30
"""How long Kafka may be away before `guardline produce` counts a record as refused."""

LINGER_MS = 20
"""How long `guardline produce` lets a record wait, so that a request holds many."""

PREFETCH_KBYTES = 8_192
"""Without a bound 152,000 records lay in the queue of a consumer that had taken 2,000."""

FETCH_BACKOFF_MS = 50
"""With the default second, a bounded queue fetched 14,750 records/s; with this, 70,700."""

FETCH_WAIT_MS = 100
"""A broker holds a fetch of empty partitions this long, and all others on that broker wait behind it: after each
assignment the default of 500 was half a second without a record."""

TO_THE_END_S = 0.05
"""How long a read that ends with what is there waits for a full batch. The client waits for it even where the end was
seen, and the broker likewise for more to come: a second for each read of a quiet topic."""

METADATA_MS = 10_000
"""How often a consumer looks for new partitions: with the default of 5 minutes they stood still for that long."""

STATISTICS_MS = 2_000

HEARTBEAT_MS = 1_000
"""A classic rebalance lasts until the last member heard of it by its heartbeat: with 9 s between them four partitions
were silent for 8.9 s."""

RECOVERY = {"metadata.recovery.strategy": "none"}
"""librdkafka's default, `rebootstrap`, drops brokers that it still remembers as coordinators: a transaction that met a
restarted broker hung for ever (librdkafka 2.16; its issues 5456 and 5511)."""

LEAVE_POLL_S = 0.05

DEBUG_LEVEL = 7
"""Of syslog. The worker's loggers read these lines and drop them."""

SILENT = {"log_level": 0}
"""For clients that nobody polls: what goes wrong comes back as an exception."""

HEARD = {"log_level": 6}
"""For commands: what goes wrong becomes a sentence, and nothing of librdkafka's log is shown. At this level it tells of
connections that were closed."""

FILES = (
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "sasl.kerberos.keytab",
)
"""Properties that name files. librdkafka says of one that is not there what OpenSSL said."""

MAX_BYTES = "message.max.bytes"

COMMAND = "guardline"
"""The `client.id` of what is not a worker."""


class Logger(Protocol):
    """Takes librdkafka's log lines while the client is polled, as (level, format, fac, client's name, text)."""

    def log(self, level: int, event: str, *args: Any) -> Any:
        """Take one line. Must not raise."""


class Admin(AdminClient):
    """An `AdminClient` with what it was told of its connections."""

    heard: causes.Heard


class Reader(Consumer):
    """A `Consumer` with what it was told of its connections."""

    heard: causes.Heard


class Sender(Producer):
    """A `Producer` with what it was told of its connections."""

    heard: causes.Heard


def consumer(
    route: Route, *, on_statistics: Callable[[str], None] | None = None, logger: Logger | None = None
) -> Reader:
    """Return a member of the route's group. What breaks a guarantee was refused by the settings.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    callbacks: dict[str, Any] = {} if on_statistics is None else {"stats_cb": on_statistics}
    return _made(Reader, route.kafka, {**consumer_config(route), **callbacks}, logger)


def consumer_config(route: Route) -> dict[str, Any]:
    """Return the configuration of `consumer`."""
    kafka = route.kafka
    membership: dict[str, Any] = {}
    if kafka.group_protocol == "classic":
        session_ms = int(kafka.session_timeout_s * 1000)
        membership["partition.assignment.strategy"] = "cooperative-sticky"
        membership["session.timeout.ms"] = session_ms
        membership["heartbeat.interval.ms"] = min(session_ms // 5, HEARTBEAT_MS)
        if (name := static_name(route)) is not None:
            membership["group.instance.id"] = name
    return {
        "client.id": client_id(route.worker_id),
        "queued.max.messages.kbytes": PREFETCH_KBYTES,
        "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "topic.metadata.refresh.interval.ms": METADATA_MS,
        **RECOVERY,
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": kafka.group,
        "group.protocol": kafka.group_protocol,
        **membership,
        "max.poll.interval.ms": int(kafka.max_poll_interval_s * 1000),
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        "statistics.interval.ms": STATISTICS_MS,
        # `workers/kafka/topic_watch.py` reads in the log what can be read nowhere else.
        "debug": _debug(kafka, "metadata"),
        "log_level": DEBUG_LEVEL,
    }


def static_name(route: Route) -> str | None:
    """Return the name under which the group keeps a worker's partitions while it restarts; None: it keeps none.

    Only the classic protocol: with the newer one a worker that comes back under its name is refused until the session
    of the one that was killed is over.
    """
    return route.worker_id if route.is_static and route.kafka.group_protocol == "classic" else None


def leave_by_name(consumer: Consumer, deadline: float) -> None:
    """Let a static member leave its group: its close alone would keep the partitions until its session is over.

    Blocks until it has left or `deadline`, a time.monotonic() value, and for the rebalance callbacks.
    """
    consumer.unsubscribe()
    while consumer.memberid() is not None and time.monotonic() < deadline:
        with suppress(KafkaException):
            consumer.consume(1, LEAVE_POLL_S)  # Without a poll the leaving is never sent.


def transactional_producer(
    kafka: Kafka, worker_id: str, max_bytes: Mapping[str, int], *, logger: Logger | None = None
) -> Sender:
    """Return the producer of a worker. `max_bytes`: how large a batch each output topic takes.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    return _made(Sender, kafka, transactional_producer_config(kafka, worker_id, max_bytes), logger)


def client_limit(kafka: Kafka) -> int:
    """Return how large a record librdkafka sends at most, in bytes."""
    return int(kafka.properties.get(MAX_BYTES, 1_000_000))


def transactional_id(kafka: Kafka, worker_id: str) -> str:
    """Return the name under which a worker's transactions are known to the brokers."""
    return f"{kafka.group}.{worker_id}"


def transactional_producer_config(kafka: Kafka, worker_id: str, max_bytes: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration of `transactional_producer`."""
    timeout_ms = int(kafka.transaction_timeout_s * 1000)
    return {
        "client.id": client_id(worker_id),
        "linger.ms": 5,
        "compression.type": "lz4",
        "queue.buffering.max.messages": 1_000_000,
        **RECOVERY,
        **kafka.properties,
        # A topic's limit is one of batches, and librdkafka splits none: many small records would be refused together.
        "batch.size": min([int(kafka.properties.get("batch.size", 1_000_000)), *max_bytes.values()]),
        "bootstrap.servers": kafka.bootstrap_servers,
        "transactional.id": transactional_id(kafka, worker_id),
        "transaction.timeout.ms": timeout_ms,
        # Looked at once a second: the cause has to be known before the deadline.
        "message.timeout.ms": timeout_ms // 2,
        # As long as librdkafka allows: what is given up earlier is sent again, and the first copy may come late.
        "socket.timeout.ms": timeout_ms + 100,
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "delivery.report.only.error": True,
        "allow.auto.create.topics": False,
        # `workers/kafka/transactions.py` reads how transactions end in the log, and nowhere else can it be read.
        "debug": _debug(kafka, "eos"),
        "log_level": DEBUG_LEVEL,
        "log.connection.close": True,
    }


def producer(kafka: Kafka, *, linger_ms: int = LINGER_MS, timeout_s: float = DELIVERY_S) -> Sender:
    """Return an idempotent producer without transactions, as `guardline produce` has it.

    `linger_ms`: how long a record waits for others. `timeout_s`: how long the brokers may take to store a record.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    config = {
        "client.id": COMMAND,
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": linger_ms,
        "message.timeout.ms": int(timeout_s * 1000),
        **HEARD,
    }
    return _made(Sender, kafka, config)


def reader(kafka: Kafka, *, follow: bool, wait_s: float | None = None) -> Reader:
    """Return a consumer outside any group, which sees only what was committed and commits nothing.

    Without `follow` it reports the end of each partition. `wait_s`: how long a broker may hold a fetch of partitions
    without new records; None for the client's default.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    config = {
        "client.id": COMMAND,
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": f"guardline-reader-{secrets.token_hex(4)}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        # Where a partition does not have the offset any more at which the reader is.
        "auto.offset.reset": "earliest",
        "enable.partition.eof": not follow,
        **({} if wait_s is None else {"fetch.wait.max.ms": int(wait_s * 1000)}),
        **HEARD,
    }
    return _made(Reader, kafka, config)


def onlooker(kafka: Kafka) -> Reader:
    """Return a client that asks what the group has committed and never joins it. It sees no offset that is in doubt.

    Not the AdminClient's call: that waits for its whole time-out where no group was ever seen, and has crashed the
    process (confluent-kafka 2.16).

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    config = {
        "client.id": COMMAND,
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": kafka.group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
    }
    return _made(Reader, kafka, config, is_polled=False)


def admin(kafka: Kafka, *, logger: Logger | None = None, debug: str = "") -> Admin:
    """Return a client for questions about brokers, topics and groups. `debug` names librdkafka's contexts for `logger`.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    config: dict[str, Any] = {
        "client.id": COMMAND,
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        **({"debug": debug} if debug else HEARD),
    }
    return _made(Admin, kafka, config, logger)


def present_topics(client: Admin | Reader, kafka: Kafka, answer_s: float = ANSWER_S) -> dict[str, TopicMetadata]:
    """Return the topics by their names. Blocks for `answer_s` while brokers are silent, for less where they refuse.

    A `Reader` must not have partitions yet: what it takes is dropped.

    Raises:
        Unavailable: no broker answers.
        Misconfigured: the brokers refuse this client, or it refuses them.
    """
    began = time.monotonic()
    look_s = FIRST_LOOK_S
    while True:
        try:
            topics: dict[str, TopicMetadata] = client.list_topics(timeout=min(answer_s, look_s)).topics
        except KafkaException as error:
            client.poll(0)  # Brings what was heard.
            waited_s = time.monotonic() - began
            if waited_s >= answer_s or (client.heard.is_refused and waited_s >= REFUSED_S):
                raise causes.no_answer(kafka, client.heard, error.args[0]) from error
            look_s = min(2 * look_s, LOOK_S)
        else:
            return topics


def client_id(worker_id: str) -> str:
    """Return the name by which brokers and Kafka's tools show a worker.

    librdkafka escapes nothing in its statistics: a quotation mark in the name would make them unreadable.
    """
    return re.sub(r"[^\w.:@-]", "_", worker_id, flags=re.ASCII)


def shows_debug(kafka: Kafka) -> bool:
    """Whether somebody asked for librdkafka's own debug lines."""
    return "debug" in kafka.properties


def _debug(kafka: Kafka, context: str) -> str:
    return ",".join(filter(None, (context, str(kafka.properties.get("debug", "")))))


_Client = TypeVar("_Client", Admin, Reader, Sender)


def _made(
    make: type[_Client], kafka: Kafka, config: dict[str, Any], logger: Logger | None = None, *, is_polled: bool = True
) -> _Client:
    heard = causes.Heard()
    # Reports pile up in a client that nobody polls.
    listening: dict[str, Any] = {"error_cb": heard.add} if is_polled else {**SILENT}
    if kafka.token_provider is not None:
        token_provider = tokens.provider(kafka.token_provider)
        # Fetched here first: the constructor would wait for 10 s, and not say why no token came.
        token_provider.fetch(str(kafka.properties.get("sasl.oauthbearer.config", "")))
        listening["oauth_cb"] = token_provider.fetch
    try:
        client = make({**config, **listening}, logger=logger or heard)
    except KafkaException as error:
        for name in FILES:
            file = str(config.get(name, ""))
            if file and not os.access(file, os.R_OK):
                raise Misconfigured(f"kafka.properties: {name} names what cannot be read: {file}") from error
        # It may quote a value, as it does of one that is not among those allowed.
        said = without(hidden_values(config), error.args[0].str())
        raise Misconfigured(f"kafka.properties: librdkafka refuses these settings: {said}") from error
    client.heard = heard
    return client
