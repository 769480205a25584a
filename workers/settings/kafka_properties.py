"""Which librdkafka properties cannot be passed through, and the values of which may be shown.

Those that cannot be passed through would break a guarantee, or are settings of their own.
"""

import re
from collections.abc import Mapping

_OWNED = {
    "enable.auto.commit": "offsets are committed only inside the transaction that holds the verdicts",
    "auto.commit.enable": "offsets are committed only inside the transaction that holds the verdicts",
    "enable.auto.offset.store": "offsets are committed only inside the transaction that holds the verdicts",
    "isolation.level": "read_committed also makes a new owner wait for offsets in doubt",
    "transactional.id": "it is made from the group and the worker id",
    "enable.idempotence": "a transaction needs the idempotent producer",
    "acks": "a transaction needs all in-sync replicas",
    "request.required.acks": "a transaction needs all in-sync replicas",
    "max.in.flight": "order within a key would be lost",
    "max.in.flight.requests.per.connection": "order within a key would be lost",
    "group.id": "set kafka.group",
    "group.protocol": "set kafka.group_protocol",
    "group.instance.id": "it is worker.id, where that is set",
    "session.timeout.ms": "set kafka.session_timeout_s",
    "heartbeat.interval.ms": "it follows kafka.session_timeout_s",
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "metadata.broker.list": "set kafka.bootstrap_servers",
    "partition.assignment.strategy": "the ledger counts on cooperative-sticky",
    "delivery.report.only.error": "only failures are needed, and every failure is",
    "allow.auto.create.topics": "a mistyped topic would swallow verdicts",
    "auto.offset.reset": "latest would lose what came before the first commit; commit a start position instead",
    "transaction.timeout.ms": "set kafka.transaction_timeout_s",
    "message.timeout.ms": "it has to stay below the transaction's timeout",
    "delivery.timeout.ms": "it has to stay below the transaction's timeout",
    "max.poll.interval.ms": "set kafka.max_poll_interval_s",
    "default.topic.config": "set the properties that it holds by themselves",
    "partitioner": "outputs have to fall on the partition that Java producers would choose",
    "log_level": "the worker reads in its clients' logs what they say nowhere else",
    "log.connection.close": "the worker reads in its clients' logs what they say nowhere else",
    "statistics.interval.ms": "the worker reads the statistics itself, to see that its client still knows brokers",
    "enable.partition.eof": "end-of-partition notices would be taken for errors",
}

_CODE = re.compile(r".*_cb|on_delivery|on_commit|logger")
"""Properties of the client that take a function."""


def why_refused(name: str) -> str | None:
    """Say why a property cannot be set; None where it can."""
    return "it takes a function" if _CODE.fullmatch(name) else _OWNED.get(name)


HARMLESS = frozenset(
    """
    api.version.fallback.ms api.version.request api.version.request.timeout.ms
    auto.commit.interval.ms batch.num.messages batch.size broker.address.family broker.address.ttl
    broker.version.fallback check.crcs client.dns.lookup client.id client.rack compression.codec compression.level
    compression.type connections.max.idle.ms coordinator.query.interval.ms debug enable.metrics.push
    enable.random.seed enable.sasl.oauthbearer.unsecure.jwt enable.ssl.certificate.verification enabled_events
    fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes fetch.min.bytes fetch.queue.backoff.ms
    fetch.wait.max.ms internal.termination.signal linger.ms log.queue log.thread.name max.partition.fetch.bytes
    message.copy.max.bytes message.max.bytes message.send.max.retries metadata.max.age.ms
    metadata.recovery.rebootstrap.trigger.ms metadata.recovery.strategy offset.store.method queue.buffering.max.kbytes
    queue.buffering.max.messages queue.buffering.max.ms queued.max.messages.kbytes queued.min.messages
    queuing.strategy receive.message.max.bytes reconnect.backoff.jitter.ms reconnect.backoff.max.ms
    reconnect.backoff.ms request.timeout.ms retries retry.backoff.max.ms retry.backoff.ms
    sasl.kerberos.min.time.before.relogin sasl.mechanism sasl.mechanisms sasl.oauthbearer.method security.protocol
    socket.blocking.max.ms socket.connection.setup.timeout.ms socket.keepalive.enable socket.max.fails
    socket.nagle.disable socket.receive.buffer.bytes socket.send.buffer.bytes socket.timeout.ms
    ssl.ca.certificate.stores ssl.ca.location ssl.certificate.location ssl.cipher.suites ssl.crl.location
    ssl.curves.list ssl.endpoint.identification.algorithm ssl.key.location ssl.keystore.location ssl.sigalgs.list
    sticky.partitioning.linger.ms topic.metadata.propagation.max.ms topic.metadata.refresh.fast.interval.ms
    topic.metadata.refresh.interval.ms topic.metadata.refresh.sparse
    """.split()  # noqa: SIM905 - a literal would be four times as long
)
"""The only properties whose values are shown: numbers, switches, names and paths. A list of secret ones would miss the
next one that librdkafka gets."""


MIN_HIDDEN = 3


def hidden_values(properties: Mapping[str, object]) -> list[str]:
    """Return the values that must not be shown, of a client's configuration or of `kafka.properties`.

    Without those of `MIN_HIDDEN` characters or less: no secret is as short, and a digit may be in any sentence.
    """
    return [
        str(value)
        for name, value in properties.items()
        if name not in HARMLESS and why_refused(name) is None and len(str(value)) > MIN_HIDDEN
    ]
