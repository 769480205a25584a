"""What one Kafka thread reads and writes, and as which member of which group. The stages of the thread know no more."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from workers.core.holdings import AGGREGATES
from workers.settings import Batch, Commit, Kafka, Settings


@dataclass(frozen=True)
class Route:
    """The inputs, the outputs and the group of a Kafka thread.

    `inputs` and `outputs` map the name of each topic to its setting, such as `{"moderation.chat": "topics.inputs"}`, so
    that a sentence about a topic names the setting. A thread writes to no topic outside of `outputs`. Threads of one
    process have different groups: the group is a part of each name by which brokers and metrics tell them apart.
    """

    kafka: Kafka
    """Where Kafka is; `kafka.group` is the group of this thread."""
    worker_id: str
    """The name of this member: at most one thread of a group may have it."""
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    dead_letters: str
    """The topic, among `outputs`, for records that cannot be decoded and for outputs that are too large."""
    usage: str = ""
    """The topic, among `outputs`, for what the tenants used. Empty: none."""
    patterns: Sequence[str] = ()
    """Regular expressions of further input topics."""
    others: Collection[str] = ()
    """The topics of other workers, which match no pattern."""
    internal: tuple[str, ...] = ("__",)
    """How the names of further topics begin that match no pattern: those of Kafka itself, and of one worker alone."""
    is_static: bool = False
    """Whether the group keeps the partitions while this member restarts. Its id has to stay the same."""
    is_single: bool = False
    """Whether only one thread of the group may work: a newer one fences the others, whatever their ids."""
    batch: Batch = field(default_factory=Batch)
    """The water marks."""
    commit: Commit = field(default_factory=Commit)
    """When a transaction is due."""
    idle_poll_s: float = 0.1
    """How long a poll without uncommitted records lasts. A record may lie there until its end: the client waits for a
    full batch."""
    target_s: float = 30.0
    """How long a record may wait, for the metric `guardline_oldest_deadline_seconds`."""

    @property
    def group(self) -> str:
        """The consumer group."""
        return self.kafka.group

    @property
    def producer_id(self) -> str:
        """The last part of the transactional id: of two threads with the same one, the brokers fence the older."""
        return "single" if self.is_single else self.worker_id

    def is_input(self, topic: str) -> bool:
        """Say whether the thread reads this topic: it is named, or matches a pattern.

        The thread's own outputs, the topics of other workers and `internal` ones match no pattern.
        """
        if topic in self.inputs:
            return True
        is_excluded = topic in self.outputs or topic in self.others or topic.startswith(self.internal)
        return not is_excluded and any(re.match(pattern, topic) for pattern in self.patterns)

    def reading(self, topics: Sequence[str]) -> Route:
        """Give the same route with these input topics in the place of names and patterns."""
        return replace(self, inputs={topic: self.setting_of(topic) for topic in topics}, patterns=())

    def setting_of(self, topic: str) -> str:
        """Name the setting that has this topic. A topic that a pattern matches belongs to `topics.inputs`."""
        return self.inputs.get(topic) or self.outputs.get(topic) or INPUTS


INPUTS = "topics.inputs"


def of_moderation(settings: Settings) -> Route:
    """Give the route of the moderation worker."""
    topics = settings.topics
    outputs = {
        topics.verdicts: "topics.verdicts",
        topics.review: "topics.review",
        topics.dead_letters: "topics.dead_letters",
        **({topics.usage: "topics.usage"} if topics.usage else {}),
    }
    return Route(
        kafka=settings.kafka,
        worker_id=settings.worker.id,
        inputs=dict.fromkeys(topics.named, INPUTS),
        patterns=topics.patterns,
        others=[topic for topic in settings.all_topics if topic not in outputs and topic not in topics.named],
        internal=("__", f"{settings.kafka.group}.{AGGREGATES}-"),
        outputs=outputs,
        dead_letters=topics.dead_letters,
        usage=topics.usage,
        is_static=settings.worker.has_name,
        batch=settings.batch,
        commit=settings.commit,
        target_s=settings.worker.target_s,
    )
