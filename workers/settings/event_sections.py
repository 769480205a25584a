"""The settings of events: what is one, how outputs are marked, and what finds the language of a text."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from workers.settings import urls
from workers.settings.section import File, Section


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
