"""The settings of the gateway. Contradictions are refused here."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from schemas.event import MAX_ID_CHARS
from workers.settings import urls
from workers.settings.section import File, Section

NAME = "[A-Za-z0-9._@-]{1,64}"
"""The pattern of a name."""


class GatewayKey(Section):
    """A client of the gateway, and its tenant."""

    name: str
    """what the log calls the client, such as `shop-backend`"""
    tenant: str = Field(min_length=1, max_length=MAX_ID_CHARS)
    """the tenant whose policy decides on what the client sends"""
    file: Path
    """the absolute path of a file that holds the key, at least 32 characters. Each line is a valid key, so that a new
    one can replace an old one"""
    requests_per_minute: int | None = Field(None, ge=1)
    """replaces `gateway.requests_per_minute` for this client"""
    max_concurrent: int | None = Field(None, ge=1)
    """replaces `gateway.max_concurrent` for this client"""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise ValueError("gateway.keys: a name has letters, digits, dots, underscores, hyphens and @, at most 64")
        return name

    @field_validator("file")
    @classmethod
    def _check_file(cls, file: Path) -> Path:
        if not file.is_absolute():
            raise ValueError("gateway.keys: file has to be the absolute path of a file, such as /run/secrets/shop")
        return file


class Upstream(Section):
    """The model server for which the gateway is a proxy."""

    url: str = ""
    """a server with OpenAI's API, such as `http://vllm:8000`, without `/v1`. Empty: the gateway is no proxy"""
    key_file: File = None
    """the absolute path of a file that holds the key which the gateway sends to the server. The gateway never passes on
    the keys of its own clients"""
    ca_file: File = None
    """with `https`: the certificate authority, if it is your own"""
    connect_s: float = Field(5, gt=0)
    """how long the gateway waits for a connection"""
    read_s: float = Field(60, gt=0)
    """how long the gateway waits for the next part of an answer. Then the client gets an error"""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if url:
            try:
                urls.check_server(url)
            except ValueError as error:
                raise ValueError(f"gateway.upstream.url: {error}") from None
        return url.rstrip("/")

    @field_validator("key_file")
    @classmethod
    def _check_file(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_absolute():
            raise ValueError("gateway.upstream.key_file: has to be an absolute path, such as /run/secrets/upstream")
        return file


class Gateway(Section):
    """The gateway: see docs/gateway.md."""

    host: str = Field("127.0.0.1", min_length=1)
    """the address on which the gateway serves its API. Put a proxy with TLS in front of it"""
    port: int = Field(9480, ge=0, le=65_535)
    """0 takes any free port"""
    keys: list[GatewayKey] = []
    """who may use it: a list of objects with `name`, `tenant`, `file`, `requests_per_minute` and `max_concurrent`: see
    docs/gateway.md#keys"""
    open: str | None = Field(None, min_length=1, max_length=MAX_ID_CHARS)
    """a tenant: whoever reaches the port may use the gateway without a key, as this tenant. Only where `gateway.keys`
    is empty, and where the network lets nobody else in"""
    requests_per_minute: int | None = Field(None, ge=1)
    """how many requests a client may make in a minute; further ones get 429. None: as many as it wants"""
    max_concurrent: int = Field(64, ge=1)
    """how many requests of a client may be in flight, streams included; further ones get 429"""
    max_connections: int = Field(2_000, ge=1)
    """how many connections the gateway holds, of all clients together; further ones get 503"""
    max_body_bytes: int = Field(1_048_576, ge=1_024)
    """a larger request gets 413"""
    max_inputs: int = Field(256, ge=1)
    """the most texts in one request to `/v1/moderations`"""
    answer_s: float = Field(30, gt=0)
    """how long a request to `/v1/moderations` or `/v1/classify` waits for the engine. Then the answer is 503"""
    upstream: Upstream = Upstream()
    """the model server behind `/v1/chat/completions`, `/v1/completions` and `/v1/models`"""

    @model_validator(mode="after")
    def _check_keys(self) -> Gateway:
        twice = [name for name, count in Counter(key.name for key in self.keys).items() if count > 1]
        if twice:
            raise ValueError(f"gateway.keys: {', '.join(sorted(twice))} is there twice: give each client its own name")
        if self.keys and self.open is not None:
            raise ValueError(
                "gateway.keys and gateway.open are both set: with gateway.open the gateway asks nobody for a key; set "
                "one of the two"
            )
        return self
