"""What `guardline worker actions` and `guardline actions` refuse before they call anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.command import guardline
from workers.cli.app import app
from workers.cli.files import replacing
from workers.errors import Misconfigured


@pytest.mark.parametrize("command", [("worker", "actions"), ("actions", "test", "--endpoint", "other")])
def test_without_the_endpoint_a_sentence_says_so(command: tuple[str, ...]) -> None:
    refused = guardline(*command, code=2, environment={})
    assert "actions.endpoints is empty" in refused.stderr or "actions.endpoints has no 'other'" in refused.stderr


def test_statements_do_not_touch_a_file_before_they_have_all_of_it(tmp_path: Path) -> None:
    endpoint = {
        "name": "dsa",
        "format": "dsa",
        "url": "https://a.example",
        "header_files": {"Authorization": "/unread"},
        "statements": {"reference": "Rules, 3", "explanation": "Forbidden.", "territorial_scope": ["EU"]},
    }
    environment = {"GUARDLINE_ACTIONS__ENDPOINTS": json.dumps([endpoint])}
    refused = CliRunner().invoke(
        app, ["actions", "statements", "--out", str(tmp_path / "none" / "file")], env=environment
    )
    assert isinstance(refused.exception, Misconfigured)
    assert "--out: cannot write" in str(refused.exception)
    file = tmp_path / "statements.jsonl"
    file.write_text("old\n")

    def fail_halfway() -> None:
        with replacing("--out", file) as new:
            new.write(b"new\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert (file.read_text(), [*tmp_path.iterdir()]) == ("old\n", [file])
    with replacing("--out", file) as new:
        new.write(b"new\n")
    assert (file.read_text(), [*tmp_path.iterdir()]) == ("new\n", [file])


def test_a_secret_that_cannot_be_used_is_named_by_its_file_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pass-word")
    endpoint = {"name": "a", "url": "https://a.example", "secret_files": [str(tmp_path / "secret")]}
    environment = {"GUARDLINE_ACTIONS__ENDPOINTS": json.dumps([endpoint]), "GUARDLINE_HTTP__PORT": "0"}
    refused = guardline("worker", "actions", code=2, environment=environment)
    assert "actions.endpoints, a: the secret in " in refused.stderr
    assert "pass-word" not in refused.stderr


@pytest.mark.parametrize("command", ["redeliver", "reconcile", "test"])
def test_every_command_names_an_unknown_endpoint_in_the_same_words(command: str, tmp_path: Path) -> None:
    endpoint = {"name": "a", "url": "https://a.example", "secret_files": [str(tmp_path / "secret")]}
    environment = {"GUARDLINE_ACTIONS__ENDPOINTS": json.dumps([endpoint])}
    refused = CliRunner().invoke(app, ["actions", command, "--endpoint", "nope"], env=environment)
    assert str(refused.exception) == "--endpoint: actions.endpoints has no 'nope' (one of: a)"
