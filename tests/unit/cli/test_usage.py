"""`guardline usage` without a broker."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from workers.cli.app import app
from workers.errors import Misconfigured


@pytest.mark.parametrize(
    ("flags", "variable", "sentence"),
    [
        (["--since", "yesterday"], "moderation.usage", "--since: 'yesterday' is not a time"),
        ([], "", "topics.usage: it is empty"),
    ],
)
def test_what_prevents_the_sums_is_named(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], variable: str, sentence: str
) -> None:
    monkeypatch.setenv("GUARDLINE_TOPICS__USAGE", variable)
    result = CliRunner().invoke(app, ["usage", *flags])
    assert isinstance(result.exception, Misconfigured)
    assert sentence in str(result.exception)
