"""The thread that asks the brokers keeps answering, whatever becomes of its client."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trustme
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from workers.errors import Unavailable
from workers.kafka import tokens
from workers.kafka.questions import Questions
from workers.settings import Kafka


def fail(_: AdminClient) -> None:
    raise KafkaException(KafkaError(KafkaError._TRANSPORT))


def test_a_certificate_that_is_missing_for_a_moment_does_not_end_the_thread(tmp_path: Path) -> None:
    """A client that failed is made again, which reads the files that the settings name."""
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(authority)
    properties = {"security.protocol": "SSL", "ssl.ca.location": str(authority)}
    questions = Questions(Kafka(bootstrap_servers="127.0.0.1:1", properties=properties))
    authority.unlink()
    with pytest.raises(KafkaException):
        questions.ask(fail).result(10)
    assert questions.ask(lambda admin: type(admin)).result(10)


def test_a_token_that_does_not_come_does_not_end_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes a client gets a token first."""
    has_token, asked = True, 0

    def fetch(_self: tokens.Provider, _config: str = "") -> tokens.Token:
        nonlocal asked
        asked += 1
        if not has_token:
            raise Unavailable("kafka.token_provider: no token")
        return "token", time.time() + 3_600

    monkeypatch.setattr(tokens.Provider, "fetch", fetch)
    questions = Questions(
        Kafka(
            bootstrap_servers="127.0.0.1:1",
            properties={"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "OAUTHBEARER"},
            token_provider="tests.token_functions:of_nobody",
        )
    )
    has_token, before = False, asked
    with pytest.raises(KafkaException):
        questions.ask(fail).result(10)
    assert questions.ask(lambda admin: type(admin)).result(10)
    assert asked > before
