"""The topics that a worker reads: the named ones, and those whose names match a pattern.

This module matches patterns itself instead of passing them to librdkafka. So both group protocols read the same topics,
every check knows their names, and a worker never reads its own outputs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import structlog
from confluent_kafka.admin import AdminClient

from workers import telemetry
from workers.errors import Unavailable
from workers.kafka import rights
from workers.kafka.questions import ANSWER_S, Questions, answer_of
from workers.kafka.route import INPUTS, Route

log = structlog.get_logger(__name__)

LEFT_OUT = (
    "topics that match topics.inputs are left out: this user may not read them. Give the user READ, and the worker "
    "reads them within seconds; or change the pattern"
)

EVERY_S = 5.0
"""How often the worker asks the brokers for new topics. The answer holds all topics of the cluster."""


def matching(route: Route, present: Collection[str]) -> list[str]:
    """Give the input topics: the named ones first, then those present whose names match a pattern, sorted.

    Raises:
        Unavailable: no topic is named, and none matches yet.
    """
    others = sorted(set(present) - set(route.inputs))
    found = [*route.inputs, *(name for name in others if route.is_input(name))]
    if not found:
        said = ", ".join(map(repr, route.patterns))
        raise Unavailable(f"{INPUTS}: no topic in Kafka matches {said} (output topics do not count)")
    return found


class Look(NamedTuple):
    """What the brokers have now: the topics to read, and those that match and that this user may not read."""

    inputs: list[str]
    unreadable: set[str]


class NewTopics:
    """Looks for topics that match a pattern and were not there before. Owned by the Kafka thread; never blocks.

    A topic that this user may not read is left out until the user may. A topic that was read once stays in the list:
    `TopicWatch` detects that it was deleted.
    """

    def __init__(self, route: Route, known: Sequence[str], questions: Questions) -> None:
        self._route = route
        self._unreadable_topics = telemetry.UNREADABLE_TOPICS.labels(route.group)
        self._known = list(known)
        self._questions = questions
        self._unreadable: set[str] = set()
        self._answer: Future[Look] | None = None
        self._asks_at = 0.0

    def look(self, now: float) -> list[str]:
        """Give all topics to read if some of them are new, else an empty list."""
        if not self._route.patterns:
            return []
        added: list[str] = []
        if self._answer is not None and self._answer.done():
            if (look := answer_of(self._answer)) is not None:
                self._leave_out(look.unreadable)
                added = [name for name in look.inputs if name not in self._known]
            self._answer = None
        elif self._answer is None and now >= self._asks_at:
            self._asks_at = now + EVERY_S
            known = frozenset(self._known)
            self._answer = self._questions.ask(lambda admin: _look(admin, self._route, known))
        if not added:
            return []
        log.info("reading new topics that match topics.inputs", topics=added)
        self._known += added
        return list(self._known)

    def _leave_out(self, unreadable: set[str]) -> None:
        self._unreadable_topics.set(len(unreadable))
        if new := unreadable - self._unreadable:
            log.warning(LEFT_OUT, topics=sorted(new))
        self._unreadable = unreadable


def _look(admin: AdminClient, route: Route, known: Collection[str]) -> Look:
    """Ask the brokers. Blocks for twice `ANSWER_S` at most."""
    inputs = [name for name in sorted(admin.list_topics(timeout=ANSWER_S).topics) if route.is_input(name)]
    unreadable = rights.unreadable(admin, [name for name in inputs if name not in known], ANSWER_S)
    return Look([name for name in inputs if name not in unreadable], unreadable)
