"""Every setting, in sections; the larger ones have files of their own. Contradictions between them are refused here."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from workers.settings import redis_url, secret_files
from workers.settings.action_sections import Actions
from workers.settings.aggregate_sections import Aggregates
from workers.settings.event_sections import CloudEvents, Events, Language, Registry
from workers.settings.gateway_sections import Gateway
from workers.settings.guard_sections import Guard
from workers.settings.kafka_sections import Kafka, Topics
from workers.settings.review_sections import Review
from workers.settings.section import Section
from workers.settings.stream_sections import Streams

CONFIG_FILE_VARIABLE = "GUARDLINE_CONFIG"


SCHEMA_ID_HEADERS = ("__value_schema_id", "apicurio.value.contentid", "apicurio.value.globalid")
"""The headers with which serializers name the schema of a value, in lower case."""


class Redis(Section):
    """Deduplication and policies."""

    url: SecretStr = SecretStr("redis://localhost:6379/0")
    """a Redis or Valkey: `redis://HOST:PORT/DB`, `redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY/DB` or
    `redis+cluster://HOST:PORT,HOST:PORT`; see docs/configuration.md#redis-sentinel-and-cluster. With TLS, `rediss`
    replaces `redis`. In a user or password write `#` as `%23`, `/` as `%2F`, `:` as `%3A`, `?` as `%3F`, `@` as `%40`
    and `%` as `%25`"""
    namespace: str = Field("guardline", min_length=1)
    """the prefix of every key"""
    timeout_s: float = Field(0.5, gt=0)
    """how long deduplication waits for an answer from Redis"""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        try:
            redis_url.check(url.get_secret_value())
        except ValueError as error:
            raise ValueError(f"redis.url: {error}") from None
        return url


class Dedup(Section):
    """What is remembered, and for how long. The memory bound is Redis's own `maxmemory`."""

    enabled: bool = True
    """whether workers look up and store events and assessments in Redis. Policies are not affected"""
    event_ttl_s: int = Field(86_400, ge=1)
    """how long Redis keeps an event"""
    content_ttl_s: int = Field(86_400, ge=1)
    """how long Redis keeps an assessment"""
    secret: SecretStr = SecretStr("")
    """key of the content hash. Set it to the same value for all workers. Without it, anyone who can read Redis can test
    whether a guessed text was sent, and the worker logs a warning"""


class Privacy(Section):
    """Data of persons."""

    secret: SecretStr = SecretStr("")
    """the key of the pseudonyms by which Redis and reports name authors. Set it to the same value for all workers.
    Empty: the value of `dedup.secret`"""


class Batch(Section):
    """When a micro-batch closes, and how much may be in flight."""

    max_count: int = Field(256, ge=1)
    """the most events in a micro-batch"""
    max_tokens: int = Field(16_384, ge=1)
    """the most tokens in a micro-batch, estimated from the size of the records"""
    max_age_s: float = Field(0.01, ge=0)
    """how long the oldest event waits for others to fill its micro-batch"""
    in_flight: int = Field(4, ge=1)
    """how many micro-batches are at the engine at a time. If you do not set it, `vllm` on a GPU raises it to as many as
    keep the engine busy"""
    low_water: int = Field(4_000, ge=1)
    """at this number of unfinished records and above, intake takes one record every 10 ms; below it, a paused intake
    resumes. Must be below `batch.high_water`"""
    high_water: int = Field(20_000, ge=1)
    """intake pauses at this number of uncommitted records; finished records count too"""

    @model_validator(mode="after")
    def _check_marks(self) -> Batch:
        if self.low_water >= self.high_water:
            raise ValueError(
                "batch.low_water must be below batch.high_water, else intake pauses and resumes all the time"
            )
        return self


class Commit(Section):
    """When a transaction is due. Each costs a broker round trip or four, whatever it holds."""

    max_count: int = Field(5_000, ge=1)
    """a commit is due at this number of finished records"""
    max_age_s: float = Field(0.1, ge=0)
    """a commit is due when the oldest finished record is this old"""


class Worker(Section):
    """This process."""

    id: str = Field(default_factory=lambda: secrets.token_hex(4), min_length=1)
    """the last part of the transactional id. If you set it, and with `classic`, it is also the `group.instance.id`: the
    group keeps the worker's partitions while the worker restarts. Two workers of a group must not have the same id"""
    pipeline: str = Field("guardline", min_length=1)
    """part of each verdict's id. When an input topic was deleted and created again, stop the workers and change this
    setting"""
    start_within_s: float = Field(60, ge=0)
    """how long a start waits for Kafka, its topics, Redis, model servers and a Schema Registry that are not available
    yet; then exit code 1. Failed attempts and the waits between them count; the time to load a model does not. 0: do
    not wait"""
    grace_s: float = Field(25, ge=0)
    """after SIGTERM: how long the worker may take to finish the events in flight. Keep it below the supervisor's own
    grace period"""
    target_s: float = Field(30, gt=0)
    """How long an event may wait for its verdict, from Kafka's timestamp. The worker only measures this: the metric
    `guardline_oldest_deadline_seconds` says how much of it is left for the oldest event, for alerts and autoscalers."""
    unavailable_after_s: float = Field(30, ge=0)
    """how long the worker retries to judge an event, counted from the first attempt. Then the policy's `on_unavailable`
    decides"""
    hold_s: float = Field(600, ge=0)
    """replaces `worker.unavailable_after_s` for tenants whose `on_unavailable` is `hold`. After this time the decision
    is `review`"""
    engine_hangs_after_s: float = Field(300, gt=0)
    """if the engine has work and answers nothing for this time, the worker ends. Any answer counts, even for a part of
    a micro-batch. So a slow engine does not count as an engine that hangs. Keep it above the longest time between two
    answers, and above the engine's own timeouts. The worker also ends if one call has not returned for this time, and
    the engine has meanwhile answered 32 prompts for each content that it had when that call began"""

    @property
    def has_name(self) -> bool:
        """Whether `id` was set, so that the worker is the same one after a restart."""
        return "id" in self.model_fields_set


class Http(Section):
    """Where /livez, /readyz and /metrics are served; port 0 takes any free one."""

    # Never empty: the server would listen on all interfaces.
    host: str = Field("127.0.0.1", min_length=1)
    """the address on which the worker serves `/livez`, `/readyz` and `/metrics`; `0.0.0.0` for probes from other hosts
    """
    port: int = Field(9464, ge=0, le=65_535)
    """0 takes any free port. Two workers on one host need two ports"""


class Telemetry(Section):
    """What a worker tells of its work, besides metrics and logs."""

    traces: bool = False
    """whether a worker records traces with OpenTelemetry, with the extra `otel`. The variables `OTEL_*` say where they
    go: see docs/traces.md"""


class Settings(BaseSettings):
    """Every setting of a worker. `GUARDLINE_KAFKA__GROUP` is `kafka.group` in the file."""

    model_config = SettingsConfigDict(
        env_prefix="GUARDLINE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    events: Events = Events()
    cloudevents: CloudEvents = CloudEvents()
    registry: Registry = Registry()
    language: Language = Language()
    redis: Redis = Redis()
    dedup: Dedup = Dedup()
    privacy: Privacy = Privacy()
    guard: Guard = Guard()
    batch: Batch = Batch()
    commit: Commit = Commit()
    aggregates: Aggregates = Aggregates()
    worker: Worker = Field(default_factory=Worker)
    http: Http = Http()
    telemetry: Telemetry = Telemetry()
    actions: Actions = Actions()
    review: Review = Review()
    gateway: Gateway = Gateway()
    streams: Streams = Streams()

    @property
    def pseudonym_secret(self) -> str:
        """The secret of pseudonyms; empty if none is set."""
        return self.privacy.secret.get_secret_value() or self.dedup.secret.get_secret_value()

    @property
    def all_topics(self) -> list[str]:
        """All topics, besides those that only a pattern names."""
        return [*self.topics.all, *(endpoint.dead_letters for endpoint in self.actions.endpoints)]

    def retention_hours_of(self, topic: str) -> float:
        """Give the retention in hours that a new topic gets."""
        if topic == self.topics.stream_sessions and topic not in self.topics.retention:
            return max(24, 2 * (self.streams.max_age_s + self.streams.idle_s) / 3_600)
        return self.topics.retention_hours_of(topic)

    @model_validator(mode="after")
    def _check_undelivered(self) -> Settings:
        for endpoint in self.actions.endpoints:
            if endpoint.dead_letters in self.topics.all:
                raise ValueError(
                    f"actions.endpoints, {endpoint.name}: undelivered is {endpoint.dead_letters}, which a setting of "
                    "topics names too: name another topic"
                )
        return self

    @model_validator(mode="after")
    def _check_retention(self) -> Settings:
        unknown = sorted(self.topics.retention.keys() - set(self.all_topics))
        if unknown and not self.topics.patterns:
            raise ValueError(f"topics.retention: no setting names the topic {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _check_headers(self) -> Settings:
        names = {name: name.lower() for name in self.events.carry_headers}
        if schema_ids := [name for name, lower in names.items() if lower in SCHEMA_ID_HEADERS]:
            raise ValueError(
                f"events.carry_headers: {', '.join(schema_ids)} cannot be carried, because it names the schema of the "
                "event, which is not that of the verdict"
            )
        own = [name for name, lower in names.items() if lower.startswith("ce_") or lower == "content-type"]
        if self.cloudevents.write and own:
            raise ValueError(
                f"events.carry_headers: {', '.join(own)} cannot be carried with cloudevents.write, which writes "
                "headers of these names itself"
            )
        if self.cloudevents.write and self.registry.url and self.registry.framing == "prefix":
            raise ValueError(
                "registry.framing: prefix cannot be used with cloudevents.write, whose header content-type says that "
                "the value is JSON: set it to header, or to apicurio if the registry is Apicurio"
            )
        return self

    @model_validator(mode="after")
    def _check_timeout(self) -> Settings:
        timeout_s, retry_s = self.guard.openai.request_timeout_s, self.worker.unavailable_after_s
        if len(self.guard.openai.urls) > 1 and timeout_s >= retry_s > 0:
            raise ValueError(
                f"guard.openai.timeout_s: {timeout_s:g} leaves no time to ask another server within "
                f"worker.unavailable_after_s ({retry_s:g}); a third of that lets three be asked"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, environment, files that it names, the settings file."""
        path = os.environ.get(CONFIG_FILE_VARIABLE)
        files = (variable.source(settings_cls) for variable in secret_files.variables(settings_cls))
        sources: list[PydanticBaseSettingsSource] = [init_settings, secret_files.environment(settings_cls), *files]
        if path:
            sources.append(YamlConfigSettingsSource(settings_cls, yaml_file=Path(path)))
        return tuple(sources)
