"""What a load consists of."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from schemas.event import Event
from workers.core.decode import decode
from workers.errors import Misconfigured, Undecodable
from workers.load.records import INVALID, Mix, Records
from workers.load.texts import TEXTS
from workers.settings import Events

COUNT = 4_000


def made(mix: Mix, run: str = "ab12") -> list[dict[str, Any]]:
    records = Records(mix, run)
    return [json.loads(records.next(0).value) for _ in range(COUNT)]


def test_every_record_is_an_event_that_keeps_the_contract_and_has_a_text_of_its_own() -> None:
    records = Records(Mix(), "ab12")
    events = [Event.model_validate_json(records.next(1.5).value) for _ in range(COUNT)]
    assert len({event.text for event in events}) == len({event.event_id for event in events}) == COUNT
    assert {event.language for event in events} == set(TEXTS)
    assert {event.surface for event in events} == {"chat", "comment"}
    assert events[0].created_at == "1970-01-01T00:00:01.500+00:00"
    assert all(records.has_made(event.event_id) for event in events)
    assert not Records(Mix(), "cd34").has_made(events[0].event_id)
    assert not records.has_made(7)


def test_tenants_and_languages_have_the_weights_that_were_asked_for() -> None:
    events = made(Mix(tenants={"acme": 3, "campus": 1}, languages={"en": 1, "ja": 0}))
    assert Counter(event["tenant_id"] for event in events)["acme"] == pytest.approx(0.75 * COUNT, rel=0.05)
    assert {event["language"] for event in events} == {"en"}


def test_a_duplicate_is_an_earlier_event_byte_by_byte_and_with_its_key() -> None:
    records = Records(Mix(duplicates=0.2), "ab12")
    sent = [records.next(0) for _ in range(COUNT)]
    assert sum(one.is_duplicate for one in sent) == pytest.approx(0.2 * COUNT, rel=0.1)
    first = {one.value: one.key for one in sent if not one.is_duplicate}
    assert all(first[one.value] == one.key for one in sent if one.is_duplicate)


def test_an_invalid_record_becomes_a_dead_letter_with_any_settings() -> None:
    records = Records(Mix(invalid=0.3), "ab12")
    sent = [records.next(0) for _ in range(COUNT)]
    assert sum(one.tenant is None for one in sent) == pytest.approx(0.3 * COUNT, rel=0.1)
    assert {one.value for one in sent if one.tenant is None} == set(INVALID)
    for value in INVALID:
        for events in (Events(), Events(strict=True), Events(on_empty_text="skip")):
            with pytest.raises(Undecodable):
                decode(value, events)


def test_the_same_seed_gives_the_same_mix_with_other_ids_and_texts() -> None:
    one, same, other = made(Mix(seed=1)), made(Mix(seed=1), "cd34"), made(Mix(seed=2))
    fields = ("tenant_id", "language", "surface", "author_id", "attributes")
    assert [[event[name] for name in fields] for event in one] == [[event[name] for name in fields] for event in same]
    assert [event["language"] for event in one] != [event["language"] for event in other]
    assert not {event["text"] for event in one} & {event["text"] for event in same}


@pytest.mark.parametrize(
    ("mix", "sentence"),
    [
        ({"languages": {"xx": 1.0}}, r"--language: no texts in xx \(one of: ar, de, "),
        ({"languages": {}}, "--language: the weights must not be negative"),
        ({"tenants": {"acme": -1.0, "campus": 2.0}}, "--tenant: the weights must not be negative"),
        ({"tenants": {"acme": 0.0}}, "one of them must be above 0"),
        ({"tenants": {"": 1.0}}, "--tenant: a name must have 1 to 256 characters"),
        ({"duplicates": 0.6, "invalid": 0.6}, "--duplicates and --invalid: each is a fraction"),
        ({"duplicates": -0.1}, "--duplicates and --invalid: each is a fraction"),
    ],
)
def test_a_mix_that_cannot_be_made_is_refused_with_the_flag(mix: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        Mix(**mix)
