"""`guardline reward`: each row once, in order, with its reward or with the reason why it has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.command import guardline
from tests.lines import read_lines, write_lines
from tests.unit.reward.test_rewards import ASKED, HARMFUL, HARMLESS
from workers.annotation.file_work import Summary
from workers.annotation.rewarding import Rewarding
from workers.errors import Misconfigured, Unavailable
from workers.guard.guard import Request
from workers.reward.equations import Equation
from workers.settings import Batch


def test_each_row_comes_back_with_its_reward(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": ASKED, "completion": HARMLESS, "q": 0.5, "n": 1},
        {"prompt": [{"role": "user", "content": ASKED}], "completion": f"<think>{HARMFUL}</think>{HARMLESS}", "q": 2},
        {"prompt": ASKED, "completion": f"<think>{HARMLESS}", "q": 2},
        {"prompt": ASKED, "q": 2},
        {"prompt": ASKED, "completion": HARMLESS, "q": "high"},
    ]
    source = write_lines(tmp_path / "in.jsonl", rows)
    source.write_bytes(source.read_bytes() + b"no JSON\n")
    said = guardline("reward", source, tmp_path / "guard.jsonl").stderr
    assert "6 rows, 3 judged now" in said
    assert f"3 rows cannot be judged; {tmp_path / 'guard.jsonl'} says why" in said
    found = read_lines(tmp_path / "guard.jsonl")
    assert [row["reward"] for row in found] == [1.0, 0.0, None, None, 1.0, None]
    assert [row["problem"] for row in found][2:4] == [
        "row 3: the completion has no answer, only a thought",
        "row 4: completion: the field is required",
    ]
    assert found[5]["problem"].startswith("row 6: ")
    assert found[5]["value"] == "no JSON"
    assert [{name: row[name] for name in rows[0]} for row in found[:1]] == rows[:1]
    guardline("reward", source, tmp_path / "hybrid.jsonl", "--mode", "hybrid", "--score-field", "q")
    hybrid = read_lines(tmp_path / "hybrid.jsonl")
    assert [row["reward"] for row in hybrid] == [0.5, -10.0, None, None, None, None]
    assert hybrid[4]["problem"] == "row 5: q: must be a number"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guard.jsonl", "hybrid.jsonl", "in.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "hybrid"], "--mode hybrid needs --score-field"),
        (["--score-field", "q"], "--mode guard takes none"),
    ],
)
def test_a_score_field_belongs_to_the_mode_hybrid(tmp_path: Path, arguments: list[str], said: str) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"prompt": "a", "completion": "b"}])
    assert said in guardline("reward", source, tmp_path / "out.jsonl", *arguments, code=2).stderr


def test_other_formats_than_json_lines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt,completion\na,b\n")
    with pytest.raises(Misconfigured, match="JSON lines"):
        Rewarding(tmp_path / "in.csv", tmp_path / "out.csv", Equation())


class Troubled:
    """A guard that is down for one completion until it is repaired."""

    fingerprint = "troubled"

    def __init__(self) -> None:
        self.judged: list[str] = []
        self.is_repaired = False

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any]]:
        if not self.is_repaired and any(request.text == "c7" for request in requests):
            raise Unavailable("connection refused")
        self.judged += [request.text for request in requests]
        return [{"severity": "Safe", "refusal": False, "truncated_windows": 0} for _ in requests]


async def test_an_interrupted_run_continues_without_judging_a_row_twice(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": f"c{number}"} for number in range(10)]
    source = write_lines(tmp_path / "in.jsonl", rows)
    guard = Troubled()

    async def run(equation: Equation) -> Summary:
        rewarding = Rewarding(source, tmp_path / "out.jsonl", equation)
        return await rewarding.run(guard, Batch(max_count=2, in_flight=1), 0.1, lambda rows, position: None)

    with pytest.raises(Unavailable, match="Run the same command to continue"):
        await run(Equation())
    guard.is_repaired = True
    with pytest.raises(Misconfigured, match="another model or settings"):
        await run(Equation(controversial="safe"))
    assert await run(Equation()) == Summary(rows=10, bad=0, judged=4)
    assert guard.judged == [row["completion"] for row in rows]
    assert [row["reward"] for row in read_lines(tmp_path / "out.jsonl")] == [1.0] * 10
