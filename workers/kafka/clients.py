"""Makes every client of librdkafka from the settings: nothing else of the project knows librdkafka's properties.

`workers/settings/kafka_properties.py` refuses in `kafka.properties` what is set here after them. A client that cannot
be made is a `Misconfigured` with a sentence.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import TopicMetadata

from workers.errors import Misconfigured
from workers.kafka import causes
from workers.settings import Kafka, Settings

ANSWER_S = 10.0
"""How long the brokers may take to say which topics they have."""

LOOK_S = 2.0
"""How long one look for brokers may take, before the reason is looked for why none answers."""

REASON_S = 1.0
"""How long a client may take to say why it reaches no broker: it tries again every 50 ms."""

DELIVERY_S = 30
"""How long Kafka may be away before `guardline produce` counts a record as refused."""

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
"""For commands: what goes wrong comes back as an exception or a delivery report, and becomes a sentence."""

COMMAND = "guardline"
"""The `client.id` of what is not a worker."""


class Logger(Protocol):
    """Takes librdkafka's log lines while the client is polled, as (level, format, fac, client's name, text)."""

    def log(self, level: int, event: str, *args: Any) -> Any:
        """Take one line. Must not raise."""


class Discarded:
    """A logger for clients of commands: nothing of librdkafka's log is shown."""

    def log(self, level: int, event: str, *args: Any) -> None:
        """Take one line."""


def consumer(
    settings: Settings, *, on_statistics: Callable[[str], None] | None = None, logger: Logger | None = None
) -> Consumer:
    """Give a member of the worker group. What breaks a guarantee was refused by the settings.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    callbacks: dict[str, Any] = {} if on_statistics is None else {"stats_cb": on_statistics}
    return _made(Consumer, {**consumer_config(settings), **callbacks}, logger)


def consumer_config(settings: Settings) -> dict[str, Any]:
    """Give the configuration of `consumer`."""
    kafka = settings.kafka
    membership: dict[str, Any] = {}
    if kafka.group_protocol == "classic":
        session_ms = int(kafka.session_timeout_s * 1000)
        membership["partition.assignment.strategy"] = "cooperative-sticky"
        membership["session.timeout.ms"] = session_ms
        membership["heartbeat.interval.ms"] = min(session_ms // 5, HEARTBEAT_MS)
        if (name := static_name(settings)) is not None:
            membership["group.instance.id"] = name
    return {
        "client.id": client_id(settings.worker.id),
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


def static_name(settings: Settings) -> str | None:
    """Give the name under which the group keeps a worker's partitions while it restarts; None: it keeps none.

    Only the classic protocol: with the newer one a worker that comes back under its name is refused until the session
    of the one that was killed is over.
    """
    worker = settings.worker
    return worker.id if worker.has_name and settings.kafka.group_protocol == "classic" else None


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
) -> Producer:
    """Give the producer of a worker. `max_bytes`: how large a batch each output topic takes.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    return _made(Producer, transactional_producer_config(kafka, worker_id, max_bytes), logger)


def transactional_producer_config(kafka: Kafka, worker_id: str, max_bytes: Mapping[str, int]) -> dict[str, Any]:
    """Give the configuration of `transactional_producer`."""
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
        "transactional.id": f"{kafka.group}.{worker_id}",
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


def producer(kafka: Kafka) -> Producer:
    """Give the producer of events that `guardline produce` has.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    config = {
        "client.id": COMMAND,
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": 20,
        "message.timeout.ms": int(DELIVERY_S * 1000),
        **SILENT,
    }
    return _made(Producer, config)


def reader(kafka: Kafka, *, follow: bool) -> Consumer:
    """Give a consumer outside any group, which sees only what was committed and commits nothing.

    Without `follow` it reports the end of each partition.

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
        "enable.partition.eof": not follow,
        **({} if follow else {"fetch.wait.max.ms": int(TO_THE_END_S * 1000)}),
        **SILENT,
    }
    return _made(Consumer, config)


def onlooker(kafka: Kafka) -> Consumer:
    """Give a client that asks what the group has committed and never joins it. It sees no offset that is in doubt.

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
        **SILENT,
    }
    return _made(Consumer, config)


def admin(kafka: Kafka, *, logger: Logger | None = None, debug: str = "") -> AdminClient:
    """Give a client for questions about brokers, topics and groups. `debug` names librdkafka's contexts for `logger`.

    Raises:
        Misconfigured: librdkafka refuses the settings.
    """
    config: dict[str, Any] = {
        "client.id": COMMAND,
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        **({"debug": debug} if debug else SILENT),
    }
    return _made(AdminClient, config, logger)


def present_topics(
    client: AdminClient | Consumer | Producer, kafka: Kafka, answer_s: float = ANSWER_S
) -> dict[str, TopicMetadata]:
    """Give the topics by their names. Blocks for `answer_s` while brokers are silent, for less where none is reached.

    Raises:
        Unavailable: no broker answers.
        Misconfigured: the brokers refuse this client, or it refuses them.
    """
    deadline = time.monotonic() + answer_s
    while True:
        try:
            topics: dict[str, TopicMetadata] = client.list_topics(timeout=min(answer_s, LOOK_S)).topics
        except KafkaException as error:
            reason = _reason(kafka)
            if reason is not None or time.monotonic() >= deadline:
                sentence = f"kafka.bootstrap_servers: no Kafka answers at {kafka.bootstrap_servers!r}"
                raise causes.failure(sentence, reason or error.args[0]) from error
        else:
            return topics


def _reason(kafka: Kafka) -> KafkaError | None:
    """Say why no broker is reached, None where nothing is known: the call that failed says only that none was.

    Asks another client, because only one that has a callback for errors is told what its connections met.
    """
    met: list[KafkaError] = []
    callback: dict[str, Any] = {"error_cb": met.append}
    client = AdminClient({**kafka.properties, "bootstrap.servers": kafka.bootstrap_servers, **SILENT, **callback})
    with suppress(KafkaException):
        client.list_topics(timeout=REASON_S)
    client.poll(0)
    told = [one for one in met if one.code() != KafkaError._ALL_BROKERS_DOWN]
    # That one broker refuses says more than that another is away.
    return next((one for one in told if one.code() in causes.INCURABLE), told[-1] if told else None)


def client_id(worker_id: str) -> str:
    """Give the name by which brokers and Kafka's tools show a worker.

    librdkafka escapes nothing in its statistics: a quotation mark in the name would make them unreadable.
    """
    return re.sub(r"[^\w.:@-]", "_", worker_id, flags=re.ASCII)


def shows_debug(kafka: Kafka) -> bool:
    """Whether somebody asked for librdkafka's own debug lines."""
    return "debug" in kafka.properties


def _debug(kafka: Kafka, context: str) -> str:
    return ",".join(filter(None, (context, str(kafka.properties.get("debug", "")))))


_Client = TypeVar("_Client", AdminClient, Consumer, Producer)


def _made(make: type[_Client], config: dict[str, Any], logger: Logger | None = None) -> _Client:
    try:
        return make(config) if logger is None else make(config, logger=logger)
    except KafkaException as error:
        raise Misconfigured(f"kafka.properties: librdkafka refuses these settings: {error.args[0].str()}") from error
