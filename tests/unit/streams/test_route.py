"""Which topics of streams are refused at the start."""

from __future__ import annotations

import pytest

from workers.errors import Misconfigured
from workers.kafka.topic_settings import ANY_SIZE, FOREVER_MS, HOUR_MS, Keeping, wanted_of
from workers.settings import Settings, Streams
from workers.streams.route import check_keeping

SETTINGS = Settings.model_construct(streams=Streams(max_age_s=5_400, idle_s=1_800))


def keeping(policy: str = "delete", hours: float = 2, size: int = ANY_SIZE) -> Keeping:
    return Keeping(policy, int(hours * HOUR_MS), HOUR_MS, size)


@pytest.mark.parametrize(
    ("found", "is_log", "sentence"),
    [
        (keeping("compact"), True, "cleanup.policy=compact, which deletes all but the newest record of a stream"),
        (keeping("compact,delete"), True, "Set cleanup.policy=delete"),
        (keeping(hours=1.9), True, "keeps records for 1.9 hours, and a stream may live for 2"),
        (keeping("compact,delete", hours=1.9), False, "raise the topic's retention.ms"),
        (keeping(size=1_000_000), True, "larger than 1,000,000 bytes, also those of streams that are open"),
        (keeping("compact,delete", size=0), False, "set the topic's retention.bytes to -1"),
    ],
)
def test_a_topic_that_deletes_records_of_open_streams_is_refused(found: Keeping, is_log: bool, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence) as refused:
        check_keeping("topics.x: x", found, SETTINGS, is_log=is_log)
    assert str(refused.value).startswith("topics.x: x ")


@pytest.mark.parametrize(
    ("found", "is_log"),
    [
        (keeping(), True),
        (Keeping("delete", FOREVER_MS, HOUR_MS), True),
        (keeping("compact,delete"), False),
        (keeping("compact", hours=0, size=1), False),
    ],
)
def test_a_topic_that_keeps_what_open_streams_need_is_taken(found: Keeping, is_log: bool) -> None:
    check_keeping("topics.x: x", found, SETTINGS, is_log=is_log)


def test_topics_of_streams_are_made_without_a_limit_of_size_whatever_the_brokers_default() -> None:
    settings = Settings.model_construct()
    topics = settings.topics
    assert {topic: wanted_of(settings, topic).get("retention.bytes") for topic in topics.all} == {
        topic: "-1" if topic in (topics.streams, topics.stream_sessions) else None for topic in topics.all
    }
