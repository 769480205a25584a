"""Every setting, in sections. Contradictions are refused here."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from workers.settings import urls
from workers.settings.kafka_properties import why_refused
from workers.shown import without_passwords

CONFIG_FILE_VARIABLE = "GUARDLINE_CONFIG"


PATTERN = "^"
"""The beginning of an input topic that is a pattern, as in Kafka's own clients."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _check_topic(name: str) -> str:
    if name and not name.startswith(PATTERN) and not _TOPIC.fullmatch(name):
        raise ValueError(
            f"{without_passwords(repr(name))} is not the name of a topic: letters, digits, dots, underscores "
            "and hyphens, at most 249"
        )
    return name


def _refuse_empty(path: object) -> object:
    if path == "":
        raise ValueError("is empty: name a file, or leave this setting out")
    return path


File = Annotated[Path | None, BeforeValidator(_refuse_empty)]
"""A file, or none. An empty path would be the current folder."""


class Section(BaseModel):
    """A group of settings; unknown names are refused, because a mistyped setting is worse than none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Kafka(Section):
    """Where Kafka is and how the group behaves."""

    bootstrap_servers: str = Field("localhost:9092", min_length=1)
    group: str = Field("guardline-moderation", min_length=1)
    group_protocol: Literal["consumer", "classic"] = "classic"
    session_timeout_s: float = Field(10, ge=1)
    """How long the group waits for a worker that was killed. With `consumer` the broker has the last word."""
    max_poll_interval_s: float = Field(300, ge=5)
    transaction_timeout_s: float = Field(10, ge=2, le=299)
    """librdkafka takes no more: its `socket.timeout.ms` has to be longer, and 300 s is the most for that."""
    properties: dict[str, str | int | float | bool] = {}
    """Any other librdkafka property (SASL, TLS, ...), for consumer and producer alike."""

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
    """Names, and patterns: what begins with `^` is a regular expression for names."""
    verdicts: str = Field("moderation.verdicts", min_length=1)
    review: str = Field("moderation.review", min_length=1)
    dead_letters: str = Field("moderation.dead-letters", min_length=1)
    partitions: int = Field(6, ge=1)
    replication: int = Field(1, ge=1)
    retention_hours: float = Field(168, gt=0)

    @property
    def named(self) -> list[str]:
        """The input topics that are named."""
        return [name for name in self.inputs if not name.startswith(PATTERN)]

    @property
    def patterns(self) -> list[str]:
        """The patterns of input topics."""
        return [name for name in self.inputs if name.startswith(PATTERN)]

    @property
    def outputs(self) -> list[str]:
        """The topics that a worker writes."""
        return [self.verdicts, self.review, self.dead_letters]

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

    @field_validator("verdicts", "review", "dead_letters")
    @classmethod
    def _check_outputs(cls, name: str) -> str:
        return _check_topic(name)

    @model_validator(mode="after")
    def _check_names(self) -> Topics:
        both = set(self.inputs) & set(self.outputs)
        if both:
            raise ValueError(f"topics: {sorted(both)} are both read and written: the worker would feed itself")
        if len(set(self.outputs)) < len(self.outputs):
            raise ValueError(
                f"topics: verdicts, review and dead_letters have to be three topics, not {self.outputs}: a reader "
                "could not tell their records apart"
            )
        return self


class Events(Section):
    """What is taken as an event, and what of it travels to its verdict."""

    strict: bool = False
    """Whether a record that breaks the contract of events in anything is a dead letter."""
    max_bytes: int = Field(1_048_576, ge=1)
    """Of a record. As large as a topic's `max.message.bytes` allows by default, so that no record is too large."""
    max_text_chars: int = Field(65_536, ge=1_000)
    """Of a longer text the two ends are judged. About as much as the default of `guard.max_windows` can read."""
    mapping: File = None
    """A file that says how records of another shape become events; see docs/mapping.md."""
    on_empty_text: Literal["verdict", "skip"] = "verdict"
    carry_attributes: bool | list[str] = True
    """Which attributes a verdict has: all, none, or those that are named. A review item has all of them."""
    carry_headers: list[str] = ["traceparent", "tracestate"]
    """Which of a record's headers its verdict and review item have."""


class Redis(Section):
    """Deduplication and policies."""

    url: SecretStr = SecretStr("redis://localhost:6379/0")
    namespace: str = Field("guardline", min_length=1)
    timeout_s: float = Field(0.5, gt=0)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        try:
            urls.check_redis(url.get_secret_value())
        except ValueError as error:
            raise ValueError(f"redis.url: {error}") from None
        return url


class Dedup(Section):
    """What is remembered, and for how long. The memory bound is Redis's own `maxmemory`."""

    enabled: bool = True
    event_ttl_s: int = Field(86_400, ge=1)
    content_ttl_s: int = Field(86_400, ge=1)
    secret: SecretStr = SecretStr("")
    """Key of the content hash: without it nobody can find out from Redis who wrote a guessed text."""


class OpenAI(Section):
    """Servers of vLLM or SGLang."""

    urls: list[str] = []
    model: str | None = None
    """The name they serve it by; may be left out where they serve only one."""
    api_key: SecretStr = SecretStr("")
    ca_file: File = None
    cert_file: File = None
    """The certificate by which the servers know this worker, and its key if that is in a file of its own."""
    key_file: File = None
    timeout_s: float | None = Field(None, gt=0)
    """Of one request as a whole, its wait in the server's queue included; None as `request_timeout_s` says."""

    @property
    def request_timeout_s(self) -> float:
        """The time-out of a request: a hung server must leave an event's 30 s to two others, where there are others.

        The only server has all of it: at 40 prompts/s a third was too short for what waits in a server's own queue.
        """
        return self.timeout_s or (30 if len(self.urls) <= 1 else 10)

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, servers: list[str]) -> list[str]:
        for number, url in enumerate(servers, 1):
            try:
                urls.check_server(url)
            except ValueError as error:
                raise ValueError(f"guard.openai.urls: number {number} {error}") from None
        return servers

    @field_validator("api_key")
    @classmethod
    def _check_key(cls, api_key: SecretStr) -> SecretStr:
        key = api_key.get_secret_value().strip()
        if not (key.isascii() and key.isprintable()):
            # Never the key itself, which the client would print.
            raise ValueError("guard.openai.api_key: holds a character that is not printable ASCII")
        return SecretStr(key)


class Guard(Section):
    """The model, and the engine that runs it."""

    engine: Literal["ctranslate2", "transformers", "vllm", "openai"] = "ctranslate2"
    model: str = Field("guard-nano", min_length=1)
    mode: Literal["score", "generate"] = "score"
    """`score` reads the labels' log-probabilities; `generate` lets the model write, as its card does."""
    threads: int | None = Field(None, ge=1)
    max_windows: int = Field(8, ge=1)
    context_tokens: int = Field(2048, ge=64)
    window_tokens: int | None = Field(None, ge=32)
    """Tokens of one window of a long content; left out, as many as a prompt has room for."""
    vllm: dict[str, Any] = {}
    """vLLM's own engine arguments."""
    allow_remote_code: bool = False
    """Whether `vllm.trust_remote_code` may be set: it is refused unless it is said twice."""
    openai: OpenAI = OpenAI()

    @model_validator(mode="after")
    def _check_window(self) -> Guard:
        if self.window_tokens is not None and self.window_tokens > self.context_tokens:
            raise ValueError(
                f"guard.window_tokens ({self.window_tokens}) must be at most guard.context_tokens "
                f"({self.context_tokens}): a window is a part of a prompt. Leave it out to fill the prompt"
            )
        return self


class Batch(Section):
    """When a micro-batch closes, and how much may be under way."""

    max_count: int = Field(256, ge=1)
    max_tokens: int = Field(16_384, ge=1)
    max_age_s: float = Field(0.01, ge=0)
    in_flight: int = Field(4, ge=1)
    """Micro-batches at the engine at a time; left out, as many more as the engine asks for."""
    low_water: int = Field(4_000, ge=1)
    """Unfinished records above which intake takes next to nothing, and below which a paused one resumes."""
    high_water: int = Field(20_000, ge=1)
    """Uncommitted records, finished ones included, at which intake pauses."""

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
    max_age_s: float = Field(0.1, ge=0)


class Worker(Section):
    """This process."""

    id: str = Field(default_factory=lambda: secrets.token_hex(4), min_length=1)
    """Random where it is not set: then a worker that starts again is a new member of the group."""
    pipeline: str = Field("guardline", min_length=1)
    start_within_s: float = Field(60, ge=0)
    """How long a start waits for Kafka, its topics, Redis and model servers that are not there yet; 0: not at all."""
    grace_s: float = Field(25, ge=0)
    """After SIGTERM: how long what is under way may take. Stay below the supervisor's own grace period."""
    unavailable_after_s: float = Field(30, ge=0)
    """How long a judgement is retried before the tenant's `on_unavailable` decides."""
    hold_s: float = Field(600, ge=0)
    """The same for tenants whose `on_unavailable` is hold; then it is review."""
    engine_hangs_after_s: float = Field(300, gt=0)
    """An engine that is asked and answers nothing at all for so long ends the worker. One that is only slow would be as
    slow for the next owner."""

    @property
    def has_name(self) -> bool:
        """Whether `id` was set, so that the worker is the same one after a restart."""
        return "id" in self.model_fields_set


class Http(Section):
    """Where /livez, /readyz and /metrics are served; port 0 takes any free one."""

    host: str = Field("127.0.0.1", min_length=1)
    """Never empty: that would be all interfaces."""
    port: int = Field(9464, ge=0, le=65_535)


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
    redis: Redis = Redis()
    dedup: Dedup = Dedup()
    guard: Guard = Guard()
    batch: Batch = Batch()
    commit: Commit = Commit()
    worker: Worker = Field(default_factory=Worker)
    http: Http = Http()

    @model_validator(mode="after")
    def _check_patience(self) -> Settings:
        timeout_s, patience_s = self.guard.openai.request_timeout_s, self.worker.unavailable_after_s
        if len(self.guard.openai.urls) > 1 and timeout_s >= patience_s > 0:
            raise ValueError(
                f"guard.openai.timeout_s: {timeout_s:g} leaves no time to ask another server within "
                f"worker.unavailable_after_s ({patience_s:g}); a third of that lets three be asked"
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
        """Order the sources: flags, environment, file."""
        path = os.environ.get(CONFIG_FILE_VARIABLE)
        sources = [init_settings, env_settings]
        if path:
            sources.append(YamlConfigSettingsSource(settings_cls, yaml_file=Path(path)))
        return tuple(sources)
