"""An author's strikes in its row: each verdict adds some, and crosses thresholds. Pure."""

from __future__ import annotations

from workers.aggregates.rows import MAX_EVIDENCE, Key, Row
from workers.aggregates.signals import Crossing, crossed
from workers.aggregates.verdicts import Seen
from workers.policy.strikes import CompiledStrikes


def add(row: Row, rules: CompiledStrikes, seen: Seen, now_ms: int) -> bool:
    """Add to the row what a verdict adds to the strikes of its author; False: nothing."""
    contribution = rules.contribution(seen.as_verdict())
    if contribution is None:
        return False
    row.strikes = rules.add(row.strikes, contribution._replace(at_ms=min(contribution.at_ms, now_ms)), now_ms)
    return True


def author_signals(key: Key, row: Row, rules: CompiledStrikes | None, now_ms: int) -> list[Crossing]:
    """Compare an author's strikes with the tenant's thresholds; return the signals of those that are crossed.

    Without rules, because the tenant's policy counts no strikes any more, each threshold in force is cleared.
    """
    value = 0.0
    raised: tuple[str, ...] = ()
    cleared = tuple(sorted(row.raised))
    if rules is not None:
        value = rules.value(row.strikes, now_ms)
        raised, cleared, _ = rules.crossings(row.raised.keys(), value)
    if not raised and not cleared:
        return []
    levels = {} if rules is None else {one.name: one for one in rules.thresholds}
    superseded = {one.supersedes for one in row.strikes}
    evidence = [one.verdict_id for one in row.strikes if one.weight and one.verdict_id not in superseded][:MAX_EVIDENCE]

    def of(name: str, *, is_raised: bool) -> Crossing:
        if name in levels:
            threshold = levels[name].at if is_raised else levels[name].clear_below
        else:
            threshold = row.raised[name].threshold
        return crossed(
            key, row, name, is_raised=is_raised, value=value, threshold=threshold, evidence=evidence, at_ms=now_ms
        )

    return [*(of(name, is_raised=True) for name in raised), *(of(name, is_raised=False) for name in cleared)]
