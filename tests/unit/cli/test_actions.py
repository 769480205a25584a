"""What `guardline worker actions` and `guardline actions` refuse before they call anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command import guardline


@pytest.mark.parametrize("command", [("worker", "actions"), ("actions", "test", "--endpoint", "other")])
def test_without_the_endpoint_a_sentence_says_so(command: tuple[str, ...]) -> None:
    refused = guardline(*command, code=2, environment={})
    assert "actions.endpoints is empty" in refused.stderr or "actions.endpoints has no 'other'" in refused.stderr


def test_a_secret_that_cannot_be_used_is_named_by_its_file_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pass-word")
    endpoint = {"name": "a", "url": "https://a.example", "secret_files": [str(tmp_path / "secret")]}
    environment = {"GUARDLINE_ACTIONS__ENDPOINTS": json.dumps([endpoint]), "GUARDLINE_HTTP__PORT": "0"}
    refused = guardline("worker", "actions", code=2, environment=environment)
    assert "actions.endpoints, a: the secret in " in refused.stderr
    assert "pass-word" not in refused.stderr
