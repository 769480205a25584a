"""Who uses the gateway: the client of a key, its tenant, and how much it may do."""

from __future__ import annotations

from typing import NamedTuple

import structlog

from workers.errors import Misconfigured
from workers.process.bearer import Bearers, TokenFile
from workers.settings import Gateway, GatewayKey

log = structlog.get_logger(__name__)

NO_KEYS = (
    "gateway.keys is empty, so nobody can use the gateway: name the clients, each with its tenant and a file that "
    "holds its key (docs/gateway.md#keys), or set gateway.open to a tenant to serve everybody who reaches the port"
)

LOCAL = ("127.0.0.1", "::1", "localhost")


class Caller(NamedTuple):
    """Who makes a request."""

    name: str
    tenant: str
    requests_per_minute: int | None
    max_concurrent: int


class Keys:
    """The clients of the gateway by their keys. Several keys may belong to one client, and share its limits."""

    def __init__(self, settings: Gateway) -> None:
        """Read the files of the keys.

        Raises:
            Misconfigured: there is no key and the gateway is not open, a file cannot be read, a key is too short, or
                two keys are equal.
        """
        if not settings.keys and settings.open is None:
            raise Misconfigured(NO_KEYS)
        self._anybody: Caller | None = None
        if settings.open is not None:
            self._anybody = Caller("anybody", settings.open, settings.requests_per_minute, settings.max_concurrent)
            if settings.host not in LOCAL:
                log.warning(
                    "gateway.open: everybody who reaches the port is served without a key",
                    host=settings.host,
                    tenant=settings.open,
                )
        self._callers = Bearers(
            "gateway.keys", [TokenFile(key.name, key.file, _caller(key, settings)) for key in settings.keys], "key"
        )

    def caller(self, authorization: str | None) -> Caller | None:
        """Give the client by the header `Authorization`; None if it has no valid key.

        An open gateway does not look at the header: clients of OpenAI's API always send one.
        """
        if self._anybody is not None:
            return self._anybody
        scheme, _, key = (authorization or "").partition(" ")
        return self._callers.owner(key.strip()) if scheme.lower() == "bearer" else None


def _caller(key: GatewayKey, settings: Gateway) -> Caller:
    return Caller(
        key.name,
        key.tenant,
        key.requests_per_minute or settings.requests_per_minute,
        key.max_concurrent or settings.max_concurrent,
    )
