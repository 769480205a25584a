"""Rules of streams, applied to recorded stream verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.policy import StreamPolicy
from workers.policy.stream_replay import StreamReplay

ROWS = {"s": [0.9, 0.06, 0.04], "c": [0.2, 0.7, 0.1], "u": [0.1, 0.2, 0.7]}


def verdicts(stream: str, *steps: str, cut: bool = False) -> list[dict[str, Any]]:
    """Make the verdicts of a stream: `?` and a letter for a turn of the user, else a letter for each position."""
    made: list[dict[str, Any]] = [{"kind": "open", "outcome": "opened"}]
    position = 0
    for number, step in enumerate(steps, 1):
        is_cut = cut and number == len(steps)
        outcome = {"outcome": "cut" if is_cut else "judged"}
        if step.startswith("?"):
            severity = {"s": "Safe", "c": "Controversial", "u": "Unsafe"}[step[1]]
            categories = [] if severity == "Safe" else ["Jailbreak"]
            prompt = {"severity": severity, "risk": ROWS[step[1]], "categories": categories}
            made.append({"kind": "user", "prompt": prompt, **outcome})
            continue
        names = [None if mark == "s" else "Violent" for mark in step]
        rows = [ROWS[mark] for mark in step]
        made.append({"kind": "delta", "first_position": position, "risk": rows, "categories": names, **outcome})
        position += len(step)
    return [{"stream_id": stream, "tenant_id": "acme", **verdict} for verdict in made]


def replayed(rules: StreamPolicy, *streams: list[dict[str, Any]]) -> StreamReplay:
    replay = StreamReplay("acme", rules)
    for stream in streams:
        for verdict in stream:
            replay.add(verdict)
    return replay


@pytest.mark.parametrize(
    ("rules", "steps", "was_cut", "difference"),
    [
        ({}, ("?s", "ssu", "us"), False, "only_planned"),
        ({}, ("?s", "ssu", "u"), True, "same"),
        ({"cut_unsafe": 1}, ("?s", "ssu", "u"), True, "earlier"),
        ({"cut_unsafe": 3}, ("?s", "ssu", "u"), True, "only_recorded"),
        ({"cut_unsafe": 3}, ("?s", "ssu", "ss"), False, "neither"),
        ({"cut_prompt": "controversial"}, ("?c", "uu"), True, "earlier"),
        ({}, ("?u",), True, "same"),
        ({"cut_prompt": None}, ("?u",), True, "only_recorded"),
        ({"cut_controversial": 2}, ("?s", "c", "?s", "c"), False, "neither"),
    ],
)
def test_a_stream_is_cut_as_the_rules_would_have_cut_it(
    rules: dict[str, Any], steps: tuple[str, ...], was_cut: bool, difference: str
) -> None:
    replay = replayed(StreamPolicy.model_validate(rules), verdicts("s", *steps, cut=was_cut))
    assert replay.streams["s"].difference == difference
    assert replay.report()["differences"][difference] == 1


def test_a_report_counts_the_streams_of_one_tenant() -> None:
    other = [{**verdict, "tenant_id": "other"} for verdict in verdicts("x", "?s", "uu")]
    unavailable = {"stream_id": "c", "tenant_id": "acme", "kind": "delta", "outcome": "unavailable"}
    repeated = {"stream_id": "a", "tenant_id": "acme", "kind": "delta", "outcome": "repeated"}
    replay = replayed(
        StreamPolicy(cut_unsafe=None, mean_weight=0.5),
        verdicts("a", "?s", "ssu", "u", cut=True),
        verdicts("a", "?s", "ssss"),
        verdicts("b", "?u", cut=True),
        other,
        [unavailable, repeated],
    )
    assert replay.report() == {
        "streams": 4,
        "positions": 8,
        "recorded_cuts": 2,
        "recorded_unavailable": 1,
        "cuts": 2,
        "cuts_by_reason": {"mean": 1, "prompt": 1},
        "median_position": 3,
        "differences": {"same": 2, "earlier": 0, "later": 0, "only_planned": 0, "only_recorded": 0, "neither": 2},
    }


def test_a_verdict_that_lost_its_first_positions_keeps_the_numbers_of_the_others() -> None:
    recording = verdicts("s", "?s", "ssss", "suu", cut=True)
    del recording[2]["risk"][:3], recording[2]["categories"][:3]
    recording[2]["first_position"] = 3
    stream = replayed(StreamPolicy(), recording).streams["s"]
    assert stream.cut is not None
    assert (stream.was_cut_at, stream.cut.position) == (6, 6)
