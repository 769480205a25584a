"""How the function of `kafka.token_provider` is called, and what is said of one that gives no token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from workers.errors import Misconfigured, Unavailable
from workers.kafka import clients, tokens
from workers.kafka.route import of_moderation
from workers.settings import Kafka, Settings

SECRET = "aGVhZGVy.cAnArYcAnArYcAnArYcAnArYcAnArYcAnArY.c2ln"
LOGIN: dict[str, str | int | float | bool] = {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}


def provider(function: Callable[[str], Any]) -> tokens.Provider:
    return tokens.Provider("cloud.tokens:of", function)


def valid_for(seconds: float) -> tuple[str, float]:
    return SECRET, time.time() + seconds


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    tokens.provider.cache_clear()
    yield
    tokens.provider.cache_clear()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no.such.module:token", "'no.such.module:token' cannot be imported: ModuleNotFoundError: .*PYTHONPATH"),
        ("tests.token_functions:no_such", "cannot be imported: AttributeError: .*no_such"),
        ("tests.token_functions:not_a_function", "'tests.token_functions:not_a_function' is not a function"),
    ],
)
def test_a_name_that_leads_to_no_function_is_refused_when_a_client_is_made(name: str, sentence: str) -> None:
    kafka = Kafka(token_provider=name, properties=LOGIN)
    every: list[Callable[[], object]] = [
        lambda: clients.consumer(of_moderation(Settings(kafka=kafka))),
        lambda: clients.transactional_producer(kafka, "w", {}),
        lambda: clients.producer(kafka),
        lambda: clients.reader(kafka, follow=False),
        lambda: clients.onlooker(kafka),
        lambda: clients.admin(kafka),
    ]
    for make in every:
        with pytest.raises(Misconfigured, match=rf"^kafka\.token_provider: .*{sentence}"):
            make()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"token_provider": "no_colon"}, "has to name a function as package.module:function"),
        ({"token_provider": "a.b:c\n"}, "has to name a function as package.module:function"),
        ({"properties": {}}, "no client would ask for a token: .*SASL_SSL and sasl.mechanism to OAUTHBEARER"),
        ({"properties": {**LOGIN, "sasl.mechanism": "PLAIN"}}, "no client would ask for a token"),
        ({"properties": {**LOGIN, "security.protocol": "SSL"}}, "no client would ask for a token"),
        ({"properties": {**LOGIN, "sasl.oauthbearer.method": "oidc"}}, "set one of the two"),
    ],
)
def test_a_contradiction_in_the_settings_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Kafka.model_validate({"token_provider": "a.b:c", "properties": LOGIN, **changes})


def raises(error: Exception) -> Callable[[str], Any]:
    def function(_: str) -> Any:
        raise error

    return function


def test_a_function_that_raises_is_named_with_its_error_and_without_anything_like_a_token() -> None:
    failing = provider(raises(ConnectionError(f"https://sts.example/?token={SECRET} refused {SECRET}")))
    with pytest.raises(Unavailable, match=r"^kafka\.token_provider: cloud\.tokens:of raised ConnectionError: ") as said:
        failing.fetch()
    assert "cAnArY" not in str(said.value)
    assert "refused" in str(said.value)


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (SECRET, Misconfigured, r"has to return \(token, expiry in seconds since 1970\)"),
        ((SECRET,), Misconfigured, "has to return"),
        ((SECRET, None), Misconfigured, "has to return"),
        (("", 2e9), Misconfigured, "has to return"),
        ((SECRET, 2e9, {"extension": "1"}), Misconfigured, "has to return"),
        ((SECRET, 2e12), Misconfigured, "returned an expiry in milliseconds: divide it by 1000"),
        ((SECRET, 1e9), Unavailable, "returned a token that expired .* s ago"),
    ],
)
def test_an_answer_that_is_no_token_has_a_sentence(answer: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=rf"^kafka\.token_provider: cloud\.tokens:of .*{sentence}") as said:
        provider(lambda _: answer).fetch()
    assert "cAnArY" not in str(said.value)


def test_a_function_that_hangs_is_given_up_and_not_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ANSWER_S", 0.05)
    may_end, calls = threading.Event(), []

    def hangs(_: str) -> tuple[str, float]:
        calls.append(1)
        may_end.wait(30)
        return valid_for(60)

    hanging = provider(hangs)
    with pytest.raises(Unavailable, match=r"has not returned within 0\.05 s"):
        hanging.fetch()
    with pytest.raises(Unavailable, match="has still not returned"):
        hanging.fetch()
    assert calls == [1]
    may_end.set()
    assert hanging._running is not None
    hanging._running.join(10)
    assert hanging.fetch()[0] == SECRET


def test_all_clients_share_a_token_in_the_first_tenth_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def function(config: str) -> tuple[str, float]:
        calls.append(config)
        return f"token-{len(calls)}", now + 100

    now = time.time()
    shared = provider(function)
    monkeypatch.setattr(time, "time", lambda: now)
    assert [shared.fetch("region=eu")[0] for _ in range(3)] == ["token-1"] * 3
    monkeypatch.setattr(time, "time", lambda: now + 9)
    assert shared.fetch()[0] == "token-1"
    monkeypatch.setattr(time, "time", lambda: now + 11)
    assert shared.fetch()[0] == "token-2"
    assert calls == ["region=eu", ""]


def test_the_last_token_stays_while_it_is_valid_and_the_log_says_once_why_there_is_no_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[tuple[str, float] | Exception] = []

    def function(_: str) -> tuple[str, float]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    now = time.time()
    answers[:] = [(SECRET, now + 100), OSError(f"no {SECRET}"), OSError("no"), OSError("no"), ("other", now + 300)]
    shared = provider(function)
    shared.fetch()
    with capture_logs() as lines:
        for later in (60, 90):
            monkeypatch.setattr(time, "time", lambda later=later: now + later)
            assert shared.fetch()[0] == SECRET
        monkeypatch.setattr(time, "time", lambda: now + 101)
        with pytest.raises(Unavailable):
            shared.fetch()
        assert shared.fetch()[0] == "other"
    first, last = lines
    assert first["valid_for_s"] == 40
    assert first["reason"] == "kafka.token_provider: cloud.tokens:of raised OSError: no **********"
    assert last["event"] == "kafka.token_provider: a new token came"
