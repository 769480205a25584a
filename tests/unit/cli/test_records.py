"""The lines that `guardline verdicts` and `guardline signals` print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workers.cli.records import _intervention_line, _line, _signal_line, _stream_line

CONTRACTS = Path(__file__).parents[2] / "fixtures" / "contracts"

VERDICT: dict[str, Any] = {
    "decision": "allow",
    "tenant_id": "acme",
    "surface": "chat",
    "event_id": "e1",
    "duplicate_of": None,
    "assessment": {"severity": "Unsafe", "categories": ["Violent"]},
}


def test_a_superseding_verdict_names_its_author_and_the_verdict_that_it_replaces() -> None:
    assert _line(VERDICT) == "allow   acme  chat  e1  Unsafe Violent"
    superseding = {**VERDICT, "supersedes": "b381bab5", "decided_by": "ana"}
    assert _line(superseding) == "allow   acme  chat  e1  Unsafe Violent  (by ana, supersedes b381bab5)"


def stream_verdict(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONTRACTS / "stream_verdict" / "1.0.json").read_text())
    return found | changes


def test_a_stream_verdict_says_what_was_found_in_the_prompt_and_in_the_answer() -> None:
    both = "prompt Controversial Jailbreak  answer Unsafe Violent, the worst of 2 tokens"
    assert _stream_line(stream_verdict()) == f"judged          acme  s-1  1 user  {both}  shown 5"
    of_answer = stream_verdict(prompt=None, kind="delta", outcome="cut")
    line = "cut             acme  s-1  1 delta  answer Unsafe Violent, the worst of 2 tokens  shown 5"
    assert _stream_line(of_answer) == line
    of_gateway = stream_verdict(kind="close", seq=0, outcome="cut", risk=[], categories=[])
    assert _stream_line(of_gateway) == "cut             acme  s-1  0 close  prompt Controversial Jailbreak  shown 5"
    opened = stream_verdict(kind="open", seq=0, outcome="opened", prompt=None, risk=[], categories=[])
    assert _stream_line(opened) == "opened          acme  s-1  0 open  shown 5"


@pytest.mark.parametrize(
    ("risk", "categories", "said"),
    [
        ([[0.02, 0.95, 0.03], [0.05, 0.0, 0.95]], ["PII", "Violent"], "Unsafe Violent, the worst of 2 tokens"),
        ([[0.1, 0.2, 0.7], [0.0, 0.1, 0.9]], ["PII", "Violent"], "Unsafe Violent, the worst of 2 tokens"),
        ([[0.5, 0.5, 0.0]], ["PII"], "Controversial PII, the worst of 1 token"),
        ([[0.9, 0.06, 0.04]], [None], "Safe, the worst of 1 token"),
    ],
)
def test_the_worst_token_has_the_most_severe_finding(
    risk: list[list[float]], categories: list[str | None], said: str
) -> None:
    assert f"  answer {said}  shown" in _stream_line(stream_verdict(risk=risk, categories=categories))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "cut at token 17: unsafe Violent"),
        ({"reason": "prompt", "position": 0}, "cut at the user's turn: Violent"),
        ({"reason": "unavailable", "categories": []}, "not judged from token 17 on"),
    ],
)
def test_an_intervention_says_where_the_answer_ends_and_why(changes: dict[str, Any], said: str) -> None:
    intervention = json.loads((CONTRACTS / "intervention" / "1.0.json").read_text()) | changes
    assert _intervention_line(intervention) == f"intervention    acme  s-1  3  {said}  shown 60"


def test_a_signal_says_which_threshold_its_subject_has_crossed() -> None:
    (fixture,) = (CONTRACTS / "signal").glob("1.0.json")
    found = json.loads(fixture.read_text())
    signal = found[0] if isinstance(found, list) else found
    signal |= {"state": "raised", "tenant_id": "acme", "threshold_name": "warn", "subject": "u-17"}
    assert _signal_line({**signal, "value": 3.0, "threshold": 3.0}) == "raised   acme  warn  u-17  3 at least 3"
