"""The topics that only the aggregates worker uses. It makes them, and checks that they fit to the verdict topic."""

from __future__ import annotations

from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.cimpl import NewTopic

from workers.errors import Misconfigured, Unavailable
from workers.kafka import causes, clients
from workers.kafka.clients import ANSWER_S
from workers.kafka.topic_settings import COMPACTED_WITHIN_MS, HOUR_MS
from workers.kafka.topics import find
from workers.settings import Settings


class Prepared(NamedTuple):
    """What the worker has to know of its topics.

    Attributes:
        group: the consumer group, with which the names of the internal topics begin.
        updates: verdicts on their way to the rows that count them.
        changelog: the rows.
        partitions: the number of partitions of the verdict topic and of the two.
        incarnation: a number that differs for a verdict topic that was deleted and made again.
        changelog_id: a number that differs for a changelog topic that was deleted and made again.
    """

    group: str
    updates: str
    changelog: str
    partitions: int
    incarnation: int
    changelog_id: int


def prepare(settings: Settings, answer_s: float = ANSWER_S) -> Prepared:
    """Make the internal topics that are not there. Blocks for little more than `answer_s` where no broker answers.

    Raises:
        Unavailable: Kafka does not answer, or a topic of the settings is not there.
        Misconfigured: Kafka refuses, or the numbers of partitions differ.
    """
    kafka, topics = settings.kafka, settings.topics
    group = f"{kafka.group}.aggregates"
    updates, changelog = f"{group}-updates", f"{group}-rows-changelog"
    admin = clients.admin(kafka)
    present = clients.present_topics(admin, kafka, answer_s)
    find([topics.verdicts, topics.signals, topics.forget], present)
    partitions = len(present[topics.verdicts].partitions)
    configs = {
        updates: {"retention.ms": str(int(topics.retention_hours_of(topics.verdicts) * HOUR_MS))},
        changelog: {"cleanup.policy": "compact", "max.compaction.lag.ms": str(COMPACTED_WITHIN_MS)},
    }
    missing = [name for name in configs if name not in present]
    wanted = [
        NewTopic(name, num_partitions=partitions, replication_factor=topics.replication, config=configs[name])
        for name in missing
    ]
    for name, future in admin.create_topics(wanted, operation_timeout=2 * answer_s).items() if wanted else ():
        try:
            future.result(3 * answer_s)
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if cause.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise causes.failure(
                    f"kafka.group: cannot create {name}", cause, needs=f"CREATE on topics that begin with {group}"
                ) from error
        except TimeoutError as error:
            raise Unavailable(f"kafka.group: cannot create {name}: no answer in time") from error
    if missing:
        present = clients.present_topics(admin, kafka, answer_s)
        find(missing, present)
    found = {name: len(present[name].partitions) for name in (updates, changelog)}
    if set(found.values()) != {partitions}:
        counts = " and ".join(f"{name} has {count}" for name, count in found.items())
        raise Misconfigured(
            f"topics.verdicts: {topics.verdicts} has {partitions} partitions, {counts}: they have to be equal, because "
            f"the rows of an author would be in two partitions. {remedy(topics.verdicts, group, *found)}"
        )
    ids = [
        _incarnation(admin, setting, name, answer_s)
        for setting, name in (("topics.verdicts", topics.verdicts), ("kafka.group", changelog))
    ]
    return Prepared(group, updates, changelog, partitions, *ids)


def remedy(verdicts: str, group: str, updates: str, changelog: str) -> str:
    """Say how rows are made again after the number of partitions has changed."""
    return (
        f"Stop all aggregates workers, delete {updates} and {changelog} and the consumer group {group}, empty "
        f"aggregates.folder, and start again: the worker then counts {verdicts} from its beginning"
    )


def _incarnation(admin: clients.Admin, setting: str, topic: str, answer_s: float) -> int:
    try:
        answer = admin.describe_topics(TopicCollection([topic]), request_timeout=2 * answer_s)[topic].result(answer_s)
    except KafkaException as error:
        raise causes.failure(
            f"{setting}: cannot describe {topic}", error.args[0], needs=f"DESCRIBE on {topic}"
        ) from error
    except TimeoutError as error:
        raise Unavailable(f"{setting}: cannot describe {topic}: no answer in time") from error
    # 31 bits are enough to tell two topics of one name apart.
    return int(answer.topic_id.get_least_significant_bits()) & 0x7FFFFFFF
