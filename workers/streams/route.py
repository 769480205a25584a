"""The Kafka side of the streams worker: its group, its inputs and its outputs. The command line uses it too."""

from __future__ import annotations

from workers.errors import Misconfigured
from workers.kafka import clients
from workers.kafka.route import Route
from workers.kafka.topic_settings import HOUR_MS, Keeping, keeping_of
from workers.settings import Commit, Settings

COMMIT_AGE_S = 0.02
IDLE_POLL_S = 0.01
"""Somebody reads the answer while it is written, so a verdict does not wait for others, nor for the end of an idle
poll."""


def of_streams(settings: Settings) -> Route:
    """Give the route of the streams worker. Its group is `KAFKA.GROUP.streams`."""
    topics = settings.topics
    return Route(
        kafka=settings.kafka.model_copy(update={"group": f"{settings.kafka.group}.streams"}),
        worker_id=settings.worker.id,
        inputs={topics.streams: "topics.streams"},
        outputs={
            topics.stream_verdicts: "topics.stream_verdicts",
            topics.interventions: "topics.interventions",
            topics.stream_sessions: "topics.stream_sessions",
            topics.dead_letters: "topics.dead_letters",
        },
        dead_letters=topics.dead_letters,
        is_static=settings.worker.has_name,
        batch=settings.batch,
        commit=Commit(max_count=settings.commit.max_count, max_age_s=min(COMMIT_AGE_S, settings.commit.max_age_s)),
        idle_poll_s=IDLE_POLL_S,
        target_s=settings.worker.target_s,
    )


def check_retention(settings: Settings) -> None:
    """Check that a new owner finds every open stream, and all its records. Blocks.

    Raises:
        Unavailable: no answer in time.
        Misconfigured: a topic deletes records earlier than a stream may end, or this user may not ask.
    """
    topics = settings.topics
    keepings = keeping_of(clients.admin(settings.kafka), [topics.streams, topics.stream_sessions])
    check_keeping(f"topics.streams: {topics.streams}", keepings[topics.streams], settings, is_log=True)
    check_keeping(f"topics.stream_sessions: {topics.stream_sessions}", keepings[topics.stream_sessions], settings)


def check_keeping(where: str, keeping: Keeping, settings: Settings, *, is_log: bool = False) -> None:
    """Check how one topic keeps its records. `is_log`: a new owner needs all records of a key.

    Raises:
        Misconfigured: the topic deletes records of streams that may still be open.
    """
    age_ms = (settings.streams.max_age_s + settings.streams.idle_s) * 1000
    if is_log and "compact" in keeping.policy:
        raise Misconfigured(
            f"{where} has cleanup.policy={keeping.policy}, which deletes all but the newest record of a stream: "
            "the next owner of a partition could not read its streams again. Set cleanup.policy=delete"
        )
    if "delete" not in keeping.policy:
        return
    if 0 <= keeping.retention_ms < age_ms:
        raise Misconfigured(
            f"{where} keeps records for {keeping.retention_ms / HOUR_MS:g} hours, and a stream may live for "
            f"{age_ms / HOUR_MS:g} (streams.max_age_s + streams.idle_s): raise the topic's retention.ms, or lower "
            "one of the settings"
        )
    if keeping.retention_bytes >= 0:
        raise Misconfigured(
            f"{where} deletes records as soon as a partition is larger than {keeping.retention_bytes:,} bytes, also "
            "those of streams that are open: set the topic's retention.bytes to -1, and limit its size by retention.ms"
        )
