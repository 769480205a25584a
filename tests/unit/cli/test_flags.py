"""Values that a flag cannot have."""

from __future__ import annotations

import pytest

from workers.cli.app import command_line
from workers.errors import Misconfigured


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("load --rate many", "--rate: has to be a number"),
        ("load --rate 0", "--rate: has to be at least 0.001"),
        ("load --count 1.5", "--count: has to be a whole number"),
        ("usage --by week", "--by: 'week' is not one of 'minute', 'hour', 'day'"),
        ("produce - --surface mail", "--surface: 'mail' is not one of 'chat', 'comment'"),
    ],
)
def test_a_wrong_value_of_a_flag_is_refused_in_the_words_of_the_settings(arguments: str, sentence: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        command_line()(arguments.split())
    assert str(refused.value) == sentence
