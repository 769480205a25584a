"""Calls to the stand-in of the DSA database, by the sender and the client of the worker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from tests.dsa_database import TOKEN, Database
from tests.unit.actions.test_statements import SETTINGS
from tests.verdicts import AT_MS, superseding, verdict
from workers.actions.client import Client
from workers.actions.delivery import Answer, Delivery, Meaning
from workers.actions.dsa import Dsa
from workers.actions.formats import format_of
from workers.actions.secrets import Secrets
from workers.actions.sender import Sender
from workers.core.records import Source, TopicPartition
from workers.settings.action_sections import Endpoint


def endpoint(url: str, token: Path, **changes: Any) -> Endpoint:
    document = {
        "name": "dsa",
        "format": "dsa",
        "url": url,
        "allow_http": True,
        "allow_networks": ["127.0.0.0/8"],
        "header_files": {"Authorization": str(token)},
        "statements": SETTINGS.model_dump(),
        "concurrency": 1,
        "retry": {"first_s": 0.001, "max_s": 0.01},
        **changes,
    }
    return Endpoint.model_validate(document)


def delivery(form: Dsa, number: int, **changes: Any) -> Delivery:
    document = verdict(verdict_id=f"{number:032x}", **changes)
    body = form.body("verdict", document, b"", AT_MS)
    assert body is not None
    source = Source(TopicPartition("verdicts", 0), 1, number)
    return Delivery(source, b"k%d" % number, document["verdict_id"], "verdict", "acme", body, AT_MS)


def sent(database: Database, token: Path, made: Any, **changes: Any) -> dict[str, str | None]:
    """Send the deliveries that `made` gives for a format. Return how each ended: None, or why it was given up."""

    async def run() -> dict[str, str | None]:
        async with database:
            one = endpoint(database.url, token, **changes)
            form = format_of(one, Secrets(one))
            assert isinstance(form, Dsa)
            deliveries: list[Delivery] = made(form)
            ended: dict[str, str | None] = {}
            failures: list[BaseException] = []
            is_over = asyncio.Event()

            def end(delivery: Delivery, reason: str | None) -> None:
                assert delivery.id not in ended
                ended[delivery.id] = reason and f"{reason}: {delivery.reason}"
                if len(ended) == len(deliveries):
                    is_over.set()

            async with Client(one, form.answer_bytes) as client:
                sender = Sender(
                    one,
                    form,
                    client,
                    ended=end,
                    is_current=lambda _: True,
                    is_forgotten=lambda _: False,
                    gone=lambda: None,
                    fail=failures.append,
                )
                sender.submit(deliveries)
                await asyncio.wait_for(is_over.wait(), 30)
                await sender.close()
            assert not failures
            return ended

    return asyncio.run(run())


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


def id_of(number: int) -> str:
    return f"{number:032x}"


def test_statements_go_in_calls_of_at_most_a_hundred_and_a_repeat_counts_as_delivered(token: Path) -> None:
    database = Database()
    database.statements = {id_of(number): {} for number in (3, 4)}
    ended = sent(database, token, lambda form: [delivery(form, number) for number in range(250)])
    assert ended == dict.fromkeys(map(id_of, range(250)))
    assert database.statements.keys() == ended.keys()
    assert max(map(len, database.calls)) == 100
    assert len(database.calls) <= 5


def test_a_wrong_statement_is_a_dead_letter_with_the_errors_of_its_fields_and_delays_no_other(token: Path) -> None:
    """The settings check what they can; here the statement is changed after that."""
    database = Database()

    def made(form: Dsa) -> list[Delivery]:
        deliveries = [delivery(form, number) for number in range(50)]
        for number in (7, 30):
            wrong = {**orjson.loads(deliveries[number].body), "category": "STATEMENT_CATEGORY_SPAM", "content_type": []}
            deliveries[number].body = orjson.dumps(wrong)
        return deliveries

    ended = sent(database, token, made)
    refused = {name: reason for name, reason in ended.items() if reason is not None}
    assert set(refused) == {id_of(7), id_of(30)}
    assert refused[id_of(7)] == (
        "refused: the database answered 422: content_type: The content type field is required.; category: The "
        "selected category is invalid."
    )
    assert database.statements.keys() == ended.keys() - refused.keys()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503, 200, 302])
def test_an_answer_about_the_service_is_tried_again(token: Path, status: int) -> None:
    database = Database()
    headers = {"Retry-After": "0", "Location": "/"}
    database.answers = [(status, {"message": "no"}, headers)] * 4
    ended = sent(database, token, lambda form: [delivery(form, 1)])
    assert ended == {id_of(1): None}
    assert len(database.calls) == 5


@pytest.mark.parametrize("body", [[], {"errors": []}, {"errors": {"statements": ["no"]}}, {"message": "x"}, None])
def test_an_answer_422_that_names_no_statement_is_found_out_one_by_one(token: Path, body: Any) -> None:
    database = Database()
    database.answers = [(422, body, {})]
    ended = sent(database, token, lambda form: [delivery(form, number) for number in range(3)])
    assert ended == dict.fromkeys(map(id_of, range(3)))
    assert sorted(map(len, database.calls)) == [1, 1, 1, 3]


def test_a_call_that_is_too_large_is_divided_and_a_single_statement_is_given_up(token: Path) -> None:
    database = Database()
    database.answers = [(413, {}, {}), None, None, None]
    assert sent(database, token, lambda form: [delivery(form, number) for number in range(3)]) == dict.fromkeys(
        map(id_of, range(3))
    )
    database = Database()
    database.answers = [(413, {}, {})] * 5
    ended = sent(database, token, lambda form: [delivery(form, 1)])
    assert ended == {id_of(1): "refused: the database answered 413"}


def test_one_restriction_is_once_in_a_call_although_its_event_came_twice(token: Path) -> None:
    """The database refuses a call with one id twice in the words with which it reports an id that it has."""
    database = Database()
    first = id_of(1)
    ended = sent(database, token, lambda form: [delivery(form, 1), delivery(form, 2, duplicate_of=first)])
    assert ended == {first: None, id_of(2): None}
    assert database.calls == [[first]]
    assert list(database.statements) == [first]


def test_a_call_that_is_refused_as_a_whole_counts_against_none_of_its_statements() -> None:
    form = Dsa(SETTINGS, dict)
    for answer in (Answer(413), Answer(422, b'{"message": "no"}')):
        results = form.read([delivery(form, 1), delivery(form, 2)], answer)
        assert {(result.meaning, result.is_single) for result in results} == {(Meaning.FAILED, True)}
        (alone,) = form.read([delivery(form, 1)], answer)
        assert alone.meaning is Meaning.REFUSED


def test_the_database_of_a_single_statement_says_existing() -> None:
    form = Dsa(SETTINGS, dict)
    body = orjson.dumps({"message": "not unique", "errors": {"puid": ["no"]}, "existing": {"puid": id_of(1)}})
    (result,) = form.read([delivery(form, 1)], Answer(422, body))
    assert result.meaning is Meaning.ACCEPTED


def test_verdicts_without_a_restriction_and_other_kinds_have_no_statement() -> None:
    form = Dsa(SETTINGS, dict)
    assert form.body("signal", {}, b"{}", AT_MS) is None
    assert form.body("superseding", superseding("block", "allow"), b"{}", AT_MS) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"statements": None}, "format is dsa, and statements is not set"),
        ({"header_files": {}}, "header_files names no file for Authorization"),
        ({"kinds": ["verdict", "signal"]}, "delivers only verdict and superseding"),
        ({"decisions": ["allow"]}, "of the decision block"),
        ({"format": "webhook", "secret_files": ["/s"]}, "statements is set, and format is not dsa"),
    ],
)
def test_an_endpoint_that_cannot_make_statements_is_refused_at_start(
    token: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        endpoint("https://db.example/api/v1", token, **changes)
