"""`guardline policy simulate` on a file of stream verdicts, without a broker and without Redis."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.policy import StreamPolicy
from tests.live_streams import Guarded, says
from workers.cli.app import app
from workers.errors import Misconfigured
from workers.live.session import Ruling


def recorded() -> tuple[list[dict[str, object]], int]:
    """Judge a stream, and give its verdicts as the streams worker writes these fields, and the position of its cut."""

    async def judge() -> tuple[list[Ruling], int]:
        session = await Guarded().open()
        rulings = [await session.user("Hello"), *await says(session, "I will", " kill", " them all", " now")]
        assert session.cut is not None
        return rulings, session.cut.position

    rulings, position = asyncio.run(judge())
    verdicts: list[dict[str, object]] = []
    for number, ruling in enumerate(rulings):
        prompt = ruling.prompt
        verdicts.append(
            {
                "tenant_id": "acme",
                "stream_id": "s-1",
                "kind": "user" if number == 0 else "delta",
                "outcome": "cut" if ruling.cut else "judged",
                "risk": ruling.risk,
                "categories": ruling.categories,
                "prompt": prompt
                and {"severity": prompt.severity, "risk": prompt.risk, "categories": list(prompt.categories)},
            }
        )
    return verdicts, position


def simulate(folder: Path, policy: str, *flags: str) -> object:
    verdicts, _ = recorded()
    (folder / "verdicts.jsonl").write_text("".join(f"{json.dumps(verdict)}\n" for verdict in verdicts) + "\n[]\n")
    (folder / "policy.yaml").write_text(policy)
    files = ["--policy", str(folder / "policy.yaml"), "--verdicts", str(folder / "verdicts.jsonl")]
    result = CliRunner().invoke(
        app, ["policy", "simulate", "--tenant", "acme", "--threshold", "0.5", *files, *flags], catch_exceptions=True
    )
    if result.exception is not None:
        raise result.exception
    assert "--verdicts, line 8 is not a stream verdict" in result.stderr
    return json.loads(result.stdout) if "--json" in flags else result.stdout


def test_recorded_verdicts_replay_to_the_recorded_cut(tmp_path: Path) -> None:
    _, position = recorded()
    same = simulate(tmp_path, "{}", "--json", "--stream", "s-1")
    assert isinstance(same, dict)
    assert (same["was_cut_at"], same["cut"]["position"], same["cut"]["reason"]) == (position, position, "unsafe")
    assert StreamPolicy().cut_unsafe == 2


def test_other_rules_are_compared_with_the_recording(tmp_path: Path) -> None:
    found = simulate(tmp_path, "stream: {cut_unsafe: 1}", "--json")
    assert isinstance(found, dict)
    assert (found["streams"], found["differences"]["earlier"]) == (1, 1)
    text = simulate(tmp_path, "stream: {cut_unsafe: 1}")
    assert "1 cut by these rules (unsafe 1)" in str(text)
    line = simulate(tmp_path, "stream: {cut_unsafe: 9}", "--stream", "s-1")
    assert "these rules do not cut it" in str(line)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--stream", "other"], "--stream: there is no verdict of stream 'other' of tenant 'acme'"),
        (["--since", "2026-01-01"], "--since counts for verdicts of Kafka; a file of --verdicts is read as a whole"),
        (["--verdicts", "/none"], "--verdicts: cannot read /none: No such file or directory"),
    ],
)
def test_what_prevents_a_simulation_is_named(tmp_path: Path, flags: list[str], sentence: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        simulate(tmp_path, "{}", *flags)
    assert str(caught.value) == sentence
