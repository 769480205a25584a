"""Which librdkafka properties cannot be passed through: each would break a guarantee, or is a setting of its own."""

import re

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
