"""Values that a flag cannot have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from schemas.review_state import ReviewStatus
from workers.cli.app import command_line
from workers.cli.times import A_DATE, seconds_of
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


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Give each command with the words that name it."""
    yield name, command
    for one, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {one}".strip())


def test_the_help_of_each_flag_for_a_time_says_what_a_date_alone_is() -> None:
    helps = {
        f"{name} {flag.opts[0]}": getattr(flag, "help", "")
        for name, command in commands(command_line())
        for flag in command.params
        if flag.name in ("since", "until")
    }
    assert len(helps) >= 12
    assert [name for name, said in helps.items() if not said.endswith(A_DATE)] == []
    assert seconds_of("--since", "2026-01-31") == seconds_of("--since", "2026-01-31T00:00:00Z")
