"""The settings of the gateway. Contradictions are refused here."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from schemas.event import MAX_ID_CHARS
from workers.settings.section import Section
from workers.settings.upstream_sections import Proxy, Upstream

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
    write_s: float = Field(60, gt=0)
    """how long a client may take nothing of its answer while bytes wait for it. Then the gateway ends the connection,
    at the latest after twice this time"""
    max_body_bytes: int = Field(1_048_576, ge=1_024)
    """a larger request gets 413"""
    max_inputs: int = Field(256, ge=1)
    """the most texts in one request to `/v1/moderations`, and the most completions in one to `/v1/reward`"""
    answer_s: float = Field(30, gt=0)
    """how long a request waits for `guard.model`. Then the answer is 503"""
    guard_routes: bool = True
    """whether the gateway serves `/v1/moderations`, `/v1/classify`, `/v1/modelspecs` and `/v1/reward`. If not, it does
    not load `guard.model`, and is only the proxy"""
    upstream: Upstream = Upstream()
    """the model server behind `/v1/chat/completions`, `/v1/completions` and `/v1/models`"""
    proxy: Proxy = Proxy()
    """how the answers of the model server are judged"""
    publish: bool = False
    """whether the gateway writes what it decided about the answers of the model server to `topics.stream_verdicts` and
    `topics.interventions`. Then it needs Kafka at its start; later it answers also without"""

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
        if not (self.guard_routes or self.upstream.url):
            raise ValueError(
                "gateway.guard_routes is false, and gateway.upstream.url is not set: the gateway would serve nothing; "
                "set one of the two"
            )
        if self.publish and not self.upstream.url:
            raise ValueError(
                "gateway.publish is set, and gateway.upstream.url is not: without a model server there is nothing to "
                "publish"
            )
        if self.keys and self.upstream.pass_authorization:
            raise ValueError(
                "gateway.upstream.pass_authorization and gateway.keys are both set: the model server would get the "
                "keys of the gateway; use gateway.upstream.key_file"
            )
        if self.upstream.key_file is not None and self.upstream.pass_authorization:
            raise ValueError(
                "gateway.upstream.key_file and gateway.upstream.pass_authorization are both set: the model server gets "
                "one key; set one of the two"
            )
        return self
