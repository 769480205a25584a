"""The settings of Kafka and of the topics. Contradictions are refused here."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from workers.settings import secret_files, urls
from workers.settings.kafka_properties import why_refused
from workers.settings.section import Section
from workers.shown import without_passwords

PATTERN = "^"
"""The beginning of an input topic that is a pattern, as in Kafka's own clients."""

YEAR_HOURS = 8_760

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _check_topic(name: str) -> str:
    if name and not name.startswith(PATTERN) and not _TOPIC.fullmatch(name):
        raise ValueError(
            f"{without_passwords(repr(name))} is not the name of a topic: letters, digits, dots, underscores "
            "and hyphens, at most 249"
        )
    return name


class Kafka(Section):
    """Where Kafka is and how the group behaves."""

    bootstrap_servers: str = Field("localhost:9092", min_length=1)
    """the brokers, as `HOST:PORT`, separated by commas"""
    group: str = Field("guardline-moderation", min_length=1)
    """the consumer group; also the first part of the transactional id"""
    group_protocol: Literal["consumer", "classic"] = "classic"
    """`classic` (with cooperative-sticky assignment), or `consumer`, the newer protocol: see
    docs/operations.md#which-group-protocol"""
    session_timeout_s: float = Field(10, ge=1)
    """how long the group waits for a killed worker before it gives the worker's partitions to others. At least 1, at
    most `kafka.max_poll_interval_s`; brokers allow 6 to 1800 by default. With `consumer` the worker
    requests this value from the brokers, which by default allow no less than 45 s
    (`group.consumer.min.session.timeout.ms`)"""
    max_poll_interval_s: float = Field(300, ge=5)
    """the longest time between two polls of the Kafka thread. After this time the group removes the worker. At least 5
    """
    # librdkafka's `socket.timeout.ms` has to be longer than this, and is at most 300 s.
    transaction_timeout_s: float = Field(10, ge=2, le=299)
    """how long a transaction may last, 2 to 299. After this time the broker aborts a transaction that a frozen worker
    left open"""
    properties: dict[str, str | int | float | bool] = {}
    """any other librdkafka property; it applies to the consumer, the producer and the admin client"""
    property_files: dict[str, str] = {}
    """properties whose values are in files, such as `sasl.password`: the name of the property, and the absolute path of
    its file. See docs/configuration.md#secrets-from-files"""
    token_provider: str | None = None
    """the function that returns tokens for the mechanism `OAUTHBEARER`, as `package.module:function`: see
    docs/configuration.md#tokens-from-a-function"""

    @field_validator("bootstrap_servers")
    @classmethod
    def _check_servers(cls, servers: str) -> str:
        if "@" in servers:
            raise ValueError(
                "kafka.bootstrap_servers: holds an `@`, and names only hosts and ports; a user and a password are "
                "sasl.username and sasl.password in kafka.properties"
            )
        urls.check_brokers(servers)
        return servers

    @model_validator(mode="before")
    @classmethod
    def _read_files(cls, data: Any) -> Any:
        files = data.get("property_files") if isinstance(data, dict) else None
        properties = data.get("properties", {}) if isinstance(files, dict) else None
        if not isinstance(files, dict) or not isinstance(properties, dict):
            return data
        read = {}
        for name, path in files.items():
            if name in properties:
                raise ValueError(f"kafka.property_files: {name!r} is in kafka.properties too: set one of the two")
            try:
                read[name] = secret_files.read(path)
            except ValueError as error:
                raise ValueError(f"kafka.property_files: {name!r}: {error}") from None
        return {**data, "properties": {**properties, **read}}

    @field_validator("properties")
    @classmethod
    def _refuse_what_breaks_a_guarantee(cls, properties: dict[str, Any]) -> dict[str, Any]:
        for name in properties:
            if reason := why_refused(name):
                raise ValueError(f"kafka.properties: {name!r} cannot be set: {reason}")
        return properties

    @field_validator("properties")
    @classmethod
    def _require_a_mechanism(cls, properties: dict[str, Any]) -> dict[str, Any]:
        protocol = str(properties.get("security.protocol", "")).upper()
        if protocol.startswith("SASL_") and not {"sasl.mechanism", "sasl.mechanisms"} & set(properties):
            raise ValueError(
                "kafka.properties: security.protocol requires a login and sasl.mechanism is not set: set it, such as "
                "PLAIN or SCRAM-SHA-512"
            )
        return properties

    @field_validator("token_provider")
    @classmethod
    def _check_function(cls, name: str | None) -> str | None:
        if name is not None and not _FUNCTION.fullmatch(name):
            raise ValueError("kafka.token_provider: has to name a function as package.module:function")
        return name

    @model_validator(mode="after")
    def _check_token_provider(self) -> Kafka:
        if self.token_provider is None:
            return self
        mechanism = self.properties.get("sasl.mechanism", self.properties.get("sasl.mechanisms"))
        protocol = str(self.properties.get("security.protocol", "")).upper()
        if mechanism != "OAUTHBEARER" or not protocol.startswith("SASL_"):
            raise ValueError(
                "kafka.token_provider: no client would ask for a token: in kafka.properties set security.protocol to "
                "SASL_SSL and sasl.mechanism to OAUTHBEARER"
            )
        if self.properties.get("sasl.oauthbearer.method") == "oidc":
            raise ValueError(
                "kafka.token_provider: sasl.oauthbearer.method is oidc, with which librdkafka gets the tokens itself: "
                "set one of the two"
            )
        return self

    @model_validator(mode="after")
    def _check_session(self) -> Kafka:
        if self.session_timeout_s > self.max_poll_interval_s:
            raise ValueError(
                f"kafka.session_timeout_s ({self.session_timeout_s:g}) must not be above kafka.max_poll_interval_s "
                f"({self.max_poll_interval_s:g}): the group would wait longer for a dead worker than for a silent one"
            )
        if 2 * self.transaction_timeout_s > self.max_poll_interval_s:
            raise ValueError(
                "kafka.max_poll_interval_s must be at least twice kafka.transaction_timeout_s: a commit and its abort "
                "come between two polls"
            )
        return self


class Topics(Section):
    """Names of the topics, and how `guardline topics create` makes them."""

    inputs: list[str] = Field(["moderation.chat", "moderation.comments"], min_length=1)
    """the topics that workers read; none may also be an output topic. An entry that begins with `^` is a regular
    expression, such as `^moderation\\..*`: see docs/configuration.md#input-topics-by-pattern"""
    verdicts: str = Field("moderation.verdicts", min_length=1)
    """one verdict for each decoded event; all topics must be different ones"""
    review: str = Field("moderation.review", min_length=1)
    """one item, with the text, for each verdict whose decision is `review`"""
    dead_letters: str = Field("moderation.dead-letters", min_length=1)
    """records that cannot be decoded, and records whose outputs are too large to write"""
    usage: str = "moderation.usage"
    """what each tenant used, by minute: see docs/usage.md. Empty: the worker writes no usage"""
    forget: str = Field("moderation.forget", min_length=1)
    """requests to delete what is held of an author: `guardline forget` writes them, see docs/privacy.md"""
    signals: str = Field("moderation.signals", min_length=1)
    """what `guardline worker aggregates` finds, such as an author over a threshold: see docs/aggregates.md"""
    review_commands: str = Field("moderation.review-commands", min_length=1)
    """what people and systems want of review items: `guardline worker review` writes and reads it"""
    review_state: str = Field("moderation.review-state", min_length=1)
    """the state of each review item. `guardline topics create` makes it a compacted topic"""
    audit: str = Field("moderation.audit", min_length=1)
    """who did what with a review item, without content and authors"""
    deliveries: str = Field("moderation.deliveries", min_length=1)
    """what became of each verdict and signal at each endpoint: see docs/actions.md"""
    streams: str = Field("moderation.streams", min_length=1)
    """the answers that `guardline worker streams` judges while they are written: see docs/streams.md. The key is the
    `stream_id`. Its retention must be longer than a stream may live (`streams.max_age_s`)"""
    stream_verdicts: str = Field("moderation.stream-verdicts", min_length=1)
    """one verdict for each record of `topics.streams` that can be decoded"""
    interventions: str = Field("moderation.interventions", min_length=1)
    """the streams that were cut, each once: a platform that shows answers reads it"""
    stream_sessions: str = Field("moderation.stream-sessions", min_length=1)
    """where each open stream begins, for the next owner of its partition. `guardline topics create` makes it a
    compacted topic that keeps records for a day, or for twice the longest life of a stream (`streams.max_age_s` and
    `streams.idle_s`) if that is more: a worker reads the whole topic whenever it gets partitions, also what was left
    behind by streams that nobody has ended"""
    partitions: int = Field(6, ge=1)
    """the number of partitions that `guardline topics create` gives a new topic"""
    replication: int = Field(1, ge=1)
    """the replication factor that `guardline topics create` gives a new topic; 3 in production"""
    retention_hours: float = Field(168, gt=0)
    """the retention that `guardline topics create` gives a new topic"""
    retention: dict[str, float] = {}
    """the retention in hours of single topics, by their names, where it is not `topics.retention_hours`, such as
    `{moderation.chat: 24}`. Without an entry, `topics.audit` has at least a year, and `topics.forget` the longest
    retention of the topics that hold texts or verdicts. `topics.stream_sessions` has its own"""

    @property
    def named(self) -> list[str]:
        """The input topics that are named."""
        return [name for name in self.inputs if not name.startswith(PATTERN)]

    @property
    def patterns(self) -> list[str]:
        """The patterns of input topics."""
        return [name for name in self.inputs if name.startswith(PATTERN)]

    @property
    def outcomes(self) -> list[str]:
        """The topics with the outcomes of records."""
        return [self.verdicts, self.review, self.dead_letters]

    @property
    def outputs(self) -> list[str]:
        """The topics that a worker writes."""
        return [*self.outcomes, *([self.usage] if self.usage else [])]

    @property
    def others(self) -> list[str]:
        """The topics that a moderation worker neither reads nor writes: every setting here that is a text names one."""
        of_moderation = {"verdicts", "review", "dead_letters", "usage"}
        return [topic for name, topic in self if isinstance(topic, str) and topic and name not in of_moderation]

    @property
    def all(self) -> list[str]:
        """All topics, besides those that only a pattern names."""
        return [*self.named, *self.outputs, *self.others]

    def is_compacted(self, topic: str) -> bool:
        """Whether a new topic keeps the newest record of each key, and no record for its age."""
        return topic == self.review_state

    def is_compacted_for_a_time(self, topic: str) -> bool:
        """Whether a new topic keeps the newest record of each key, and deletes it after the retention."""
        return topic == self.stream_sessions

    def holds_review_items(self, topic: str) -> bool:
        """Whether the records of a topic hold review items with what the review worker adds."""
        return topic in (self.review_state, self.review_commands)

    def retention_hours_of(self, topic: str) -> float:
        """Give the retention in hours that a new topic gets, besides that of sessions: see `Settings`."""
        default = self.retention_hours
        if topic == self.audit:
            default = max(default, YEAR_HOURS)
        elif topic == self.forget:
            # A worker that starts reads the requests for the sake of the older records that it may still read.
            older = {*self.named, self.verdicts, self.review}
            default = max([default, *(hours for name, hours in self.retention.items() if name in older)])
        return self.retention.get(topic, default)

    @field_validator("inputs")
    @classmethod
    def _check_patterns(cls, inputs: list[str]) -> list[str]:
        for name in inputs:
            try:
                re.compile(name if name.startswith(PATTERN) else "")
            except re.error as error:
                raise ValueError(f"topics.inputs: {name!r} is not a regular expression: {error}") from None
            try:
                _check_topic(name)
            except ValueError as error:
                raise ValueError(f"topics.inputs: {error}. A pattern begins with {PATTERN}") from None
        return inputs

    @field_validator("*")
    @classmethod
    def _check_topics(cls, value: object) -> object:
        return _check_topic(value) if isinstance(value, str) else value

    @field_validator("retention")
    @classmethod
    def _check_hours(cls, retention: dict[str, float]) -> dict[str, float]:
        for topic, hours in retention.items():
            if not 0 < hours < float("inf"):
                raise ValueError(f"topics.retention: {topic}: {hours:g} hours are not possible: give a number above 0")
        return retention

    @model_validator(mode="after")
    def _check_names(self) -> Topics:
        both = set(self.inputs) & {*self.outputs, *self.others}
        if both:
            raise ValueError(f"topics: {sorted(both)} are both read and written: the worker would feed itself")
        written = Counter([*self.outputs, *self.others])
        if twice := sorted(topic for topic, count in written.items() if count > 1):
            raise ValueError(
                f"topics: {', '.join(twice)} is named by two settings, which have to name different topics: a reader "
                "could not tell their records apart"
            )
        return self
