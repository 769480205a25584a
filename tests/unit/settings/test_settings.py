"""A wrong setting is refused with a sentence that names it, wherever it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.engines.openai import ATTEMPTS
from workers.errors import Misconfigured
from workers.settings import load


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("GUARDLINE_GURAD__ENGINE", "vllm", "GUARDLINE_GURAD__ENGINE: no such section (one of: kafka, "),
        ("GUARDLINE_KAFKA_GROUP", "mine", "a setting is GUARDLINE_SECTION__NAME"),
        ("GUARDLINE_GUARD__ENGIN", "vllm", "guard.engin: no such setting"),
        ("GUARDLINE_TOPICS__INPUTS", "chat,comments", "GUARDLINE_TOPICS__INPUTS: is no JSON; a list"),
        (
            "GUARDLINE_GUARD__OPENAI__URLS",
            "http://a",
            "GUARDLINE_GUARD__OPENAI__URLS: is no JSON; a list or map is JSON",
        ),
        (
            "GUARDLINE_KAFKA__PROPERTIES",
            "{'acks': 1}",
            "GUARDLINE_KAFKA__PROPERTIES: is no JSON; a list or map is JSON",
        ),
        ("GUARDLINE_HTTP__PORT", "abc", "http.port: Input should be a valid integer"),
        ("GUARDLINE_REDIS__URL", "user:pass-word@localhost", "redis.url: Redis URL must specify"),
        ("GUARDLINE_GUARD__OPENAI__API_KEY", "pass-word é", "guard.openai.api_key: holds a character that is not"),
        ("GUARDLINE_GUARD__OPENAI__API_KEY", "pass-word\nX: y", "guard.openai.api_key: holds a character that is not"),
        ("GUARDLINE_BATCH__LOW_WATER", "90000", "batch.low_water must be below batch.high_water"),
        ("GUARDLINE_TOPICS__VERDICTS", "moderation.chat", "the worker would feed itself"),
        (
            "GUARDLINE_TOPICS__REVIEW",
            "moderation.verdicts",
            "topics: verdicts, review and dead_letters have to be three",
        ),
        ("GUARDLINE_TOPICS__DEAD_LETTERS", "", "topics.dead_letters: String should have at least 1 character"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"acks": 1}', "kafka.properties: 'acks' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"request.required.acks": 1}', "'request.required.acks' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"auto.commit.enable": true}', "'auto.commit.enable' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"metadata.broker.list": "a:1"}', "'metadata.broker.list' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"default.topic.config": "x"}', "'default.topic.config' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"error_cb": "x"}', "'error_cb' cannot be set: it takes a function"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"on_delivery": "x"}', "'on_delivery' cannot be set: it takes a function"),
        ("GUARDLINE_HTTP_PORT", "9464", "a setting is GUARDLINE_SECTION__NAME"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured) as refused:
        load()
    assert sentence in str(refused.value)
    assert "pass-word" not in str(refused.value)


def test_several_servers_with_no_time_for_a_second_one_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_GUARD__OPENAI__TIMEOUT_S", "30")
    monkeypatch.setenv("GUARDLINE_GUARD__OPENAI__URLS", '["http://a"]')
    load()
    monkeypatch.setenv("GUARDLINE_GUARD__OPENAI__URLS", '["http://a", "http://b"]')
    with pytest.raises(Misconfigured, match=r"^guard\.openai\.timeout_s: 30 leaves no time to ask another server"):
        load()


def test_an_event_has_the_time_for_every_server_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load()
    assert settings.guard.openai.request_timeout_s == settings.worker.unavailable_after_s
    monkeypatch.setenv("GUARDLINE_GUARD__OPENAI__URLS", '["http://a", "http://b", "http://c"]')
    settings = load()
    assert ATTEMPTS * settings.guard.openai.request_timeout_s <= settings.worker.unavailable_after_s


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GUARDLINE_SERVICE_HOST", "10.0.0.1"),
        ("GUARDLINE_SERVICE_PORT_HTTP", "9464"),
        ("GUARDLINE_PORT", "tcp://10.0.0.1:9464"),
        ("GUARDLINE_MODERATION_SERVICE_HOST", "10.0.0.1"),
        ("GUARDLINE_MODERATION_SERVICE_PORT", "9464"),
        ("GUARDLINE_KAFKA_PORT", "tcp://10.0.0.1:9092"),
        ("GUARDLINE_MODERATION_PORT_9464_TCP", "tcp://10.0.0.1:9464"),
        ("GUARDLINE_MODERATION_PORT_9464_UDP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_says_of_its_services_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert load().http.port == 9464


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"kafka: [1, 2", "guardline.yaml, line 1, column 13: expected ',' or ']'"),
        (b"kafka: {group: a}\nkafka: {group: b}\n", "guardline.yaml, line 2, column 1: 'kafka' stands there twice"),
        (b"\xff\xfe\x00\xd8", "is not UTF-8"),
        (b"just text", "has to hold sections"),
        (b"- 1\n", "has to hold sections"),
        (b"kafka: 7\n", "kafka: is a section"),
        (b"kafka:\n", "kafka: is a section"),
        (b"kafak: {group: a}\n", "kafak: no such section"),
        (b"kafka: {grupp: a}\n", "kafka.grupp: no such setting"),
    ],
)
def test_a_wrong_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: bytes, sentence: str) -> None:
    file = tmp_path / "guardline.yaml"
    file.write_bytes(text)
    monkeypatch.setenv("GUARDLINE_CONFIG", str(file))
    with pytest.raises(Misconfigured) as refused:
        load()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_key_read_from_a_file_loses_the_end_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_GUARD__OPENAI__API_KEY", "secret\n")
    assert load().guard.openai.api_key.get_secret_value() == "secret"


@pytest.mark.parametrize("text", ["", "# nothing\n", "kafka: {group: mine}\n"])
def test_a_file_may_say_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    file = tmp_path / "guardline.yaml"
    file.write_text(text)
    monkeypatch.setenv("GUARDLINE_CONFIG", str(file))
    assert load().kafka.group in ("mine", "guardline-moderation")
