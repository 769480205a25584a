"""What of `kafka.properties` reaches Faust's clients, and what is refused."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from faust.auth import Credentials, OAuthCredentials, SASLCredentials, SSLCredentials

from workers.aggregates.security import credentials_of
from workers.errors import Misconfigured
from workers.settings import Kafka

SASL = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "pw"}


def credentials(token_provider: str | None = None, **properties: Any) -> Credentials | None:
    dotted = {name.replace("__", "."): value for name, value in properties.items()}
    return credentials_of(Kafka(properties=dotted, token_provider=token_provider))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    client = ca.issue_cert("worker")
    client.private_key_pem.write_to_path(folder / "key.pem")
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return folder


def test_an_open_broker_needs_no_credentials() -> None:
    assert credentials() is None
    assert credentials(linger__ms=5, client__rack="a", socket__timeout__ms=1_000) is None, "librdkafka's tuning"


def test_a_login_over_tls_checks_the_name_of_the_broker(certificates: Path) -> None:
    found = credentials_of(Kafka(properties={**SASL, "ssl.ca.location": str(certificates / "ca.pem")}))
    assert isinstance(found, SASLCredentials)
    assert (found.username, found.password, found.mechanism.value) == ("u", "pw", "SCRAM-SHA-512")
    context = found.ssl_context
    assert context is not None
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert len(context.get_ca_certs()) == 1


def test_a_certificate_of_the_client_is_loaded(certificates: Path) -> None:
    properties: dict[str, str | int | float | bool] = {
        "security.protocol": "ssl",
        "ssl.ca.location": str(certificates / "ca.pem"),
        "ssl.certificate.location": str(certificates / "cert.pem"),
        "ssl.key.location": str(certificates / "key.pem"),
    }
    assert isinstance(credentials_of(Kafka(properties=properties)), SSLCredentials)
    with pytest.raises(Misconfigured, match=r"cannot use ssl\.certificate\.location"):
        credentials_of(Kafka(properties={**properties, "ssl.key.location": str(certificates / "ca.pem")}))


def test_checks_are_off_only_if_the_properties_say_so() -> None:
    found = credentials_of(
        Kafka(properties={"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"})
    )
    assert isinstance(found, SSLCredentials)
    assert (found.context.check_hostname, found.context.verify_mode) == (False, ssl.CERT_REQUIRED)
    off = credentials_of(Kafka(properties={"security.protocol": "SSL", "enable.ssl.certificate.verification": False}))
    assert isinstance(off, SSLCredentials)
    assert off.context.verify_mode == ssl.CERT_NONE


def test_tokens_come_from_the_function_of_the_settings() -> None:
    properties: dict[str, str | int | float | bool] = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.config": "scope=x",
    }
    name = "tests.unit.aggregates.tokens:token"
    found = credentials_of(Kafka(properties=properties, token_provider=name))
    assert isinstance(found, OAuthCredentials)
    assert asyncio.run(found.oauth_cb.token()) == "token for scope=x"


@pytest.mark.parametrize(
    ("properties", "sentence"),
    [
        ({**SASL, "ssl.crl.location": "/x"}, "cannot use ssl.crl.location"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"}, "'GSSAPI' is not one of PLAIN"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}, "needs kafka.token_provider"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere/ca.pem"}, "its certificates cannot be read"),
        ({"security.protocol": "TLS"}, "'TLS' is not one of PLAINTEXT"),
        ({"security.protocol": "SSL", "ssl.keystore.location": "/k.p12"}, "cannot use ssl.keystore.location"),
    ],
    ids=str,
)
def test_a_property_about_security_without_a_counterpart_is_refused(properties: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        credentials_of(Kafka(properties=properties))
    assert str(caught.value).startswith("kafka.properties: the aggregates worker cannot use ")
    assert sentence in str(caught.value)
    assert "pw" not in str(caught.value)
