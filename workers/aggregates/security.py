"""Gives Faust's clients what `kafka.properties` says about security. They are aiokafka's, and know other names.

A property about security that has no counterpart is refused, so that no connection is less safe than it was meant.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from faust.auth import Credentials, OAuthCredentials, SASLCredentials, SSLCredentials

from workers.errors import Misconfigured
from workers.kafka import tokens
from workers.settings import Kafka

_SECURITY = ("enable.sasl.", "enable.ssl.", "https.", "sasl.", "security.", "ssl.")
"""The beginnings of the properties about security. All others tune librdkafka, and mean nothing to these clients."""

_KNOWN = frozenset(
    {
        "enable.ssl.certificate.verification",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.oauthbearer.config",
        "sasl.password",
        "sasl.username",
        "security.protocol",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.location",
        "ssl.key.password",
    }
)
_PASSWORDS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


def credentials_of(kafka: Kafka) -> Credentials | None:
    """Return the credentials of Faust's clients; None if the connections need none.

    Raises:
        Misconfigured: a property has no counterpart, or a file cannot be read.
    """
    properties = {name: str(value) for name, value in kafka.properties.items()}
    protocol = properties.get("security.protocol", "PLAINTEXT").upper()
    for name in properties:
        if name.startswith(_SECURITY) and name not in _KNOWN:
            raise _refused(name, f"it can be: {', '.join(sorted(_KNOWN))}")
    if protocol not in _PROTOCOLS:
        raise _refused("security.protocol", f"{protocol!r} is not one of {', '.join(_PROTOCOLS)}")
    context = _context(properties) if protocol.endswith("SSL") else None
    if not protocol.startswith("SASL_"):
        return None if context is None else SSLCredentials(context)
    mechanism = properties.get("sasl.mechanism", properties.get("sasl.mechanisms", ""))
    if mechanism == "OAUTHBEARER":
        if kafka.token_provider is None:
            raise _refused("sasl.mechanism", "OAUTHBEARER needs kafka.token_provider")
        provider = _Tokens(kafka.token_provider, properties.get("sasl.oauthbearer.config", ""))
        return OAuthCredentials(oauth_cb=provider, ssl_context=context)
    if mechanism not in _PASSWORDS:
        raise _refused("sasl.mechanism", f"{mechanism!r} is not one of {', '.join((*_PASSWORDS, 'OAUTHBEARER'))}")
    return SASLCredentials(
        username=properties.get("sasl.username"),
        password=properties.get("sasl.password"),
        mechanism=mechanism,
        ssl_context=context,
    )


def _refused(name: str, reason: str) -> Misconfigured:
    return Misconfigured(f"kafka.properties: the aggregates worker cannot use {name}: {reason}")


def _context(properties: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=properties.get("ssl.ca.location"), cadata=properties.get("ssl.ca.pem")
        )
    except (OSError, ssl.SSLError) as error:
        raise _refused("ssl.ca.location", f"its certificates cannot be read: {_said(error)}") from error
    algorithm = properties.get("ssl.endpoint.identification.algorithm", "https")
    if algorithm not in ("https", "none"):
        raise _refused("ssl.endpoint.identification.algorithm", f"{algorithm!r} is not one of https, none")
    context.check_hostname = algorithm == "https"
    if properties.get("enable.ssl.certificate.verification", "true").lower() in ("false", "0"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if (certificate := properties.get("ssl.certificate.location")) is not None:
        try:
            context.load_cert_chain(
                certificate, properties.get("ssl.key.location"), properties.get("ssl.key.password", "")
            )
        except (OSError, ssl.SSLError) as error:
            raise _refused(
                "ssl.certificate.location", f"the certificate or its key cannot be read: {_said(error)}"
            ) from error
    return context


def _said(error: OSError) -> str:
    return error.strerror or getattr(error, "reason", "") or type(error).__name__


class _Tokens(AbstractTokenProvider):
    """Asks the function of `kafka.token_provider`, in a thread: it may block."""

    def __init__(self, name: str, config: str) -> None:
        self._provider = tokens.provider(name)
        self._config = config
        self._provider.fetch(config)

    async def token(self) -> Any:
        """Return a token for the next connection."""
        return (await asyncio.to_thread(self._provider.fetch, self._config))[0]
