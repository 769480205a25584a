"""The built-in policies, by name. A tenant's document starts from one with `preset: <name>`.

They are starting points for a discussion with the people who are responsible for a platform, not legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from schemas.policy import HoldBack, Policy, Rule, StreamPolicy
from schemas.taxonomy import Category, Decision, Role, Severity

_ALLOW, _REVIEW, _BLOCK = Decision.ALLOW, Decision.REVIEW, Decision.BLOCK
_CONTROVERSIAL, _UNSAFE = Severity.CONTROVERSIAL, Severity.UNSAFE


def _rule(decision: Decision, severity: Severity, *categories: Category) -> Rule:
    return Rule(severity=severity, categories=list(categories), decision=decision)


def _preset(name: str, controversial: Decision, *rules: Rule, stream: StreamPolicy | None = None) -> Policy:
    return Policy(id=name, controversial=controversial, rules=list(rules), stream=stream or StreamPolicy())


STRICT_DEFAULT = _preset("default-strict", _BLOCK)
"""The policy of a tenant without one: it allows only what the model finds safe."""

PRESETS: Mapping[str, Policy] = MappingProxyType(
    {
        policy.id: policy
        for policy in (
            # The two uses of `Controversial` in the model's report: it counts as unsafe, or as safe.
            _preset("strict", _BLOCK, stream=StreamPolicy(cut_prompt="controversial", cut_controversial=2)),
            _preset("loose", _ALLOW),
            # A community discusses all topics; a person reviews the sensitive ones.
            _preset(
                "social",
                _ALLOW,
                _rule(
                    _REVIEW, _CONTROVERSIAL, Category.SUICIDE_AND_SELF_HARM, Category.SEXUAL_CONTENT, Category.VIOLENT
                ),
                _rule(_REVIEW, _UNSAFE, Category.SUICIDE_AND_SELF_HARM, Category.POLITICALLY_SENSITIVE_TOPICS),
            ),
            # Customers send their own addresses and order numbers, which support needs.
            _preset(
                "support",
                _REVIEW,
                Rule(categories=[Category.PII], role=Role.USER, decision=_ALLOW),
                _rule(_ALLOW, _CONTROVERSIAL, Category.UNETHICAL_ACTS, Category.POLITICALLY_SENSITIVE_TOPICS),
            ),
            # Lessons on history and literature include war and politics. A message of a pupil in distress is reviewed
            # by a person, never only blocked.
            _preset(
                "education",
                _BLOCK,
                Rule(categories=[Category.SUICIDE_AND_SELF_HARM], decision=_REVIEW),
                _rule(_REVIEW, _CONTROVERSIAL, Category.VIOLENT, Category.POLITICALLY_SENSITIVE_TOPICS),
                _rule(_REVIEW, _UNSAFE, Category.POLITICALLY_SENSITIVE_TOPICS),
                # An assistant must not leave such a pupil without an answer, and shows whole sentences.
                stream=StreamPolicy(cut_prompt=None, cut_controversial=8, hold_back=HoldBack(until="sentence")),
            ),
            # Patients write about their bodies and about despair: a person reads such a message before it is blocked.
            _preset(
                "health",
                _REVIEW,
                Rule(categories=[Category.SUICIDE_AND_SELF_HARM], decision=_REVIEW),
                Rule(categories=[Category.PII], role=Role.USER, decision=_ALLOW),
                _rule(_ALLOW, _CONTROVERSIAL, Category.SEXUAL_CONTENT),
                stream=StreamPolicy(cut_prompt=None, hold_back=HoldBack(until="sentence")),
            ),
            # A public authority must not block political speech without a person's review.
            _preset(
                "public-sector",
                _REVIEW,
                Rule(categories=[Category.POLITICALLY_SENSITIVE_TOPICS], decision=_REVIEW),
                Rule(categories=[Category.SUICIDE_AND_SELF_HARM], decision=_REVIEW),
            ),
        )
    }
)
