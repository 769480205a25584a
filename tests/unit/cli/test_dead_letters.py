"""Which dead letters the flags choose, and how one is printed."""

from __future__ import annotations

import pytest

from workers.cli.dead_letters import chosen
from workers.core.dead_letters import Letter
from workers.core.records import TopicPartition
from workers.errors import Misconfigured
from workers.kafka.replay import Stored

NOON_MS = 1_767_268_800_000  # 2026-01-01T12:00:00Z
STORED = Stored(
    TopicPartition("dead", 0),
    7,
    b"k",
    b"{",
    NOON_MS,
    Letter("not_json", "", TopicPartition("chat", 3), 42, [], False),
    b"identity",
    False,
)


@pytest.mark.parametrize(
    ("reasons", "topics", "since", "until", "is_chosen"),
    [
        (None, None, None, None, True),
        ([], [], None, None, True),
        (["not_json"], ["chat"], "2026-01-01T12:00:00Z", "2026-01-01T12:00:00.001Z", True),
        (["wrong_type", "not_json"], None, None, None, True),
        (["wrong_type"], None, None, None, False),
        (None, ["comments"], None, None, False),
        (None, ["comments", "chat"], None, None, True),
        (None, None, "2026-01-01T12:00:00.001Z", None, False),
        (None, None, "2026-01-01", "2026-01-02", True),
        (None, None, None, "2026-01-01T12:00:00Z", False),
        (None, None, "2026-01-01T12:30:00+01:00", None, True),
    ],
)
def test_a_dead_letter_is_chosen_by_reason_topic_and_time(
    reasons: list[str] | None, topics: list[str] | None, since: str | None, until: str | None, is_chosen: bool
) -> None:
    assert chosen(reasons, topics, since, until)(STORED) == is_chosen


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_time_that_cannot_be_read_is_a_sentence(option: str) -> None:
    with pytest.raises(Misconfigured, match=f"{option}: 'now' is not a time: .* or a date, as in 2026-01-31"):
        chosen(None, None, *("now" if one == option else None for one in ("--since", "--until")))


def test_an_unknown_reason_is_a_sentence_with_the_known_ones() -> None:
    with pytest.raises(Misconfigured, match=r"there is no reason 'json' \(one of: .*not_json, .*output_too_large\)"):
        chosen(["not_json", "json"], None, None, None)
