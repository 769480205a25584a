"""Makes the topics that a worker needs."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from workers.errors import Misconfigured
from workers.settings import Settings


def create(settings: Settings) -> tuple[list[str], list[str]]:
    """Create the topics; return the names of those made and of those that were there.

    Raises:
        Misconfigured: Kafka does not answer or refuses.
    """
    kafka, topics = settings.kafka, settings.topics
    admin = AdminClient({**kafka.properties, "bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    config = {"retention.ms": str(int(topics.retention_hours * 3_600_000))}
    wanted = [
        NewTopic(name, num_partitions=topics.partitions, replication_factor=topics.replication, config=config)
        for name in [*topics.inputs, *topics.outputs]
    ]
    made, present = [], []
    for name, future in admin.create_topics(wanted, operation_timeout=20).items():
        try:
            future.result(30)
            made.append(name)
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                present.append(name)
                continue
            where = f"kafka.bootstrap_servers {kafka.bootstrap_servers!r}"
            raise Misconfigured(f"topics: cannot create {name} at {where}: {cause.str()}") from error
    return made, present
