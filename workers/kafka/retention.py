"""Counts records that were deleted before they were read: by retention, or by a person."""

from __future__ import annotations

import structlog
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from workers import telemetry
from workers.core.records import TopicPartition
from workers.kafka.questions import ANSWER_S

log = structlog.get_logger(__name__)


def count_unread(position: tuple[TopicPartition, int], admin: AdminClient) -> None:
    """Count and log the offsets from `position`, which was the next to read, to the first one that still exists.

    Does nothing if the log is shorter than that: its offsets went back, and the ledger detects this. Blocks for
    `ANSWER_S` at most.
    """
    origin, offset = position
    earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library's own
    (answer,) = admin.list_offsets({KafkaPartition(*origin): earliest}, request_timeout=ANSWER_S).values()
    place = f"{origin.topic}/{origin.partition}"
    try:
        first = answer.result().offset
    except KafkaException as error:
        log.error("records may have been deleted before they were read", partition=place, reason=error.args[0].str())
        return
    if first > offset:
        telemetry.DELETED_UNREAD.inc(first - offset)
        log.error(
            "records were deleted before they were read",
            partition=place,
            offsets=first - offset,
            first=offset,
            last=first - 1,
        )
