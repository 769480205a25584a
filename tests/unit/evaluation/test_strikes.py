"""The simulation of strikes: what past verdicts would have added up to."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from schemas.policy import Policy
from workers.core.pseudonyms import Pseudonyms
from workers.evaluation import strikes
from workers.evaluation.strikes import Simulation
from workers.policy.policy import CompiledPolicy

HOUR_MS = 3_600_000
NOW_MS = 1_795_000_000_000


def simulation_of(**fields: Any) -> Simulation:
    compiled = CompiledPolicy(Policy.model_validate({"id": "acme", "strikes": {}, **fields}))
    assert compiled.strikes is not None
    return Simulation("acme", compiled, compiled.strikes, secret="s")


def verdict(number: int, author: str | None = "u", hours: float = 0, **changes: Any) -> dict[str, Any]:
    at_ms = NOW_MS + int(hours * HOUR_MS)
    return {
        "verdict_id": f"{number:032x}",
        "tenant_id": "acme",
        "author_id": author,
        "surface": "chat",
        "role": "user",
        "language": None,
        "decision": "block",
        "assessment": {"severity": "Unsafe", "categories": []},
        "duplicate_of": None,
        "source": {"topic": "t", "partition": 0, "offset": number, "timestamp": at_ms},
        "timings": {"received_at": at_ms},
        **changes,
    }


THRESHOLDS = [{"name": "warn", "at": 2}, {"name": "ban", "at": 4, "clear_below": 3}]


def test_a_report_says_how_many_authors_reached_each_threshold() -> None:
    simulation = simulation_of(strikes={"thresholds": THRESHOLDS})
    for number, author in enumerate("aaaa" + "bb" + "c"):
        simulation.add(verdict(number, author))
    simulation.add(verdict(90, "d", decision="allow"))
    simulation.add(verdict(91, None))
    simulation.add(verdict(92, "e", tenant_id="other"))
    simulation.add(verdict(93, "c", duplicate_of="1" * 32))
    report = simulation.report()
    assert [(line["name"], line["authors"], line["raised"], line["in_force"]) for line in report["thresholds"]] == [
        ("warn", 2, 2, 2),
        ("ban", 1, 1, 1),
    ]
    counts = (report["verdicts"], report["verdicts_with_strikes"], report["authors"], report["authors_with_strikes"])
    assert counts == (10, 7, 4, 3)
    assert (report["at_least"], report["most"]) == ([(1, 3), (2, 2), (4, 1)], 4)
    assert report["percentiles"] == {"50": 2, "90": 4, "95": 4, "99": 4, "99.9": 4}
    assert report["top"] == []


def test_strikes_that_end_clear_a_threshold_and_new_ones_raise_it_again() -> None:
    simulation = simulation_of(strikes={"window_hours": 10, "thresholds": THRESHOLDS})
    for number, hours in enumerate([0, 1, 20, 21, 60]):
        simulation.add(verdict(number, hours=hours))
    (warn, ban) = simulation.report()["thresholds"]
    assert (warn["authors"], warn["raised"], warn["in_force"]) == (1, 2, 0)
    assert (ban["authors"], ban["raised"]) == (0, 0)


def test_an_appeal_takes_the_strike_back_and_the_peak_stays() -> None:
    simulation = simulation_of(strikes={"thresholds": THRESHOLDS})
    for number in range(2):
        simulation.add(verdict(number))
    simulation.add(verdict(9, supersedes=f"{1:032x}", decision="allow"))
    simulation.add(verdict(10, supersedes=f"{0:032x}", decision="allow"))
    report = simulation.report()
    assert (report["thresholds"][0]["authors"], report["thresholds"][0]["in_force"], report["most"]) == (1, 0, 2)


def test_a_report_counts_the_decisions_that_strikes_change() -> None:
    simulation = simulation_of(unsafe="review", rules=[{"severity": "Unsafe", "min_strikes": 2, "decision": "block"}])
    for number in range(5):
        simulation.add(verdict(number, decision="review"))
    simulation.add(verdict(9, decision="review", assessment=None))
    assert simulation.report()["decisions_changed"] == [
        {"without_strikes": "review", "with_strikes": "block", "verdicts": 3}
    ]


def test_authors_are_named_by_pseudonym_and_only_on_request() -> None:
    simulation = simulation_of()
    for number, author in enumerate(["hidden-name", "hidden-name", "other"]):
        simulation.add(verdict(number, author))
    assert simulation.report(top=1)["top"] == [{"pseudonym": Pseudonyms("s").of("acme", "hidden-name"), "strikes": 2}]
    assert "hidden-name" not in str(simulation.report(top=5))


def test_without_verdicts_a_report_has_no_figures() -> None:
    report = simulation_of(strikes={"thresholds": THRESHOLDS}).report(top=3)
    assert (report["authors"], report["percentiles"], report["at_least"], report["top"]) == (0, {}, [], [])


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"tenant_id": "acme"},
        verdict(0) | {"timings": None},
        [],
        "x",
        verdict(0) | {"verdict_id": "abcd"},
        verdict(0, hours=1e14),
    ],
)
def test_what_is_not_a_verdict_is_refused(broken: Any) -> None:
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        simulation_of().add(broken)


def test_a_curve_of_many_levels_is_short_and_keeps_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strikes, "MAX_STEPS", 5)
    simulation = simulation_of()
    for author in range(20):
        for number in range(author + 1):
            simulation.add(verdict(100 * author + number, f"u{author}"))
    assert simulation.report()["at_least"] == [(1, 20), (5, 16), (10, 11), (15, 6), (20, 1)]


def test_an_author_takes_a_few_hundred_bytes() -> None:
    """A million authors, each with a strike, are then below 400 MB."""
    simulation = simulation_of()
    count = 5_000
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            simulation.add(verdict(number, f"author-{number}"))
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / count < 400
