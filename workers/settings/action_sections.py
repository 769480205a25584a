"""The settings of `guardline worker actions`: the endpoints that it calls. Contradictions are refused here."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from workers.settings import secret_files, urls
from workers.settings.coop_sections import CoopItems
from workers.settings.dsa_sections import Statements
from workers.settings.section import File, Section

Kind = Literal["verdict", "superseding", "signal", "review", "appeal"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\t -~]*")

OWN_HEADERS = frozenset(
    {"content-length", "content-type", "host", "transfer-encoding", "webhook-id", "webhook-signature"}
    | {"webhook-timestamp"}
)
"""The worker writes these headers itself."""


class Retry(Section):
    """When a call that failed is made again, and when a delivery is given up."""

    first_s: float = Field(1, gt=0)
    """how long the first wait may be; each further one is up to twice as long"""
    max_s: float = Field(300, gt=0)
    """how long a wait may be at most. A `Retry-After` of the endpoint may be longer, up to an hour"""
    give_up_after_s: float = Field(86_400, gt=0)
    """how long after its first attempt a delivery becomes a dead letter"""
    max_attempts: int = Field(6, ge=1)
    """after this many failed attempts a delivery becomes a dead letter. Only attempts count that failed while the
    endpoint accepted other deliveries: an endpoint that is down uses up no attempts"""

    @model_validator(mode="after")
    def _check_waits(self) -> Retry:
        if self.first_s > self.max_s:
            raise ValueError(f"retry.first_s ({self.first_s:g}) must not be above retry.max_s ({self.max_s:g})")
        return self


class Endpoint(Section):
    """One receiver of verdicts or signals."""

    name: str
    """the name in metrics, logs, the consumer group and the topic of dead letters: small letters, digits, hyphens"""
    url: SecretStr
    """where the calls go. Logs never show it, because its path may be a secret"""
    format: Literal["webhook", "coop", "dsa"] = "webhook"
    """`webhook`: one signed call for each delivery, by Standard Webhooks. `coop`: reports and appeals in Coop, for the
    kinds `review` and `appeal`. `dsa`: statements of reasons for the DSA Transparency Database, many in one call"""
    secret_files: list[str] = []
    """with `webhook`: the absolute paths of files that hold a secret each, as `whsec_` and 24 to 64 bytes in Base64.
    Each secret signs each call: to replace a secret, name the new file before the old one until the receiver knows the
    new secret. The worker reads changed files again within seconds"""
    kinds: list[Kind] = Field(["verdict", "superseding"], min_length=1)
    """`verdict`: verdicts of the guard. `superseding`: verdicts of people, which supersede others. `signal`: signals of
    the aggregates. `review`: items for the review queue; only `coop` gets their texts. `appeal`: items whose decision
    somebody appeals, only for `coop`"""
    decisions: list[Literal["allow", "review", "block"]] = Field(["review", "block"], min_length=1)
    """the decisions of verdicts that are delivered. A superseding verdict is delivered if its decision, or the one that
    it supersedes, is among them. Signals have no decision"""
    tenants: list[str] = []
    """the tenants whose verdicts and signals are delivered; empty: all"""
    concurrency: int = Field(16, ge=1, le=1_000)
    """how many calls are in flight at a time. Deliveries with the same key are never in flight together"""
    timeout_s: float = Field(10, gt=0)
    """how long one call may take, from the name of the host to the end of the answer"""
    retry: Retry = Retry()
    """when a call that failed is made again"""
    headers: dict[str, SecretStr] = {}
    """headers that each call has"""
    header_files: dict[str, str] = {}
    """headers whose values are in files, such as `Authorization`: the name, and the absolute path of the file. The
    worker reads changed files again within seconds"""
    allow_http: bool = False
    """whether `url` may begin with `http://`, so that calls are not encrypted"""
    allow_networks: list[str] = []
    """networks such as `10.1.0.0/16` that calls may go to although they are not public. Without them a name that
    resolves to a private, local or link-local address is refused"""
    ca_file: File = None
    """the certificate authority of the endpoint, if it is your own"""
    cert_file: File = None
    """the client certificate, if the endpoint requires one"""
    key_file: File = None
    """the key of the client certificate, if `cert_file` does not hold it"""
    coop: CoopItems | None = None
    """with `coop`: what items are called there, see docs/actions.md#coop"""
    statements: Statements | None = None
    """with `dsa`: what statements of reasons say, see docs/actions.md#statements-of-reasons"""
    undelivered: str = ""
    """the topic of the deliveries that were given up; empty: `moderation.undelivered.NAME`"""

    @property
    def dead_letters(self) -> str:
        """The topic of the deliveries that were given up."""
        return self.undelivered or f"moderation.undelivered.{self.name}"

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("has to be small letters, digits and hyphens, at most 40, as in trust-and-safety")
        return name

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        parts = urls.split(text, ("https", "http"), "https://platform.example/moderation")
        if not parts.hostname:
            raise ValueError("names no host, as in https://platform.example/moderation")
        if not _is_name(parts.hostname):
            raise ValueError("has a host that is no name: its parts between dots have 1 to 63 characters")
        if re.fullmatch(r"[0-9.]+", parts.hostname) and not _is_address(parts.hostname):
            raise ValueError("has a host that is neither a name nor an address: write an address as in 192.0.2.1")
        if "@" in parts.netloc:
            raise ValueError("holds a user: put the login into header_files, as the header Authorization")
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("holds a character that cannot stand in a URL: write it as % and two digits")
        return url

    @field_validator("secret_files")
    @classmethod
    def _check_secret_files(cls, files: list[str]) -> list[str]:
        for number, file in enumerate(files, 1):
            if not file.startswith("/"):
                raise ValueError(f"number {number} has to be the absolute path of a file that holds the secret")
        return files

    @field_validator("headers", "header_files")
    @classmethod
    def _check_headers(cls, headers: dict[str, SecretStr | str]) -> dict[str, SecretStr | str]:
        for name, value in headers.items():
            if not _HEADER.fullmatch(name):
                raise ValueError("a name is not that of an HTTP header, such as Authorization")
            if name.lower() in OWN_HEADERS:
                raise ValueError(f"{name} cannot be set: the worker writes this header itself")
            if isinstance(value, SecretStr) and not _VALUE.fullmatch(value.get_secret_value()):
                raise ValueError(f"{name} holds a character that is not printable ASCII")
            if isinstance(value, str) and not value.startswith("/"):
                raise ValueError(f"{name} has to be the absolute path of a file that holds the value")
        return headers

    @field_validator("allow_networks")
    @classmethod
    def _check_networks(cls, networks: list[str]) -> list[str]:
        for number, network in enumerate(networks, 1):
            try:
                ip_network(network)
            except ValueError:
                raise ValueError(f"number {number} {_network_fault(network)}") from None
        return networks

    @field_validator("undelivered")
    @classmethod
    def _check_undelivered(cls, topic: str) -> str:
        if topic and not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
            raise ValueError("is not the name of a topic: letters, digits, dots, underscores and hyphens, at most 249")
        return topic

    @model_validator(mode="after")
    def _check_endpoint(self) -> Endpoint:
        if self.url.get_secret_value().lower().startswith("http:") and not self.allow_http:
            raise ValueError("url begins with http://, and calls would not be encrypted: set allow_http")
        both = {name.lower() for name in self.headers} & {name.lower() for name in self.header_files}
        if both:
            raise ValueError(f"{', '.join(sorted(both))} is in headers and in header_files")
        if self.format == "webhook" and not self.secret_files:
            raise ValueError("secret_files is empty: calls would not be signed")
        set_headers = {name.lower() for name in (*self.headers, *self.header_files)}
        self._check_coop(set_headers)
        self._check_dsa(set_headers)
        if self.key_file and not self.cert_file:
            raise ValueError("key_file is set and cert_file is not: set both")
        return self

    def _check_coop(self, set_headers: set[str]) -> None:
        if (self.format == "coop") != (self.coop is not None):
            raise ValueError(
                "format is coop, and coop is not set" if self.coop is None else "coop is set, and format is not coop"
            )
        if self.format != "coop":
            if "appeal" in self.kinds:
                raise ValueError("kinds names appeal, which only the format coop can deliver")
            return
        if not {"review", "appeal"} >= set(self.kinds):
            raise ValueError("kinds: the format coop delivers only review and appeal")
        if "x-api-key" not in set_headers:
            raise ValueError("header_files names no file for X-API-KEY, the key of Coop's API")

    def _check_dsa(self, set_headers: set[str]) -> None:
        if (self.format == "dsa") != (self.statements is not None):
            raise ValueError(
                "format is dsa, and statements is not set"
                if self.statements is None
                else "statements is set, and format is not dsa"
            )
        if self.format != "dsa":
            return
        if not {"verdict", "superseding"} >= set(self.kinds) or "block" not in self.decisions:
            raise ValueError("the format dsa delivers only verdict and superseding, of the decision block")
        if "authorization" not in set_headers:
            raise ValueError("header_files names no file for Authorization, the token of the database's API")


class Actions(Section):
    """What `guardline worker actions` does with verdicts and signals: docs/actions.md."""

    endpoints: list[Endpoint] = []
    """the receivers of verdicts and signals; docs/actions.md#endpoints describes the settings of one. Each has its own
    consumer group, so that none waits for another"""
    max_waiting: int = Field(1_000, ge=10)
    """how many deliveries of one endpoint wait or are in flight, before the worker reads slowly for it. At ten times as
    many uncommitted records it reads no more: the rest stays in Kafka"""

    def endpoint(self, name: str) -> Endpoint | None:
        """Give the endpoint of this name, or None."""
        return next((one for one in self.endpoints if one.name == name), None)

    @field_validator("endpoints")
    @classmethod
    def _check_endpoints(cls, endpoints: list[Endpoint]) -> list[Endpoint]:
        values: tuple[tuple[str, Callable[[Endpoint], str]], ...] = (
            ("name", lambda one: one.name),
            ("undelivered", lambda one: one.dead_letters),
        )
        for field, value_of in values:
            seen: set[str] = set()
            for one in endpoints:
                if value_of(one) in seen:
                    raise ValueError(f"actions.endpoints: two endpoints have the {field} {value_of(one)}")
                seen.add(value_of(one))
        return endpoints


def _network_fault(text: str) -> str:
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        return "is not a network such as 10.1.0.0/16 or fd00:1::/32"
    return f"is {text}, whose host bits are set; did you mean {meant}?"


def _is_name(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def header_values(endpoint: Endpoint) -> dict[str, str]:
    """Give the headers of each call, those from files included.

    Raises:
        ValueError: a file cannot be read, or holds what cannot stand in a header. The sentence shows no value.
    """
    values = {name: value.get_secret_value() for name, value in endpoint.headers.items()}
    for name, file in endpoint.header_files.items():
        values[name] = secret_files.read(file)
        if not _VALUE.fullmatch(values[name]):
            raise ValueError(f"{file} holds a character that is not printable ASCII")
    return values
