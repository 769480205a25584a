"""How long topics keep their records: what the settings want, what the brokers have, and the change of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from workers.errors import Unavailable
from workers.kafka import causes
from workers.kafka.clients import ANSWER_S
from workers.settings import Settings

HOUR_MS = 3_600_000

FOREVER_MS = -1
"""The `retention.ms` of a topic that deletes no record for its age."""

ANY_SIZE = -1
"""The `retention.bytes` of a topic that deletes no record for its size."""


COMPACTED_WITHIN_MS = 24 * HOUR_MS
"""A key's older records, which may hold a text that the newest record has lost, are gone after this time."""

SESSIONS_COMPACTED_WITHIN_MS = HOUR_MS
"""The same for the sessions of streams: a worker reads all of them whenever it gets a partition."""


MAX_BYTES = "max.message.bytes"

DEFAULT_BYTES = 1_048_588
"""Kafka's own `max.message.bytes`."""

STATE_BYTES = 131_072
"""What the state of a review item may hold besides the item: its history, decisions with notes, an appeal. Each new
decision adds one id, and the name of who decided. Where more is needed, the worker refuses the command with 413."""


class Keeping(NamedTuple):
    """How a topic keeps its records. Times in milliseconds. `retention_bytes` is that of a partition."""

    policy: str
    retention_ms: int
    segment_ms: int
    retention_bytes: int = ANY_SIZE

    @property
    def longest_ms(self) -> int | None:
        """The greatest age of a record, in milliseconds; None if the topic deletes none for its age.

        Brokers delete whole segments, when the newest record of the segment is too old: the oldest one is then older by
        as much time as the segment covers.
        """
        if "delete" not in self.policy or self.retention_ms == FOREVER_MS:
            return None
        return self.retention_ms + self.segment_ms


class Difference(NamedTuple):
    """A property of a topic that differs from what the settings want."""

    topic: str
    name: str
    present: str
    wanted: str


def state_bytes(item_bytes: int) -> int:
    """Give how large the state of a review item of this size may be: it has the attributes twice."""
    return 2 * item_bytes + STATE_BYTES


def limit_of(properties: Mapping[str, str]) -> int:
    """Give how large a record a topic with these properties takes."""
    return int(properties[MAX_BYTES])


def wanted_of(settings: Settings, topic: str, item_bytes: int = DEFAULT_BYTES) -> dict[str, str]:
    """Give the properties with which `guardline topics create` makes a topic.

    `item_bytes`: how large a record `topics.review` takes.
    """
    topics = settings.topics
    size = {MAX_BYTES: str(state_bytes(item_bytes))} if topics.holds_review_items(topic) else {}
    if topics.is_compacted(topic):
        return {"cleanup.policy": "compact", "max.compaction.lag.ms": str(COMPACTED_WITHIN_MS), **size}
    retention = {"retention.ms": str(int(settings.retention_hours_of(topic) * HOUR_MS)), **size}
    if topic in (topics.streams, topics.stream_sessions):
        # Not the default of the brokers: an open stream needs its records, however many come after them.
        retention["retention.bytes"] = str(ANY_SIZE)
    if topics.is_compacted_for_a_time(topic):
        within = {"max.compaction.lag.ms": str(SESSIONS_COMPACTED_WITHIN_MS)}
        return {"cleanup.policy": "compact,delete", **within, **retention}
    return retention


def keeping_of(admin: AdminClient, topics: Collection[str]) -> dict[str, Keeping]:
    """Ask how these topics, which exist, keep their records.

    Raises:
        Unavailable: no answer in time.
        Misconfigured: this user may not ask.
    """
    return {
        topic: Keeping(
            found["cleanup.policy"], int(found["retention.ms"]), int(found["segment.ms"]), int(found["retention.bytes"])
        )
        for topic, found in described(admin, topics).items()
    }


def differences(admin: AdminClient, settings: Settings, present: Collection[str]) -> list[Difference]:
    """Compare topics that exist with the settings. A topic that takes larger records than it has to does not differ.

    Raises: as `keeping_of`.
    """
    found = described(admin, present)
    review = settings.topics.review
    item_bytes = limit_of(found[review]) if review in found else DEFAULT_BYTES
    return [
        Difference(topic, name, properties[name], wanted)
        for topic, properties in found.items()
        for name, wanted in wanted_of(settings, topic, item_bytes).items()
        if properties[name] != wanted and not (name == MAX_BYTES and limit_of(properties) > int(wanted))
    ]


def alter(admin: AdminClient, found: Collection[Difference]) -> None:
    """Change the properties to what the settings want.

    Raises:
        Unavailable: no answer in time.
        Misconfigured: this user may not change them.
    """
    changes: dict[str, list[ConfigEntry]] = {}
    for one in found:
        entry = ConfigEntry(one.name, one.wanted, incremental_operation=AlterConfigOpType.SET)
        changes.setdefault(one.topic, []).append(entry)
    resources = [
        ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries) for topic, entries in changes.items()
    ]
    for resource, future in (admin.incremental_alter_configs(resources) if resources else {}).items():
        try:
            future.result(ANSWER_S)
        except KafkaException as error:
            raise causes.failure(
                f"topics: cannot change {resource.name}", error.args[0], needs=f"ALTER_CONFIGS on {resource.name}"
            ) from error
        except TimeoutError as error:
            raise Unavailable(f"topics: cannot change {resource.name}: no answer in time") from error


def described(admin: AdminClient, topics: Collection[str], asked: str = "") -> dict[str, dict[str, str]]:
    """Give the properties of topics that exist. `asked` ends the sentence about an answer that did not come.

    Raises: as `keeping_of`.
    """
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    found: dict[str, dict[str, str]] = {}
    for resource, future in (admin.describe_configs(resources) if resources else {}).items():
        try:
            entries = future.result(ANSWER_S)
        except KafkaException as error:
            raise causes.failure(
                f"topics: cannot read the settings of {resource.name}",
                error.args[0],
                needs=f"DESCRIBE_CONFIGS on {resource.name}",
            ) from error
        except TimeoutError as error:
            raise Unavailable(
                f"topics: cannot read the settings of {resource.name}: no answer in time{asked}"
            ) from error
        found[resource.name] = {name: str(entry.value) for name, entry in entries.items()}
    return found
