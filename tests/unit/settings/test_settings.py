"""A wrong setting is refused with a sentence that names it, wherever it was written."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from workers.engines.openai import ATTEMPTS
from workers.errors import Misconfigured
from workers.settings import Settings, Streams, Topics, load
from workers.settings.table import rows


def test_the_audit_is_kept_for_a_year_and_requests_to_forget_as_long_as_what_they_cover() -> None:
    topics = Topics(retention={"moderation.chat": 24, "moderation.verdicts": 2_000})
    kept = [topics.retention_hours_of(name) for name in ("moderation.chat", topics.review, topics.forget, topics.audit)]
    assert kept == [24, 168, 2_000, 8_760]
    assert Topics(retention={"moderation.audit": 48}).retention_hours_of("moderation.audit") == 48


def test_sessions_of_streams_are_kept_for_a_day_or_twice_the_longest_life_of_a_stream() -> None:
    topic = Topics().stream_sessions
    long = Streams(max_age_s=20 * 3_600, idle_s=3_600)
    kept = [
        Settings.model_construct(topics=topics, streams=streams).retention_hours_of(topic)
        for topics, streams in (
            (Topics(), Streams()),
            (Topics(), long),
            (Topics(retention_hours=1), Streams()),
            (Topics(retention={topic: 30}), long),
        )
    ]
    assert kept == [24, 42, 24, 30]
    assert Settings.model_construct().retention_hours_of(Topics().streams) == 168


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("GUARDLINE_GURAD__ENGINE", "vllm", "GUARDLINE_GURAD__ENGINE: there is no such section; did you mean guard?"),
        (
            "GUARDLINE_KAFKA_GROUP",
            "mine",
            "did you mean GUARDLINE_KAFKA__GROUP?; a setting is GUARDLINE_SECTION__NAME",
        ),
        ("GUARDLINE_GUARD_OPENAI_MODEL", "x", "did you mean GUARDLINE_GUARD__OPENAI__MODEL?"),
        ("GUARDLINE_HTTP__HOST", "", "http.host: is empty"),
        ("GUARDLINE_WORKER__PIPELINE", "", "worker.pipeline: is empty"),
        ("GUARDLINE_EVENTS__MAPPING", "", "events.mapping: is empty: name a file, or leave this setting out"),
        ("GUARDLINE_GUARD__OPENAI__CA_FILE", "", "guard.openai.ca_file: is empty"),
        ("GUARDLINE_GUARD__OPENAI__CERT_FILE", "", "guard.openai.cert_file: is empty"),
        ("GUARDLINE_GUARD__OPENAI__KEY_FILE", "", "guard.openai.key_file: is empty"),
        ("GUARDLINE_TOPICS__INPUTS", '["chat.*"]', "topics.inputs: 'chat.*' is not the name of a topic"),
        ("GUARDLINE_TOPICS__INPUTS", '["chat.*"]', "A pattern begins with ^"),
        ("GUARDLINE_LANGUAGE__CANDIDATES", '["en", "English"]', "number 2 is not two letters of ISO 639-1, such as en"),
        ("GUARDLINE_LANGUAGE__CANDIDATES", '["en"]', "one language only: every text would be found to be in it"),
        ("GUARDLINE_TOPICS__REVIEW", "a b", "topics.review: 'a b' is not the name of a topic"),
        (
            "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS",
            "localhost:99092",
            "number 1 is not HOST:PORT with a port from 1 to 65535",
        ),
        ("GUARDLINE_KAFKA__BOOTSTRAP_SERVERS", "a:9092,http://b:9092", "number 2 is not HOST:PORT"),
        ("GUARDLINE_KAFKA__BOOTSTRAP_SERVERS", "a:9092,b:0", "number 2 is not HOST:PORT"),
        ("GUARDLINE_KAFKA__BOOTSTRAP_SERVERS", "a:9092/b", "number 1 is not HOST:PORT"),
        ("GUARDLINE_REDIS__URL", "redis://u:pass-word@10.0.0.1:66379/0", "redis.url: has a port above 65535"),
        (
            "GUARDLINE_KAFKA__PROPERTIES",
            '{"security.protocol": "SASL_SSL", "sasl.username": "u", "sasl.password": "pass-word"}',
            "sasl.mechanism is not set: set it, such as PLAIN or SCRAM-SHA-512",
        ),
        ("GUARDLINE_X__ENGINE", "vllm", "GUARDLINE_X__ENGINE: there is no such section (one of: kafka, "),
        (
            "GUARDLINE_GUARD__ENGIN",
            "vllm",
            "no such setting; did you mean guard.engine? (from the environment variable GUARDLINE_GUARD__ENGIN)",
        ),
        (
            "GUARDLINE_GUARD__OPENAI",
            '{"ca_fil": "pass-word"}',
            "did you mean guard.openai.ca_file? (from the environment variable GUARDLINE_GUARD__OPENAI)",
        ),
        ("GUARDLINE_TOPICS__INPUTS", "chat,comments", "GUARDLINE_TOPICS__INPUTS: is not JSON; a list"),
        (
            "GUARDLINE_GUARD__OPENAI__URLS",
            "http://a",
            "__OPENAI__URLS: is not JSON; a list or map is JSON, as in GUARDLINE_TOPICS__INPUTS='[\"chat\"]'",
        ),
        (
            "GUARDLINE_KAFKA__PROPERTIES",
            "{'acks': 1}",
            'is not JSON; a list or map is JSON, as in GUARDLINE_KAFKA__PROPERTIES=\'{"sasl.username": "guardline"}\'',
        ),
        ("GUARDLINE_HTTP__PORT", "abc", "http.port: has to be a whole number"),
        ("GUARDLINE_REDIS__URL", "user:pass-word@localhost", "redis.url: has to begin with redis://, rediss://"),
        ("GUARDLINE_REDIS__URL", "redis://localhost/zero", "redis.url: ends in what is not the number of a database"),
        ("GUARDLINE_REDIS__URL", "redis://localhost/0?ssl=true", "redis.url: takes no option `ssl`: a URL with TLS"),
        ("GUARDLINE_REDIS__URL", "redis://localhost/0?pass-word=1", "redis.url: has an option after the `?` that"),
        ("GUARDLINE_REDIS__URL", "redis://localhost/0?socket_timeout=pass-word", "or a value that it cannot have"),
        ("GUARDLINE_REDIS__URL", "rediss://localhost/0?ssl_cert_reqs=pass-word", "or a value that it cannot have"),
        ("GUARDLINE_REDIS__URL", "redis://localhost/0?decode_responses=true", "must not say how answers are decoded"),
        ("GUARDLINE_KAFKA__BOOTSTRAP_SERVERS", "u:pass-word@a:1", "are sasl.username and sasl.password in kafka.prop"),
        (
            "GUARDLINE_KAFKA__PROPERTIES",
            '{"sasl.password": ["pass-word"]}',
            "kafka.properties, 'sasl.password': has to be a text or",
        ),
        (
            "GUARDLINE_GUARD__OPENAI__URLS",
            '["http://a", "a:pass-word@b"]',
            "urls: number 2 has to begin with http:// or",
        ),
        ("GUARDLINE_GUARD__OPENAI__URLS", '["http://a?key=pass-word"]', "urls: number 1 must not have a `?`"),
        ("GUARDLINE_GUARD__OPENAI__URLS", '["http:///pass-word"]', "urls: number 1 names no host"),
        ("GUARDLINE_GUARD__OPENAI__API_KEY", "pass-word é", "guard.openai.api_key: holds a character that is not"),
        ("GUARDLINE_GUARD__OPENAI__API_KEY", "pass-word\nX: y", "guard.openai.api_key: holds a character that is not"),
        ("GUARDLINE_BATCH__LOW_WATER", "90000", "batch.low_water must be below batch.high_water"),
        ("GUARDLINE_TOPICS__VERDICTS", "moderation.chat", "the worker would feed itself"),
        (
            "GUARDLINE_TOPICS__REVIEW",
            "moderation.verdicts",
            "is named by two settings, which have to name different topics",
        ),
        (
            "GUARDLINE_TOPICS__FORGET",
            "moderation.usage",
            "moderation.usage is named by two settings, which have to name different topics",
        ),
        ("GUARDLINE_TOPICS__FORGET", "moderation.chat", "the worker would feed itself"),
        ("GUARDLINE_TOPICS__DEAD_LETTERS", "", "topics.dead_letters: is empty"),
        ("GUARDLINE_TOPICS__RETENTION", '{"moderation.chat": 0}', "topics.retention: moderation.chat: 0 hours are not"),
        ("GUARDLINE_TOPICS__RETENTION", '{"chat": 1}', "topics.retention: no setting names the topic chat"),
        (
            "GUARDLINE_KAFKA__TOKEN_PROVIDER",
            "pass-word",
            "kafka.token_provider: has to name a function as package.module:function (from",
        ),
        ("GUARDLINE_KAFKA__TOKEN_PROVIDER", "a.b:c", "kafka.token_provider: no client would ask for a token"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"acks": 1}', "kafka.properties: 'acks' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"request.required.acks": 1}', "'request.required.acks' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"auto.commit.enable": true}', "'auto.commit.enable' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"metadata.broker.list": "a:1"}', "'metadata.broker.list' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"default.topic.config": "x"}', "'default.topic.config' cannot be set"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"error_cb": "x"}', "'error_cb' cannot be set: it takes a function"),
        ("GUARDLINE_KAFKA__PROPERTIES", '{"on_delivery": "x"}', "'on_delivery' cannot be set: it takes a function"),
        ("GUARDLINE_HTTP__PORT", "65536", "http.port: has to be at most 65535 (from"),
        ("GUARDLINE_COMMIT__MAX_AGE_S", "-1", "commit.max_age_s: has to be at least 0 (from"),
        ("GUARDLINE_TOPICS__INPUTS", "[]", "topics.inputs: is empty (from"),
        ("GUARDLINE_GUARD__MODE", "write", "guard.mode: has to be 'score' or 'generate' (from"),
        (
            "GUARDLINE_EVENTS__CARRY_ATTRIBUTES",
            "some",
            "events.carry_attributes: has to be true or false or a list (from",
        ),
        ("GUARDLINE_HTTP_PORT", "9464", "a setting is GUARDLINE_SECTION__NAME"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured) as refused:
        load()
    assert sentence in str(refused.value)
    assert "pass-word" not in str(refused.value)


@pytest.mark.parametrize(
    "servers", ["a", "a:1, b_c:65535", "a:9092,", "SASL_SSL://a-b.c:9093", "[::1]:9092", "::1", "10.0.0.1:9092"]
)
def test_brokers_are_hosts_and_ports(monkeypatch: pytest.MonkeyPatch, servers: str) -> None:
    monkeypatch.setenv("GUARDLINE_KAFKA__BOOTSTRAP_SERVERS", servers)
    assert load().kafka.bootstrap_servers == servers


@pytest.mark.parametrize("mark", "#/?@%")
@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("GUARDLINE_REDIS__URL", "redis://user:{}@localhost:6379/0"),
        ("GUARDLINE_REDIS__URL", "redis://:{}@localhost:6379/0"),
        ("GUARDLINE_REDIS__URL", "unix://user:{}@/run/redis.sock"),
        ("GUARDLINE_GUARD__OPENAI__URLS", '["http://user:{}@gpu:8000"]'),
    ],
)
def test_no_piece_of_a_password_is_shown_whatever_characters_it_holds(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str, mark: str
) -> None:
    for password in (f"canary{mark}12", f"12{mark}canary", f"12{mark}canary{mark}12", f"{mark}canary"):
        monkeypatch.setenv(variable, url.format(password))
        try:
            said = str([*rows(load())])
        except Misconfigured as refused:
            said = str(refused)
            assert "`/` as %2F" in said
        assert "canary" not in said
        monkeypatch.setenv(variable, url.format(quote(password, safe="")))
        assert "canary" not in str([*rows(load())])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "kafka: {group: no}",
            "kafka.group: has to be a text; YAML reads no and off as a truth value: put",
        ),
        ("guard: {engine: on}", "as a truth value (from the file "),
        ("topics: {inputs: [yes]}", "topics.inputs, number 1: has to be a text; YAML reads yes and on as a"),
        (
            "worker: {id: 007}",
            "worker.id: has to be a text; YAML reads it as a number: put it into quotes",
        ),
        ("worker: {id: 2026-01-31}", "YAML reads it as a date: put it into quotes"),
    ],
)
def test_what_yaml_does_not_read_as_a_text_has_to_be_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "guardline.yaml"
    file.write_text(text)
    monkeypatch.setenv("GUARDLINE_CONFIG", str(file))
    with pytest.raises(Misconfigured) as refused:
        load()
    assert sentence in str(refused.value)


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
        (b"kafka: 7\n", "kafka: is a section, and has to hold settings, not a number (from the file"),
        (b"kafka:\n", "kafka: is a section, and has to hold settings, not nothing"),
        (b"redis: redis://u:pass-word@h\n", "redis: is a section, and has to hold settings, not a text"),
        (b"redis: [pass-word]\n", "redis: is a section, and has to hold settings, not a list"),
        (b"kafak: {group: a}\n", "kafak: there is no such section; did you mean kafka? (from the file"),
        (b"kafka: {grupp: a}\n", "kafka.grupp: there is no such setting; did you mean kafka.group? (from the file"),
        (b"kafka.group: a\n", "kafka.group: there is no such section; nest the names: `kafka: {group: ...}` (from"),
        (b"guard.openai.model: a\n", "nest the names: `guard: {openai: {model: ...}}` (from"),
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
    assert "pass-word" not in str(refused.value)


def test_a_key_read_from_a_file_loses_the_end_of_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_GUARD__OPENAI__API_KEY", "secret\n")
    assert load().guard.openai.api_key.get_secret_value() == "secret"


@pytest.mark.parametrize("text", ["", "# nothing\n", "kafka: {group: mine}\n"])
def test_a_file_may_say_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    file = tmp_path / "guardline.yaml"
    file.write_text(text)
    monkeypatch.setenv("GUARDLINE_CONFIG", str(file))
    assert load().kafka.group in ("mine", "guardline-moderation")
