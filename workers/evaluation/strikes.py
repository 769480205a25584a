"""Applies a tenant's rules for strikes to past verdicts: how many authors would have reached each threshold.

It keeps about 150 bytes for each author, and 48 more for each strike (`tests/unit/evaluation/test_strikes.py`).
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Any

from workers.core.pseudonyms import Pseudonyms
from workers.policy.policy import CompiledPolicy
from workers.policy.strikes import CompiledStrikes, Contribution

PERCENTILES = (50, 90, 95, 99, 99.9)

MAX_STEPS = 200
"""Points of the curve in a report."""

_AUTHOR = Struct("<dHH")
"""The most strikes of an author, and a bit for each threshold: those in force, and those ever reached."""
_CONTRIBUTION = Struct("<16sqd16s")
_NOBODY = _AUTHOR.pack(0.0, 0, 0)
_NONE = bytes(16)


class Simulation:
    """Adds the verdicts of one tenant, in the order of their times. Others are skipped.

    `secret` is that of the pseudonyms by which a report names authors.
    """

    def __init__(self, tenant: str, policy: CompiledPolicy, strikes: CompiledStrikes, *, secret: str) -> None:
        self._tenant = tenant
        self._policy = policy
        self._strikes = strikes
        self._pseudonyms = Pseudonyms(secret)
        self._authors: dict[bytes, bytes] = {}
        self._raised: Counter[str] = Counter()
        self._changed: Counter[tuple[str, str]] = Counter()
        self._now_ms = 0
        self._verdicts = 0
        self._counted = 0

    def add(self, verdict: Mapping[str, Any]) -> None:
        """Add a verdict (a `schemas.verdict.Verdict` as a dict).

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it is not a verdict.
        """
        if verdict["tenant_id"] != self._tenant:
            return
        contribution = self._strikes.contribution(verdict)
        author_id = verdict["author_id"]
        self._now_ms = max(self._now_ms, int(verdict["timings"]["received_at"]))
        self._verdicts += 1
        if author_id is None:
            return
        key = bytes.fromhex(self._pseudonyms.of(self._tenant, author_id))
        stored = self._authors.setdefault(key, _NOBODY)
        if self._policy.uses_strikes:
            self._decide(verdict, stored)
        if contribution is not None:
            self._counted += contribution.weight > 0
            self._authors[key] = self._counting(stored, contribution)

    def _counting(self, stored: bytes, contribution: Contribution) -> bytes:
        """Return an author's entry with one more contribution."""
        most, in_force, reached = _AUTHOR.unpack_from(stored)
        before = _held(stored)
        # Strikes end between two verdicts, and a threshold may be cleared by that.
        faded = self._strikes.crossings(self._names(in_force), self._strikes.value(before, self._now_ms))
        held = self._strikes.add(before, contribution, self._now_ms)
        value = self._strikes.value(held, self._now_ms)
        crossed = self._strikes.crossings(faded.in_force, value)
        self._raised.update(crossed.raised)
        bits = self._bits(crossed.in_force)
        return _AUTHOR.pack(max(most, value), bits, reached | bits) + b"".join(map(_packed, held))

    def _decide(self, verdict: Mapping[str, Any], stored: bytes) -> None:
        """Count whether the strikes change the policy's decision on a verdict."""
        assessment = verdict["assessment"]
        if assessment is None or verdict.get("supersedes") is not None:
            return
        strikes = self._strikes.value(_held(stored), self._now_ms)
        with_strikes, without = (
            self._policy.decide(
                assessment,
                surface=verdict["surface"],
                role=verdict["role"],
                language=verdict["language"],
                strikes=number,
            )[0]
            for number in (strikes, None)
        )
        if with_strikes != without:
            self._changed[without, with_strikes] += 1

    def report(self, *, top: int = 0) -> dict[str, Any]:
        """Return the figures, ready for JSON. `top`: how many authors it names, those with the most strikes first."""
        reached: Counter[str] = Counter()
        in_force: Counter[str] = Counter()
        peaks = []
        for stored in self._authors.values():
            most, now, ever = _AUTHOR.unpack_from(stored)
            peaks.append(most)
            reached.update(self._names(ever))
            if now:
                value = self._strikes.value(_held(stored), self._now_ms)
                in_force.update(self._strikes.crossings(self._names(now), value).in_force)
        peaks.sort()
        striking = peaks[bisect_right(peaks, 0.0) :]
        return {
            "tenant_id": self._tenant,
            "verdicts": self._verdicts,
            "verdicts_with_strikes": self._counted,
            "authors": len(peaks),
            "authors_with_strikes": len(striking),
            "thresholds": [
                {
                    **threshold._asdict(),
                    "authors": reached[threshold.name],
                    "raised": self._raised[threshold.name],
                    "in_force": in_force[threshold.name],
                }
                for threshold in self._strikes.thresholds
            ],
            "percentiles": {f"{part:g}": _percentile(striking, part) for part in PERCENTILES} if striking else {},
            "most": striking[-1] if striking else 0.0,
            "at_least": _curve(striking),
            "decisions_changed": [
                {"without_strikes": without, "with_strikes": decision, "verdicts": count}
                for (without, decision), count in sorted(self._changed.items())
            ],
            "top": self._top(top),
        }

    def _top(self, count: int) -> list[dict[str, Any]]:
        most = ((_AUTHOR.unpack_from(stored)[0], key) for key, stored in self._authors.items())
        found = heapq.nlargest(count, most) if count else []
        return [{"pseudonym": key.hex(), "strikes": strikes} for strikes, key in found if strikes]

    def _names(self, bits: int) -> list[str]:
        return [threshold.name for number, threshold in enumerate(self._strikes.thresholds) if bits >> number & 1]

    def _bits(self, names: Iterable[str]) -> int:
        return sum(1 << number for number, threshold in enumerate(self._strikes.thresholds) if threshold.name in names)


def _packed(entry: Contribution) -> bytes:
    """Write a contribution. Raises ValueError if its ids or its time cannot be those of a verdict."""
    ids = [bytes.fromhex(one) for one in (entry.verdict_id, entry.supersedes or _NONE.hex())]
    if any(len(one) != len(_NONE) for one in ids) or not 0 <= entry.at_ms < 2**63:
        raise ValueError("not the id or the time of a verdict")
    return _CONTRIBUTION.pack(ids[0], entry.at_ms, entry.weight, ids[1])


def _held(stored: bytes) -> list[Contribution]:
    return [
        Contribution(verdict_id.hex(), at_ms, weight, None if supersedes == _NONE else supersedes.hex())
        for verdict_id, at_ms, weight, supersedes in _CONTRIBUTION.iter_unpack(stored[_AUTHOR.size :])
    ]


def _percentile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest number that at least `part` percent of the numbers do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * part / 100) - 1)]


def _curve(ordered: Sequence[float]) -> list[tuple[float, int]]:
    """Return, for up to `MAX_STEPS` numbers of strikes, how many authors had at least as many."""
    levels = sorted(set(ordered))
    if len(levels) > MAX_STEPS:
        levels = [levels[number * (len(levels) - 1) // (MAX_STEPS - 1)] for number in range(MAX_STEPS)]
    return [(level, len(ordered) - bisect_left(ordered, level)) for level in levels]
