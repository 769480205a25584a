"""Applies rules of streams to recorded stream verdicts: where each stream would have been cut. Pure.

A recording ends where the stream was cut. Rules that would have let it go on are known to that point only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from schemas.policy import StreamPolicy
from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES
from workers.policy.streams import Cut, StreamRules


class ReplayedStream(Struct):
    """One stream: how it was recorded to end, and how the rules would end it."""

    tenant_id: str
    stream_id: str
    rules: StreamRules
    positions: int = 0
    """How many positions were judged."""
    was_cut: bool = False
    was_cut_at: int | None = None
    """The position of the recorded cut; None if it was at a turn of the user or because of unavailability."""
    was_unavailable: bool = False
    cut: Cut | None = None

    def add(self, verdict: Mapping[str, Any]) -> None:
        """Apply the rules to the next verdict of the stream, a `schemas.stream.StreamVerdict` as a dict.

        Raises:
            LookupError, TypeError, ValueError: it is not such a verdict.
        """
        rows, names = verdict.get("risk", ()), verdict.get("categories", ())
        first = verdict.get("first_position")
        if first is not None and first != self.positions:  # A very long verdict has lost its first positions.
            self.positions = first
            if self.cut is None:
                self.rules.positions = first
        self.positions += len(rows)
        for row, name in zip(rows, names, strict=True):
            if self.cut is None:
                self._note(self.rules.position(row, _one(name, ANSWER_CATEGORIES), 0), name)
        if verdict["kind"] in ("user", "close"):
            self.rules.end_turn()
        prompt = verdict.get("prompt")
        if prompt is not None and self.cut is None:
            category = prompt["categories"][0] if prompt["categories"] else None
            self._note(self.rules.prompt(prompt["risk"], _one(category, PROMPT_CATEGORIES)), category)
        if verdict["outcome"] == "cut":
            self.was_cut = True
            if rows and prompt is None:
                self.was_cut_at = self.positions - 1
        self.was_unavailable |= verdict["outcome"] == "unavailable"

    def _note(self, cut: Cut | None, category: str | None) -> None:
        # A verdict names no category where Safe is the most likely severity: there it is not known.
        self.cut = structs.replace(cut, categories=()) if cut is not None and category is None else cut

    @property
    def difference(self) -> str:
        """How the rules compare with the recording: a key of `StreamReplay.report`."""
        if self.cut is None:
            return "only_recorded" if self.was_cut else "neither"
        if not self.was_cut:
            return "only_planned"
        at = -1 if self.cut.reason == "prompt" else self.cut.position
        recorded = -1 if self.was_cut_at is None else self.was_cut_at
        return "same" if at == recorded else "earlier" if at < recorded else "later"


class StreamReplay:
    """Adds the stream verdicts of one tenant, those of one stream in their order. Others are skipped.

    Keeps about a kilobyte for each stream.
    """

    def __init__(self, tenant: str, rules: StreamPolicy, threshold: float | None = None) -> None:
        self._tenant = tenant
        self._rules = rules
        self._threshold = threshold
        self.streams: dict[str, ReplayedStream] = {}
        """By `stream_id`. A stream whose id was used again counts as a further one."""
        self._ended: list[ReplayedStream] = []

    def add(self, verdict: Mapping[str, Any]) -> None:
        """Add a verdict.

        Raises:
            LookupError, TypeError, ValueError: it is not a stream verdict.
        """
        if verdict["tenant_id"] != self._tenant or verdict["outcome"] in ("repeated", "unknown_stream"):
            return
        name = str(verdict["stream_id"])
        if verdict["outcome"] == "opened" and name in self.streams:
            self._ended.append(self.streams.pop(name))
        stream = self.streams.get(name)
        if stream is None:
            rules = StreamRules(self._rules, self._threshold)
            stream = self.streams[name] = ReplayedStream(self._tenant, name, rules)
        stream.add(verdict)

    def report(self) -> dict[str, Any]:
        """Return all figures."""
        every: Sequence[ReplayedStream] = [*self._ended, *self.streams.values()]
        differences = [stream.difference for stream in every]
        positions = sorted(stream.cut.position for stream in every if stream.cut and stream.cut.reason != "prompt")
        reasons = [stream.cut.reason for stream in every if stream.cut]
        return {
            "streams": len(every),
            "positions": sum(stream.positions for stream in every),
            "recorded_cuts": sum(stream.was_cut for stream in every),
            "recorded_unavailable": sum(stream.was_unavailable for stream in every),
            "cuts": len(reasons),
            "cuts_by_reason": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
            "median_position": positions[len(positions) // 2] if positions else None,
            "differences": {
                name: differences.count(name)
                for name in ("same", "earlier", "later", "only_planned", "only_recorded", "neither")
            },
        }


def _one(name: str | None, names: Sequence[str]) -> list[float]:
    """Return probabilities whose highest is that of the recorded category."""
    return [float(each == name) for each in names]
