"""Each shipped mapping reads records of its platform, whose values are made up."""

from __future__ import annotations

from typing import Any

import pytest

from workers.core.records import Record
from workers.errors import OneAtFault
from workers.mapping.document import parse_yaml
from workers.mapping.examples import NAMES, read
from workers.mapping.mapping import Mapping
from workers.settings import Events

Expected = list[tuple[str, ...] | str]
"""For each record the id and the text of each of its events, or the reason for which it is skipped."""

EXPECTED: dict[str, Expected] = {
    "debezium": [
        ("7", "Fits well, would buy again"),
        ("7/1641643200000", "Fell apart after a week"),
        ("8", ""),
        "deleted",
    ],
    "discord": [
        ("900", "I will find you and kill you"),
        ("900/2022-01-01T12:05:00.000000+00:00", "see you at the game tonight"),
        ("901", "so do I"),
        ("902", "what was forwarded"),
        "no_content",
        ("903/2022-01-01T12:09:00.000000+00:00", "What is for dinner?\nsoup\nsalad"),
        "not_a_message",
        "not_a_message",
    ],
    "mastodon": [
        ("1", "I will find you and kill you"),
        (
            "2/2022-11-20T17:20:00.000Z",
            "food\nWhat is for dinner?\nhttps://example.org\nsoup\nsalad\na plate of soup",
        ),
        ("3", "a status of somebody else"),
        ("4", "food\nWhat is for dinner?\nsoup\nsalad\na plate of soup"),
    ],
    "matrix": [
        ("$first", "good morning all"),
        ("$two-texts", "I will find you\nhave a nice day"),
        (
            "$reply",
            "<@sam:example.org> who is coming?\nI am\nIn reply to @sam:example.org\nwho is coming?",
        ),
        ("$edit", "good evening all\n* good evening all"),
        ("$no-edit", "hi\nI will find you"),
        ("$bare-edit", "I will find you"),
        "deleted",
        "not_a_message",
    ],
    "reddit": [
        ("t3_abc/title", "Cats & dogs", "t3_abc/body", "Which do you like?\nI asked before"),
        ("t3_link/title", "A picture of my cat"),
        ("t3_tag/title", "<style>I will find you</style>"),
        ("t3_raw/title", "<style>I will find you</style>"),
        ("t1_def/1641038600/body", "I like both of them"),
        ("t1_bare/body", "a comment without the thing around it"),
        "deleted",
    ],
    "slack": [
        ("C1/1641038400.000100", "hello @kim, see this page (https://example.org) & answer"),
        ("C1/1641038400.000100/1641038460.000000", "hello all"),
        ("C1/1641038470.000100", ""),
        ("C1/1641038480.000100", "look\na message of another channel"),
        "deleted",
        "notice",
        "not_a_message",
    ],
    "telegram": [
        ("-100/5", "I grew a pumpkin"),
        ("-100/5/1641038500", "I grew two pumpkins"),
        ("-100/6", "and I one melon"),
        ("-100/7", ""),
        "notice",
        "not_a_message",
        ("12/9", "Are you open today?"),
        ("12/9/1641038950", "I will find you"),
        ("5", "I will find you and kill you"),
        "notice",
    ],
    "twitch": [
        ("c1", "Hi chat! HeyGuys"),
        ("c2", "@kim so do I"),
        "not_a_message",
        "not_a_message",
    ],
    "youtube": [
        ("Ugx1", 'Great "cover" of this song!\nThank you'),
        ("Ugx1.r1/2022-01-01T12:30:00Z", "I don't think so"),
        ("Ugx2", "first!"),
    ],
    "zendesk": [
        ("601", "It has not come yet."),
        ("602", "We are sorry"),
        "not_a_comment",
    ],
}


def mapping(name: str) -> Mapping:
    return Mapping(parse_yaml(read(f"{name}.yaml"), f"{name}.yaml"))


def lines(name: str) -> list[bytes]:
    return read(f"{name}.jsonl").encode().splitlines()


def event(name: str, line: int) -> dict[str, Any]:
    (only,) = mapping(name).events(Record(lines(name)[line], topic="shop.public.comments"), Events())
    return {**only.event}


def test_each_shipped_mapping_is_tested() -> None:
    assert sorted(EXPECTED) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_mapping_reads_the_records_of_its_platform(name: str) -> None:
    compiled = mapping(name)
    found: Expected = []
    for line in lines(name):
        try:
            events = compiled.events(Record(line, topic="shop.public.comments"), Events())
        except OneAtFault as error:
            found.append(error.reason)
            continue
        found.append(tuple(text for one in events for text in (one.event["event_id"], one.event["text"])))
        assert all(not one.ignored_fields and one.event["tenant_id"] in ("acme", "shop") for one in events)
    assert found == EXPECTED[name]


def test_the_answered_message_is_the_context() -> None:
    assert event("discord", 2)["context"] == [{"role": "user", "text": "I love rainy days"}]
    assert event("telegram", 2)["context"] == [{"role": "user", "text": "I grew two pumpkins"}]
    assert event("twitch", 1)["context"] == [{"role": "user", "text": "Hi chat! HeyGuys"}]


def test_quoted_lines_of_a_mail_are_context_behind_the_subject_of_the_ticket() -> None:
    context = event("zendesk", 0)["context"]
    assert [turn["text"] for turn in context] == ["My order", "Your parcel is on its way."]


def test_authors_times_and_attributes_come_from_where_the_platform_has_them() -> None:
    slack = event("slack", 3)
    assert (slack["author_id"], slack["created_at"]) == ("U2", "2022-01-01T12:01:20.000100Z")
    assert slack["attributes"] == {"team_id": "T1", "channel": "C1", "thread_ts": "1641038400.000100"}
    change = event("debezium", 0)
    assert (change["tenant_id"], change["surface"], change["attributes"]) == ("shop", "comment", {"table": "comments"})
    assert event("twitch", 0)["created_at"] == "2022-01-01T12:00:00.123456789Z"
    assert event("mastodon", 0)["language"] == "en"
