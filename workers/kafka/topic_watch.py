"""Detects that an input topic was deleted, or deleted and created again, before anything else is committed.

A running consumer cannot distinguish the new topic from the old one: librdkafka continues at the old position, and
would silently skip the records of the new topic below it. Topic ids distinguish the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future
from logging import DEBUG
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from workers.core.records import TopicPartition
from workers.errors import Fatal
from workers.kafka.questions import ANSWER_S, Questions, answer_of

EVERY_S = 2.0
"""How often the worker asks the brokers for the ids. A topic counts as deleted after two such answers in a row."""

NO_ID = "A" * 22
"""An id of zeros: the topic is not known yet, or the brokers are too old for topic ids."""

MADE_AGAIN = (
    "{topic} was deleted and created again: its id changed from {before} to {now}. Nothing was committed since this "
    "was detected. The next start reads the records that it has now"
)

DELETED = (
    "{topic} was deleted: create it again (guardline topics create). The next start reads the records that it has "
    "then. Its records that were not committed yet have no verdict"
)


class ConsumerLog:
    """Takes the consumer's log, and reads in it what librdkafka reports nowhere else. Must not raise.

    librdkafka fetches by a topic's id, so the line about a new id comes before the first record of the new topic.
    """

    _CHANGED = re.compile(r"Topic (\S+) changed id from (\S+) to (\S+)")
    _RESET = re.compile(r"(\S+) \[(\d+)\]: offset reset \(at offset (\d+)\b")

    def __init__(self, *, shows_debug: bool = False) -> None:
        self._shows_debug = shows_debug
        self._log = structlog.get_logger("librdkafka")
        self.made_again: str | None = None
        """The sentence about a topic whose id changed."""
        self.resets: list[tuple[TopicPartition, int]] = []
        """Offsets that the consumer wanted to read and that do not exist."""

    def log(self, level: int, event: str, *args: Any) -> None:
        """Take one line: (level, format, facility, client's name, text)."""
        facility, text = (str(args[0]), str(args[-1])) if args else ("", event)
        if facility == "METADATA" and (found := self._CHANGED.search(text)):
            topic, before, now = found.groups()
            if NO_ID not in (before, now):
                self.made_again = MADE_AGAIN.format(topic=topic, before=before, now=now)
        elif facility == "OFFSET" and level > DEBUG and (found := self._RESET.search(text)):
            self.resets.append((TopicPartition(found[1], int(found[2])), int(found[3])))
        if level > DEBUG or self._shows_debug:
            self._log.log(level, event, *args)


class TopicWatch:
    """Asks for the ids of the input topics every `EVERY_S`. Owned by the Kafka thread, and never blocks."""

    def __init__(self, topics: Sequence[str], consumer_log: ConsumerLog, questions: Questions) -> None:
        self._topics = topics
        self._consumer_log = consumer_log
        self._questions = questions
        self._ids: dict[str, str] = {}
        self._missing: set[str] = set()
        self._answer: Future[dict[str, str | None]] | None = None
        self._asks_at = 0.0

    def watch(self, topics: Sequence[str]) -> None:
        """Ask for these topics from now on."""
        self._topics = topics

    def check(self, now: float) -> None:
        """Check the consumer's log and the last answer, and ask again when it is time.

        Raises:
            Fatal: a topic was deleted or created again. The worker must not commit any more.
        """
        if self._consumer_log.made_again is not None:
            raise Fatal(self._consumer_log.made_again)
        if self._answer is not None and self._answer.done():
            if (ids := answer_of(self._answer)) is not None:
                self._compare(ids)
            self._answer = None
        if self._answer is None and now >= self._asks_at:
            self._asks_at = now + EVERY_S
            self._answer = self._questions.ask(lambda admin: topic_ids(admin, self._topics))

    def _compare(self, ids: dict[str, str | None]) -> None:
        for topic, topic_id in ids.items():
            if topic_id is None and topic in self._missing:
                raise Fatal(DELETED.format(topic=topic))
            before = self._ids.get(topic)
            if topic_id is not None:
                if before is not None and before != topic_id:
                    raise Fatal(MADE_AGAIN.format(topic=topic, before=before, now=topic_id))
                self._ids[topic] = topic_id
        self._missing = {topic for topic, topic_id in ids.items() if topic_id is None}


def topic_ids(admin: AdminClient, topics: Sequence[str]) -> dict[str, str | None]:
    """Return the id of each topic, None for one that does not exist. A topic without an answer is left out.

    Blocks for `ANSWER_S` at most.
    """
    ids: dict[str, str | None] = {}
    for topic, answer in admin.describe_topics(TopicCollection(list(topics)), request_timeout=ANSWER_S).items():
        try:
            topic_id = str(answer.result().topic_id)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                ids[topic] = None
            continue
        if topic_id != NO_ID:
            ids[topic] = topic_id
    return ids
