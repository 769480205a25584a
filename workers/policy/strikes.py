"""Counts the strikes of one author by a tenant's rules. Pure: no I/O, no clock; all times are given.

A strike is a verdict's weight. Two verdicts on one event never count both: the superseding one replaces the other.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from schemas.policy import Strikes, StrikeWeight

MAX_CONTRIBUTIONS = 256
"""Verdicts of one author that are kept, the newest. An author with more has reached any sensible threshold."""

MAX_STEPS = 32
"""Steps of a `Standing`. It is read for each event, so it is smaller than the list of contributions."""

DEFAULT_WINDOW_HOURS = 720
"""The window of rules that set neither a window nor a half-life: 30 days."""

HALF_LIVES = 10
"""A strike ends after this many half-lives, when a thousandth of it is left."""

DIGITS = 3
"""Decimal places of a number of strikes. They hide the rounding errors of the sums, and a verdict holds the number as
it was compared."""

_HOUR_MS = 3_600_000


class Contribution(NamedTuple):
    """What one verdict adds to the strikes of its author.

    `at_ms` is the time of its event, in milliseconds since 1970-01-01 UTC. `supersedes` is the id of the verdict that
    it replaces; its weight may then be 0.
    """

    verdict_id: str
    at_ms: int
    weight: float
    supersedes: str | None = None


class Decay(Struct, frozen=True, gc=False):
    """How strikes lose their weight: all at once at the end of a window, or by half in each half-life.

    Exactly one of `window_ms` and `half_life_ms` is set.
    """

    window_ms: Annotated[int, Meta(gt=0)] | None
    half_life_ms: Annotated[int, Meta(gt=0)] | None

    @property
    def lasts_ms(self) -> int:
        """How long after its event a strike counts."""
        if self.window_ms is not None:
            return self.window_ms
        return HALF_LIVES * (self.half_life_ms or 0)

    def value(self, steps: Iterable[tuple[int, float]], now_ms: int) -> float:
        """Return the number of strikes at a time, rounded to `DIGITS`. Each step is a time and a weight.

        A strike whose time is after `now_ms` counts in full, because the clocks of two workers may differ. The order of
        the steps does not matter.
        """
        lasts_ms, half_life_ms = self.lasts_ms, self.half_life_ms
        counting = [(at_ms, weight) for at_ms, weight in steps if at_ms + lasts_ms > now_ms]
        if half_life_ms is None:
            return round(math.fsum(weight for _, weight in counting), DIGITS)
        return round(
            math.fsum(weight * 0.5 ** (max(0, now_ms - at_ms) / half_life_ms) for at_ms, weight in counting), DIGITS
        )


class Standing(Struct, frozen=True, gc=False):
    """An author's strikes without the verdicts. A reader can tell their number at any later time, without a policy."""

    decay: Decay
    steps: Annotated[tuple[tuple[int, Annotated[float, Meta(ge=0, le=1e9)]], ...], Meta(max_length=MAX_STEPS)]

    def value(self, now_ms: int) -> float:
        """Return the number of strikes at a time, rounded to `DIGITS`."""
        return self.decay.value(self.steps, now_ms)


NO_STRIKES = Standing(Decay(1, None), ())
"""The standing of an author of whom nothing is stored."""


class Threshold(NamedTuple):
    """A number of strikes that raises a signal, and the number below which the signal is cleared."""

    name: str
    at: float
    clear_below: float


class Crossings(NamedTuple):
    """The thresholds that a new number of strikes has crossed, by name, and those that are in force afterwards."""

    raised: tuple[str, ...]
    cleared: tuple[str, ...]
    in_force: frozenset[str]


class _Weight:
    """A `StrikeWeight` as plain values."""

    __slots__ = ("categories", "severity", "weight")

    def __init__(self, weight: StrikeWeight) -> None:
        self.severity = weight.severity and weight.severity.value
        self.categories = None if weight.categories is None else frozenset(item.value for item in weight.categories)
        self.weight = weight.weight

    def concerns(self, severity: str, categories: Iterable[str]) -> bool:
        return (self.severity is None or self.severity == severity) and (
            self.categories is None or not self.categories.isdisjoint(categories)
        )


class CompiledStrikes:
    """A tenant's rules for strikes, ready to count.

    Attributes:
        decay: how strikes lose their weight.
        thresholds: the thresholds, the lowest first.
    """

    __slots__ = ("_weights", "decay", "thresholds")

    def __init__(self, strikes: Strikes) -> None:
        self._weights = [_Weight(weight) for weight in strikes.weights]
        self.decay = _decay(strikes)
        levels = [
            Threshold(found.name, found.at, found.at / 2 if found.clear_below is None else found.clear_below)
            for found in strikes.thresholds
        ]
        self.thresholds = tuple(sorted(levels, key=lambda threshold: (threshold.at, threshold.name)))

    def contribution(self, verdict: Mapping[str, Any]) -> Contribution | None:
        """Return what a verdict (a `schemas.verdict.Verdict` as a dict) adds to its author's strikes. None: nothing.

        Nothing is added by a verdict of `allow`, by one on a duplicate, and by one without an assessment, unless a
        person named the severity. A superseding verdict always gives a contribution, because it takes another one back.
        The first of the weights that matches counts.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it is not a verdict.
        """
        supersedes = verdict.get("supersedes")
        weight = 0.0 if verdict["decision"] == "allow" or verdict["duplicate_of"] else self._weight(verdict)
        if not weight and supersedes is None:
            return None
        return Contribution(str(verdict["verdict_id"]), time_of(verdict), weight, supersedes)

    def _weight(self, verdict: Mapping[str, Any]) -> float:
        assessment = verdict["assessment"] or {}
        corrected = verdict.get("corrected") or {}
        severity = corrected.get("severity") or assessment.get("severity")
        if severity is None:
            return 0.0
        categories = corrected.get("categories")
        if categories is None:
            categories = assessment.get("categories", ())
        for weight in self._weights:
            if weight.concerns(severity, categories):
                return weight.weight
        return 0.0

    def add(self, held: Iterable[Contribution], new: Contribution, now_ms: int) -> list[Contribution]:
        """Return an author's contributions with a new one, the newest first, at most `MAX_CONTRIBUTIONS`.

        Guarantee: the same contributions in any order, each once or several times, give the same list, as long as there
        are not more than `MAX_CONTRIBUTIONS`. The one that another supersedes does not count, whichever comes first.
        """
        found = {entry.verdict_id: entry for entry in held}
        found[new.verdict_id] = new
        superseded = {entry.supersedes for entry in found.values()}
        begin_ms = now_ms - self.decay.lasts_ms
        # A superseding verdict stays, also if it is superseded: the verdict that it replaced may be read again.
        kept = [
            entry
            for entry in found.values()
            if entry.at_ms > begin_ms and (entry.verdict_id not in superseded or entry.supersedes is not None)
        ]
        kept.sort(key=lambda entry: (entry.at_ms, entry.verdict_id), reverse=True)
        return kept[:MAX_CONTRIBUTIONS]

    def value(self, held: Collection[Contribution], now_ms: int) -> float:
        """Return the number of strikes at a time, rounded to `DIGITS`. `held` comes from `add`."""
        return self.decay.value(_steps(held), now_ms)

    def standing(self, held: Collection[Contribution], now_ms: int) -> Standing:
        """Return the strikes without the verdicts, in at most `MAX_STEPS` steps.

        With a half-life it is one step, and exact to a thousandth of each strike. With a window and more strikes than
        steps, a strike may end too early, by a thirtieth of the window at most, and never too late.
        """
        begin_ms = now_ms - self.decay.lasts_ms
        steps = [(at_ms, weight) for at_ms, weight in _steps(held) if weight and at_ms > begin_ms]
        if self.decay.half_life_ms is not None:
            steps = _as_one(steps, self.decay.half_life_ms)
        elif len(steps) > MAX_STEPS:
            steps = _merged(steps, max(1, self.decay.lasts_ms // (MAX_STEPS - 2)))
        return Standing(self.decay, tuple(sorted(steps)[-MAX_STEPS:]))

    def crossings(self, in_force: Collection[str], value: float) -> Crossings:
        """Return the thresholds that are crossed when the number of strikes becomes `value`.

        Guarantee: a threshold that is in force is raised again only after it was cleared. A second call with the same
        number crosses nothing. A threshold that the rules no longer have is cleared.
        """
        raised = tuple(
            threshold.name for threshold in self.thresholds if threshold.name not in in_force and value >= threshold.at
        )
        staying = {
            threshold.name
            for threshold in self.thresholds
            if threshold.name in in_force and value >= threshold.clear_below
        }
        cleared = tuple(sorted(set(in_force) - staying))
        return Crossings(raised, cleared, frozenset(staying.union(raised)))


def time_of(verdict: Mapping[str, Any]) -> int:
    """Return the time at which a verdict's event was sent, in milliseconds since 1970-01-01 UTC.

    It is Kafka's timestamp of the event, and never after the worker received the event: a producer's clock that is
    ahead must not prolong a strike. A superseding verdict has the time of the verdict that it replaces.
    """
    sent_ms, received_ms = verdict["source"]["timestamp"], int(verdict["timings"]["received_at"])
    return received_ms if sent_ms is None else min(int(sent_ms), received_ms)


def _decay(strikes: Strikes) -> Decay:
    if strikes.half_life_hours is not None:
        return Decay(None, max(1, round(strikes.half_life_hours * _HOUR_MS)))
    hours = DEFAULT_WINDOW_HOURS if strikes.window_hours is None else strikes.window_hours
    return Decay(max(1, round(hours * _HOUR_MS)), None)


def _as_one(steps: Sequence[tuple[int, float]], half_life_ms: int) -> list[tuple[int, float]]:
    # Strikes that decay alike stay in proportion, so their sum decays as each of them does.
    if not steps:
        return []
    newest_ms = max(at_ms for at_ms, _ in steps)
    return [(newest_ms, math.fsum(weight * 0.5 ** ((newest_ms - at_ms) / half_life_ms) for at_ms, weight in steps))]


def _merged(steps: Iterable[tuple[int, float]], width_ms: int) -> list[tuple[int, float]]:
    merged: dict[int, tuple[int, float]] = {}
    for at_ms, weight in steps:
        before = merged.get(at_ms // width_ms, (at_ms, 0.0))
        merged[at_ms // width_ms] = min(before[0], at_ms), before[1] + weight
    return list(merged.values())


def _steps(held: Collection[Contribution]) -> Sequence[tuple[int, float]]:
    superseded = {entry.supersedes for entry in held}
    return [(entry.at_ms, entry.weight) for entry in held if entry.verdict_id not in superseded]
