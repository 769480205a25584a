"""Every setting, in sections; those of Kafka are in `kafka_sections`. Contradictions are refused here."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from workers.settings import redis_url, secret_files, urls
from workers.settings.action_sections import Actions
from workers.settings.aggregate_sections import Aggregates
from workers.settings.kafka_sections import Kafka, Topics
from workers.settings.review_sections import Review
from workers.settings.section import File, Section

CONFIG_FILE_VARIABLE = "GUARDLINE_CONFIG"


class Events(Section):
    """What is taken as an event, and what of it travels to its verdict."""

    strict: bool = False
    """whether every record that breaks the contract of events becomes a dead letter"""
    max_bytes: int = Field(1_048_576, ge=1)
    """a larger record becomes a dead letter. By default a topic does not accept larger records; raise this setting
    together with the topic's `max.message.bytes`"""
    max_text_chars: int = Field(65_536, ge=1_000)
    """the worker judges only the beginning and the end of a text that is longer than this. At least 1000. With its
    default settings the guard cannot read much longer texts"""
    mapping: File = None
    """a file that says how records of another shape become events: see docs/mapping.md. The worker reads it at start. A
    relative path begins at the folder in which the worker is started"""
    on_empty_text: Literal["verdict", "skip"] = "verdict"
    """`verdict`: the verdict has the decision `allow` and the reason `empty`; `skip`: the event has no outcome"""
    carry_attributes: bool | list[str] = True
    """the attributes that a verdict has: `true` for all, `false` for none, or a list of names. A review item always has
    all"""
    similarity: bool = False
    """whether verdicts have a SimHash of the text, by which the aggregates worker finds nearly equal texts. Keyed by
    `dedup.secret`: see docs/similarity.md"""
    carry_headers: list[str] = ["traceparent", "tracestate"]
    """the record's headers that its verdict and its review item have"""


class CloudEvents(Section):
    """CloudEvents around events and outputs."""

    read: bool = False
    """whether a record may be a CloudEvent, in binary or structured mode: `ce_id` and `ce_time` then stand in for a
    missing `event_id` and `created_at`. See docs/contracts.md#cloudevents"""
    write: bool = False
    """whether verdicts, review items and usage have the headers of a CloudEvent in binary mode"""
    source: str = Field("/guardline", min_length=1, max_length=256)
    """the `ce_source` of outputs: a URI or a path that names this deployment"""

    @field_validator("source")
    @classmethod
    def _check_source(cls, source: str) -> str:
        if not re.fullmatch(r"[!-~]+", source) or any(mark in source for mark in '<>"{}|\\^`'):
            raise ValueError("cloudevents.source: is not a URI or a path, such as https://acme.example/moderation")
        return source


SCHEMA_ID_HEADERS = ("__value_schema_id", "apicurio.value.contentid", "apicurio.value.globalid")
"""The headers with which serializers name the schema of a value, in lower case."""


class Registry(Section):
    """A Schema Registry for the outputs."""

    url: str = ""
    """where the registry is, with the API of Confluent's Schema Registry (Apicurio: `http://HOST/apis/ccompat/v7`).
    Needs the extra `registry`. Empty: outputs have no schema id. See docs/contracts.md#schema-registry"""
    framing: Literal["header", "apicurio", "prefix"] = "header"
    """where verdicts, review items and usage have the id of their schema: `header` leaves the value plain JSON and adds
    the header `__value_schema_id`; `apicurio` does the same with Apicurio's header `apicurio.value.contentId`. `prefix`
    puts five bytes before the value, for readers that know no other form; it cannot be used with `cloudevents.write`"""
    auto_register: bool = True
    """whether a worker registers the schemas at its start. Otherwise they have to be registered already:
    `guardline schemas register` does it"""
    user: str = ""
    """the user at the registry, or the API key; empty: no login"""
    password: SecretStr = SecretStr("")
    """the password of `registry.user`, or the secret of the API key"""
    ca_file: File = None
    """the certificate authority of the registry, if it is your own"""
    timeout_s: float = Field(10, gt=0)
    """how long one request to the registry may take. All are made at the start of a worker"""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if "@" in url:
            raise ValueError("registry.url: holds an `@`: set registry.user and registry.password instead")
        try:
            if url:
                urls.check_server(url)
        except ValueError as error:
            raise ValueError(f"registry.url: {error}") from None
        return url

    @model_validator(mode="after")
    def _check_user(self) -> Registry:
        if self.password.get_secret_value() and not self.user:
            raise ValueError("registry.password is set and registry.user is not: set both")
        return self


_LANGUAGE = re.compile(r"[a-z]{2}")


class Language(Section):
    """The language of a text whose producer names none. Policies may have rules for a language."""

    detector: Literal["none", "lingua"] = "none"
    """what finds the language of an event that has none: `none`, or `lingua` (extra `language`). See
    docs/language.md"""
    candidates: list[str] = []
    """the languages that can be found, as two letters of ISO 639-1 (`[en, de, pt]`). Name those of your platform:
    fewer candidates give fewer errors and take less time and memory. Empty: all 75 that the detector knows"""
    min_margin: float = Field(0.3, ge=0, le=0.99)
    """how much more probable the best language has to be than the second one. Below that the language stays unknown"""
    max_chars: int = Field(100, ge=10, le=2_000)
    """how many characters of a text the detector reads. The time grows with them"""
    high_accuracy: bool = False
    """whether lingua uses its large models, which make fewer errors and need 4 to 10 times the time and memory"""

    @field_validator("candidates")
    @classmethod
    def _check_candidates(cls, candidates: list[str]) -> list[str]:
        for number, name in enumerate(candidates, 1):
            if not _LANGUAGE.fullmatch(name):
                raise ValueError(f"language.candidates: number {number} is not two letters of ISO 639-1, such as en")
        if len(set(candidates)) == 1:
            raise ValueError("language.candidates: one language only: every text would be found to be in it")
        return candidates


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


class OpenAI(Section):
    """Servers of vLLM or SGLang."""

    urls: list[str] = []
    """with `openai`: the URLs of the vLLM or SGLang servers"""
    model: str | None = None
    """the name under which the servers serve the model; optional where they serve only one"""
    api_key: SecretStr = SecretStr("")
    """the bearer token that the servers require. White space around it, such as the line break at the end of a file, is
    removed"""
    ca_file: File = None
    """with `https`: the certificate authority, if it is your own"""
    cert_file: File = None
    """the client certificate, if the servers require one"""
    key_file: File = None
    """the key of the client certificate, if `cert_file` does not hold it"""
    timeout_s: float | None = Field(None, gt=0)
    """timeout of one whole request, including its time in the server's queue. With several servers it must be below
    `worker.unavailable_after_s`; a third of `worker.unavailable_after_s` is best"""

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
    """`ctranslate2`, `vllm`, `openai` or `transformers`: see docs/engines.md"""
    model: str = Field("guard-nano", min_length=1)
    """the bundled model for trials, the folder of a checkpoint in the engine's format, or a model on the Hugging Face
    hub with its commit: `NAME@COMMIT`"""
    mode: Literal["score", "generate"] = "score"
    """`score` takes one forward pass for the severity. `generate` lets the model generate its answer, as the model card
    describes: slower, and without probabilities"""
    threads: int | None = Field(None, ge=1)
    """CPU threads of one forward pass"""
    max_windows: int = Field(8, ge=1)
    """at most this many windows of a long text are judged; the worst window counts"""
    context_tokens: int = Field(2048, ge=64)
    """the largest prompt in tokens, with the template. At least 64"""
    window_tokens: int | None = Field(None, ge=32)
    """the size of one window of a long text in tokens, from 32 to `guard.context_tokens`: see
    docs/guard.md#smaller-windows"""
    vllm: dict[str, Any] = {}
    """with `vllm`: vLLM's engine arguments, such as `tensor_parallel_size`"""
    allow_remote_code: bool = False
    """`true` permits `trust_remote_code` in `guard.vllm`, which is refused otherwise"""
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

    @property
    def pseudonym_secret(self) -> str:
        """The secret of pseudonyms; empty if none is set."""
        return self.privacy.secret.get_secret_value() or self.dedup.secret.get_secret_value()

    @property
    def all_topics(self) -> list[str]:
        """All topics, besides those that only a pattern names."""
        return [*self.topics.all, *(endpoint.dead_letters for endpoint in self.actions.endpoints)]

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
