"""Turns an assessment into a tenant's decision. Pure: no I/O, no clock; the same input always gives the same decision.

An event that could not be judged is never allowed: the policy's `on_unavailable` decides.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import orjson

from schemas.policy import Policy, Rule
from workers.policy.document import with_preset
from workers.policy.presets import STRICT_DEFAULT
from workers.policy.strikes import CompiledStrikes

_STRICTNESS = {"allow": 0, "review": 1, "block": 2}
_UNAVAILABLE = ("unavailable",)

_Decided = tuple[str, tuple[str, ...]]

MAX_TABLE = 4_096
"""Cached decisions of a policy. Models list categories in any order, so the cache is cleared when it is full."""


class _Line:
    """A rule as plain values: reading a pydantic model and hashing enums would cost more than deciding."""

    __slots__ = ("categories", "decision", "language", "min_score", "min_strikes", "role", "severity", "surface")

    def __init__(self, rule: Rule) -> None:
        self.severity = rule.severity and rule.severity.value
        self.categories = None if rule.categories is None else frozenset(item.value for item in rule.categories)
        self.surface = rule.surface and rule.surface.value
        self.role = rule.role and rule.role.value
        self.language = rule.language and rule.language.lower()
        self.min_score = rule.min_score
        self.min_strikes = rule.min_strikes
        self.decision = rule.decision.value

    def concerns(
        self,
        severity: str,
        category: str | None,
        surface: str,
        role: str,
        language: str | None,
        strikes: float | None,
    ) -> bool:
        """Whether every condition except the score holds."""
        return (
            (self.severity is None or self.severity == severity)
            and (self.categories is None or category in self.categories)
            and (self.surface is None or self.surface == surface)
            and (self.role is None or self.role == role)
            and (self.language is None or _speaks(language, self.language))
            and (self.min_strikes is None or (strikes is not None and strikes >= self.min_strikes))
        )


class CompiledPolicy:
    """A policy, ready to decide.

    Attributes:
        id, version, digest: how a verdict names its policy. The digest covers every field that decides, not id and
            version.
        reference: the three as a dict; shared by all verdicts, never changed.
        on_unavailable: hold, review or block. For `hold`, the caller waits.
        shared_cache: whether assessments may be shared with other tenants.
        review: how people review what the policy sends to review.
        stream: the rules of streams.
        stream_reference: how the records of a stream name its rules. The digest covers only the rules of streams.
        strikes: how the tenant counts strikes; None if it counts none.
        uses_strikes: whether a rule asks for the author's strikes.
    """

    __slots__ = (
        "_defaults",
        "_languages",
        "_lines",
        "_strike_levels",
        "_table",
        "_uses_scores",
        "digest",
        "id",
        "on_unavailable",
        "reference",
        "review",
        "shared_cache",
        "stream",
        "stream_reference",
        "strikes",
        "uses_strikes",
        "version",
    )

    def __init__(self, policy: Policy) -> None:
        """Compile a policy.

        Raises:
            InvalidPolicy: the preset does not exist.
        """
        full = with_preset(policy)
        self.id = policy.id
        self.version = policy.version
        self.digest = digest(full)
        self.reference: dict[str, str | int] = {"id": self.id, "version": self.version, "digest": self.digest}
        self.on_unavailable = full.on_unavailable
        self.shared_cache = full.shared_cache
        self.review = full.review
        self.stream = full.stream
        self.stream_reference = {**self.reference, "digest": _hash(full.stream.model_dump())}
        self._defaults = {
            "Safe": full.safe.value,
            "Controversial": full.controversial.value,
            "Unsafe": full.unsafe.value,
        }
        self._lines = [_Line(rule) for rule in full.rules]
        self._uses_scores = any(line.min_score is not None for line in self._lines)
        self._languages = frozenset(line.language for line in self._lines if line.language is not None)
        self.strikes = None if full.strikes is None else CompiledStrikes(full.strikes)
        self._strike_levels = sorted({line.min_strikes for line in self._lines if line.min_strikes is not None})
        self.uses_strikes = bool(self._strike_levels)
        self._table: dict[tuple[str, tuple[str, ...], str, str, str | None, float | None], _Decided] = {}

    def decide(
        self,
        assessment: Mapping[str, Any] | None,
        *,
        surface: str,
        role: str = "user",
        language: str | None = None,
        strikes: float | None = None,
    ) -> tuple[str, tuple[str, ...]]:
        """Return the decision (allow, review or block) and the findings that led to it.

        `assessment` is a `schemas.assessment.Assessment` as a dict; None if the event could not be judged. `strikes`:
        those of the author; None if they are not known. Then a rule with `min_strikes` does not match.
        """
        if assessment is None:
            return ("block" if self.on_unavailable == "block" else "review"), _UNAVAILABLE
        if language is not None:
            language = self._known_language(language) if self._languages else None
        if strikes is not None:
            strikes = self._reached(strikes)
        if self._uses_scores:
            return self._evaluate(assessment, surface, role, language, strikes)
        key = (assessment["severity"], tuple(assessment["categories"]), surface, role, language, strikes)
        decided = self._table.get(key)
        if decided is None:
            if len(self._table) >= MAX_TABLE:
                self._table.clear()
            decided = self._table[key] = self._evaluate(assessment, surface, role, language, strikes)
        return decided

    def _known_language(self, language: str) -> str | None:
        # Senders may write any language. The longest prefix that a rule names is bounded, so it can be a cache key.
        language = language.lower()
        while language not in self._languages:
            language, dash, _ = language.rpartition("-")
            if not dash:
                return None
        return language

    def _reached(self, strikes: float) -> float | None:
        # The highest number that a rule names and the author has reached is bounded, so it can be a cache key.
        reached = bisect_right(self._strike_levels, strikes)
        return self._strike_levels[reached - 1] if reached else None

    def _evaluate(
        self, assessment: Mapping[str, Any], surface: str, role: str, language: str | None, strikes: float | None
    ) -> _Decided:
        severity = str(assessment["severity"])
        categories: Sequence[str | None] = [str(category) for category in assessment["categories"]] or [None]
        decided = [
            (self._one(assessment, severity, category, surface, role, language, strikes), category)
            for category in categories
        ]
        strictest = max((decision for decision, _ in decided), key=_STRICTNESS.__getitem__)
        if severity == "Safe" and strictest == "allow":
            return strictest, ()
        name = severity.lower()
        return strictest, tuple(
            name if category is None else f"{name}:{category}"
            for decision, category in decided
            if decision == strictest
        )

    def _one(
        self,
        assessment: Mapping[str, Any],
        severity: str,
        category: str | None,
        surface: str,
        role: str,
        language: str | None,
        strikes: float | None,
    ) -> str:
        for line in self._lines:
            if not line.concerns(severity, category, surface, role, language, strikes):
                continue
            if line.min_score is None or _score(line, assessment, severity, category) >= line.min_score:
                return line.decision
        return self._defaults[severity]


def default_strict() -> CompiledPolicy:
    """Return the compiled policy of tenants without one, where no default was set."""
    return CompiledPolicy(STRICT_DEFAULT)


def digest(policy: Policy) -> str:
    """Return 16 hex digits of SHA-256 over the canonical JSON of the deciding fields: equal rules, equal digest."""
    content = policy.model_dump(exclude={"id", "version", "preset", "schema_version", "strikes", "review", "stream"})
    for rule in content["rules"]:
        if rule["min_strikes"] is None:  # So that rules of before this condition keep their digest.
            del rule["min_strikes"]
    return _hash(content)


def _hash(content: Mapping[str, Any]) -> str:
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _speaks(language: str | None, wanted: str) -> bool:
    return language is not None and (language == wanted or language.startswith(wanted + "-"))


def _score(line: _Line, assessment: Mapping[str, Any], severity: str, category: str | None) -> float:
    # A missing score counts as 0, so it meets no threshold above 0: the rule does not match.
    if line.categories is not None and category is not None:
        return float(assessment["category_scores"].get(category, 0.0))
    return float(assessment["scores"][severity.lower()])
