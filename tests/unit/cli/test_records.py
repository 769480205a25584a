"""The lines that `guardline verdicts` and `guardline signals` print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workers.cli.records import _intervention_line, _line, _signal_line, _stream_line

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


CONTRACTS = Path(__file__).parents[2] / "fixtures" / "contracts"


def test_a_stream_verdict_says_what_was_found_in_a_turn_of_the_user_or_in_the_worst_token_of_an_answer() -> None:
    verdict = json.loads((CONTRACTS / "stream_verdict" / "1.0.json").read_text())
    of_user = {**verdict, "risk": [], "categories": []}
    assert _stream_line(of_user) == "judged          acme  s-1  1 user  Controversial Jailbreak  shown 5"
    of_answer = {**verdict, "prompt": None, "kind": "delta", "outcome": "cut"}
    line = "cut             acme  s-1  1 delta  Unsafe Violent, the worst of 2 tokens  shown 5"
    assert _stream_line(of_answer) == line
    opened = {**of_user, "prompt": None, "kind": "open", "seq": 0, "outcome": "opened"}
    assert _stream_line(opened) == "opened          acme  s-1  0 open  shown 5"


def test_an_intervention_says_where_the_answer_ends_and_why() -> None:
    intervention = json.loads((CONTRACTS / "intervention" / "1.0.json").read_text())
    line = "intervention    acme  s-1  3  cut at token 17: unsafe Violent  shown 60"
    assert _intervention_line(intervention) == line


def test_a_signal_says_which_threshold_its_subject_has_crossed() -> None:
    (fixture,) = (CONTRACTS / "signal").glob("1.0.json")
    found = json.loads(fixture.read_text())
    signal = found[0] if isinstance(found, list) else found
    signal |= {"state": "raised", "tenant_id": "acme", "threshold_name": "warn", "subject": "u-17"}
    assert _signal_line({**signal, "value": 3.0, "threshold": 3.0}) == "raised   acme  warn  u-17  3 at least 3"
