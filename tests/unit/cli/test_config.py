from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from workers.cli.app import app
from workers.cli.tables import WIDE
from workers.errors import Misconfigured


def test_the_settings_are_printed_with_their_meanings_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_KAFKA__GROUP", "mine")
    plain = CliRunner().invoke(app, ["config"])
    assert plain.exit_code == 0
    [group] = [line for line in plain.stdout.splitlines() if "kafka.group " in line]
    assert [cell.strip() for cell in group.strip("│").split("│")] == ["kafka.group", "mine", "environment"]
    described = CliRunner().invoke(app, ["config", "--meanings"], terminal_width=WIDE)
    [group] = [line for line in described.stdout.splitlines() if "kafka.group " in line]
    assert "the consumer group; also the first part of the transactional id" in group


def endpoints(**changes: Any) -> str:
    """Return a setting with one endpoint."""
    one = {"name": "platform", "url": "https://platform.example", "secret_files": ["/nowhere/secret"], **changes}
    return json.dumps([one])


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (
            "GUARDLINE_KAFKA__PROPERTIES",
            '{"sasl.pasword": "pass-word"}',
            'No such configuration property: "sasl.pasword"',
        ),
        ("GUARDLINE_EVENTS__MAPPING", "/nowhere/mapping.yaml", "events.mapping: cannot read /nowhere/mapping.yaml"),
        ("GUARDLINE_GUARD__MODEL", "/nowhere/guard", "guard.model: no such folder: /nowhere/guard"),
        (
            "GUARDLINE_GUARD__MODEL",
            "/",
            "guard.model: / has no checkpoint for the engine ctranslate2 (missing: model.bin",
        ),
        ("GUARDLINE_ACTIONS__ENDPOINTS", endpoints(), "actions.endpoints, platform: cannot read /nowhere/secret"),
        (
            "GUARDLINE_REVIEW__TOKENS",
            '[{"name": "mara", "role": "reviewer", "file": "/nowhere/token"}]',
            "review.tokens: mara: cannot read /nowhere/token",
        ),
    ],
)
def test_what_a_worker_would_refuse_at_its_start_is_named_below_the_settings(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(app, ["config"])
    assert "kafka.group" in result.stdout
    assert isinstance(result.exception, Misconfigured)
    assert sentence in str(result.exception)
    assert "pass-word" not in str(result.exception)


def test_the_files_for_tls_of_an_endpoint_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"whsec_{'A' * 32}", encoding="utf-8")
    monkeypatch.setenv("GUARDLINE_ACTIONS__ENDPOINTS", endpoints(secret_files=[str(secret)]))
    assert CliRunner().invoke(app, ["config"]).exit_code == 0
    monkeypatch.setenv("GUARDLINE_ACTIONS__ENDPOINTS", endpoints(secret_files=[str(secret)], ca_file="/nowhere/ca"))
    result = CliRunner().invoke(app, ["config"])
    assert "actions.endpoints, platform: ca_file: cannot read /nowhere/ca" in str(result.exception)
