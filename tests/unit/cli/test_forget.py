from __future__ import annotations

import json

import pytest

from workers import settings as settings_module
from workers.cli import forget
from workers.errors import Unavailable
from workers.kafka import membership
from workers.settings import Kafka


def test_an_endpoint_of_which_kafka_says_nothing_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is written then, so the table has to say what is known."""
    admins = []

    def members(kafka: Kafka, admin: object = None) -> list[str]:
        admins.append(admin)
        if kafka.group.endswith(".first"):
            raise Unavailable("kafka.group: no answer in time")
        return ["actions-0"]

    monkeypatch.setattr(membership, "members", members)
    endpoint = {"url": "https://platform.example", "secret_files": ["/nowhere/secret"]}
    endpoints = [{**endpoint, "name": "first"}, {**endpoint, "name": "second"}]
    monkeypatch.setenv("GUARDLINE_ACTIONS__ENDPOINTS", json.dumps(endpoints))
    assert list(forget._deliveries(settings_module.load())) == [
        ("worker actions, first", "not known: kafka.group: no answer in time"),
        ("worker actions, second", forget.RUNS),
    ]
    assert admins[0] is not None
    assert admins[0] is admins[1]
