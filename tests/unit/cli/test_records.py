"""The lines that `guardline verdicts` and `guardline signals` print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workers.cli.records import _line, _signal_line

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


def test_a_signal_says_which_threshold_its_subject_has_crossed() -> None:
    (fixture,) = (Path(__file__).parents[2] / "fixtures" / "contracts" / "signal").glob("1.0.json")
    found = json.loads(fixture.read_text())
    signal = found[0] if isinstance(found, list) else found
    signal |= {"state": "raised", "tenant_id": "acme", "threshold_name": "warn", "subject": "u-17"}
    assert _signal_line({**signal, "value": 3.0, "threshold": 3.0}) == "raised   acme  warn  u-17  3 at least 3"
