"""The built-in policies, by name. A tenant's document starts from one with `preset: <name>`.

They are starting points for a conversation with the people who answer for a platform, not legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from schemas.policy import Policy, Rule
from schemas.taxonomy import Category, Decision, Role, Severity

_ALLOW, _REVIEW, _BLOCK = Decision.ALLOW, Decision.REVIEW, Decision.BLOCK
_CONTROVERSIAL, _UNSAFE = Severity.CONTROVERSIAL, Severity.UNSAFE


def _rule(decision: Decision, severity: Severity, *categories: Category) -> Rule:
    return Rule(severity=severity, categories=list(categories), decision=decision)


def _preset(name: str, controversial: Decision, *rules: Rule, shared_cache: bool = False) -> Policy:
    return Policy(id=name, controversial=controversial, rules=list(rules), shared_cache=shared_cache)


STRICT_DEFAULT = _preset("default-strict", _BLOCK)
"""What a tenant without a policy gets: nothing that the model doubts is let through."""

PRESETS: Mapping[str, Policy] = MappingProxyType(
    {
        policy.id: policy
        for policy in (
            # The two readings of `Controversial` in the model's report: it counts as unsafe, or as safe.
            _preset("strict", _BLOCK),
            _preset("loose", _ALLOW),
            # A community talks about everything; a person looks at what the model doubts.
            _preset(
                "social",
                _ALLOW,
                _rule(
                    _REVIEW, _CONTROVERSIAL, Category.SUICIDE_AND_SELF_HARM, Category.SEXUAL_CONTENT, Category.VIOLENT
                ),
                _rule(_REVIEW, _UNSAFE, Category.SUICIDE_AND_SELF_HARM, Category.POLITICALLY_SENSITIVE_TOPICS),
            ),
            # Customers send their own addresses and order numbers: that is what support is for.
            _preset(
                "support",
                _REVIEW,
                Rule(categories=[Category.PII], role=Role.USER, decision=_ALLOW),
                _rule(_ALLOW, _CONTROVERSIAL, Category.UNETHICAL_ACTS, Category.POLITICALLY_SENSITIVE_TOPICS),
            ),
            # History and literature hold war and politics; a pupil in distress is never just blocked.
            _preset(
                "education",
                _BLOCK,
                Rule(categories=[Category.SUICIDE_AND_SELF_HARM], decision=_REVIEW),
                _rule(_REVIEW, _CONTROVERSIAL, Category.VIOLENT, Category.POLITICALLY_SENSITIVE_TOPICS),
                _rule(_REVIEW, _UNSAFE, Category.POLITICALLY_SENSITIVE_TOPICS),
            ),
            # Patients speak of bodies and of despair: a person answers, and nothing of it is blocked unseen.
            _preset(
                "health",
                _REVIEW,
                Rule(categories=[Category.SUICIDE_AND_SELF_HARM], decision=_REVIEW),
                Rule(categories=[Category.PII], role=Role.USER, decision=_ALLOW),
                _rule(_ALLOW, _CONTROVERSIAL, Category.SEXUAL_CONTENT),
            ),
            # An authority may not suppress political speech unseen.
            _preset(
                "public-sector",
                _REVIEW,
                Rule(categories=[Category.POLITICALLY_SENSITIVE_TOPICS], decision=_REVIEW),
                Rule(categories=[Category.SUICIDE_AND_SELF_HARM], decision=_REVIEW),
            ),
        )
    }
)
