from __future__ import annotations

import pytest
from typer.testing import CliRunner

from workers.cli.app import app
from workers.cli.tables import WIDE


def test_the_settings_are_printed_with_their_meanings_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_KAFKA__GROUP", "mine")
    plain = CliRunner().invoke(app, ["config"])
    assert plain.exit_code == 0
    [group] = [line for line in plain.stdout.splitlines() if "kafka.group " in line]
    assert [cell.strip() for cell in group.strip("│").split("│")] == ["kafka.group", "mine", "environment"]
    described = CliRunner().invoke(app, ["config", "--meanings"], terminal_width=WIDE)
    [group] = [line for line in described.stdout.splitlines() if "kafka.group " in line]
    assert "the consumer group; also the first part of the transactional id" in group
