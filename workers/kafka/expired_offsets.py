"""Warns at start that records will be judged a second time, because the group's committed offsets have expired."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._metadata import TopicMetadata

from workers.core.decide import verdict_id
from workers.core.records import Source, TopicPartition
from workers.errors import Misconfigured, Unavailable
from workers.kafka import clients
from workers.kafka.input_topics import matching
from workers.kafka.route import of_moderation
from workers.settings import Settings

log = structlog.get_logger(__name__)

ANSWER_S = 5.0

LAST = 20
"""How many offsets before the end of a verdict partition are read: transaction markers may follow the last record."""

AGAIN = (
    "the group has no committed offsets, but {topic} holds verdicts of this pipeline. Offsets expire when a group has "
    "had no member for the brokers' offsets.retention.minutes, 7 days by default. Everything that the input topics "
    "still hold is judged again, and the new verdicts get the same verdict_id as the old ones"
)


class _Position(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class _Verdict(msgspec.Struct):
    verdict_id: str
    event_id: str
    source: _Position


def warn(settings: Settings) -> None:
    """Log a warning if the group has no offsets although this pipeline has written verdicts before.

    Call it before the worker joins the group: its requests take some milliseconds, or seconds if brokers do not answer,
    and a member that does not poll would keep its partitions during that time. If the requests fail, it logs only that
    the check was not possible.
    """
    admin = clients.admin(settings.kafka)
    consumer = clients.onlooker(settings.kafka)
    try:
        present = clients.present_topics(admin, settings.kafka)
        if not _has_offsets(consumer, present, settings) and _has_verdicts(admin, present, settings):
            log.warning(AGAIN.format(topic=settings.topics.verdicts), group=settings.kafka.group)
    except (KafkaException, Misconfigured, Unavailable) as error:
        log.info("could not check whether the group's offsets have expired", error=str(error))
    finally:
        consumer.close()


def _has_offsets(consumer: Consumer, present: Mapping[str, TopicMetadata], settings: Settings) -> bool:
    topics = [topic for topic in matching(of_moderation(settings), present) if topic in present]
    inputs = [KafkaPartition(topic, n) for topic in topics for n in present[topic].partitions]
    return any(one.offset >= 0 for one in consumer.committed(inputs, ANSWER_S))


def _has_verdicts(admin: AdminClient, present: Mapping[str, TopicMetadata], settings: Settings) -> bool:
    topic = settings.topics.verdicts
    partitions = [KafkaPartition(topic, n) for n in (present[topic].partitions if topic in present else [])]
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's own
    ends = {
        one.partition: end.result().offset
        for one, end in admin.list_offsets(dict.fromkeys(partitions, latest), request_timeout=ANSWER_S).items()
    }
    unread = {n for n, end in ends.items() if end > 0}
    deadline = time.monotonic() + ANSWER_S
    reader = clients.reader(settings.kafka, follow=False)
    try:
        reader.assign([KafkaPartition(topic, n, max(0, ends[n] - LAST)) for n in unread])
        while unread and time.monotonic() < deadline:
            for message in reader.consume(500, clients.TO_THE_END_S):
                failure = message.error()
                if failure is None:
                    if _is_of(settings.worker.pipeline, message.value()):
                        return True
                elif failure.code() == KafkaError._PARTITION_EOF:
                    unread.discard(int(message.partition() or 0))
                else:
                    raise KafkaException(failure)
    finally:
        reader.close()
    return False


def _is_of(pipeline: str, value: bytes | None) -> bool:
    try:
        verdict = msgspec.json.decode(value or b"", type=_Verdict)
    except msgspec.DecodeError:
        return False
    position = verdict.source
    source = Source(TopicPartition(position.topic, position.partition), 0, position.offset)
    return verdict.verdict_id == verdict_id(pipeline, source, verdict.event_id)
