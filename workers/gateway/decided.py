"""What the proxy decided about a choice, as the records of streams have it. Pure. No record holds a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from schemas.policy import StreamPolicy
from schemas.stream import Intervention, PromptJudgement, StreamVerdict
from schemas.verdict import PolicyReference, SourcePosition
from workers.gateway.choice import Choice

SOURCE = "gateway"
"""In the place of a topic: a choice has no record."""


class Terms(NamedTuple):
    """What was in force when a request came."""

    tenant: str
    reference: Mapping[str, str | int]
    rules: StreamPolicy


def records_of(choice: Choice, terms: Terms, now_ms: int) -> tuple[StreamVerdict, Intervention | None]:
    """Give the verdict on a choice that has ended, in whatever way, and the intervention if it was cut.

    The verdict has the kind `user` if the prompt was cut, and `close` otherwise.
    """
    cut = choice.cut
    common: dict[str, Any] = {
        "stream_id": f"{SOURCE}-{choice.id}",
        "tenant_id": terms.tenant,
        "seq": 0,
        "shown_chars": choice.shown_chars,
        "policy": PolicyReference.model_validate(terms.reference),
        "source": SourcePosition(topic=SOURCE, partition=0, offset=0, timestamp=now_ms),
    }
    found = choice.found
    verdict = StreamVerdict(
        verdict_id=choice.id,
        kind="user" if cut is not None and cut.reason == "prompt" else "close",
        outcome="unavailable" if choice.is_unjudged else "closed" if cut is None else "cut",
        prompt=None
        if found is None
        else PromptJudgement.model_validate(
            {"severity": found.severity, "risk": found.risk, "categories": list(found.categories)}
        ),
        rules=terms.rules,
        **common,
    )
    if cut is None:
        return verdict, None
    intervention = Intervention.model_validate(
        {
            **common,
            "intervention_id": choice.id,
            "position": cut.position,
            "reason": cut.reason,
            "severity": cut.severity,
            "categories": list(cut.categories),
            "replacement": terms.rules.replacement,
        }
    )
    return verdict, intervention
