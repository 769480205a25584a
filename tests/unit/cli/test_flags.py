"""Values that a flag cannot have."""

from __future__ import annotations

import pytest

from schemas.review_state import ReviewStatus
from workers.cli.app import command_line
from workers.errors import Misconfigured


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("load --rate many", "--rate: has to be a number"),
        ("load --rate 0", "--rate: has to be at least 0.001"),
        ("load --count 1.5", "--count: has to be a whole number"),
        ("usage --by week", "--by: 'week' is not one of 'minute', 'hour', 'day'"),
        (
            "review list --status foo",
            f"--status: 'foo' is not one of {', '.join(repr(one.value) for one in ReviewStatus)}",
        ),
        *(
            (
                f"{command} --since 2026-01-31T12:00:00Z --until 2026-01-31T11:00:00Z",
                "--until: '2026-01-31T11:00:00Z' has to be after --since, '2026-01-31T12:00:00Z'",
            )
            for command in (
                "usage",
                "dead-letters replay",
                "actions reconcile",
                "actions redeliver --endpoint a",
                "actions statements --out statements.jsonl",
            )
        ),
        ("produce - --surface mail", "--surface: 'mail' is not one of 'chat', 'comment'"),
    ],
)
def test_a_wrong_value_of_a_flag_is_refused_in_the_words_of_the_settings(arguments: str, sentence: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        command_line()(arguments.split())
    assert str(refused.value) == sentence
