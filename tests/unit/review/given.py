"""Commands, items and a clock for the tests of the review worker."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from schemas.review_command import ReviewCommand
from tests.reviewing import review_item
from workers.review.item import Item
from workers.review.rules import applied
from workers.review.terms import Change, Given, TenantRules, Terms
from workers.review.verdicts import superseding_id

NOW = 1_763_949_700_000
MINUTE = 60_000
TERMS = Terms(
    lease_ms=2 * MINUTE, undo_ms=5_000, keep_decided_ms=60 * MINUTE, keep_history_ms=600 * MINUTE, max_leases=10
)
AT_ONCE = TERMS._replace(undo_ms=0)
TENANT = TenantRules(sla_ms=60 * MINUTE, retention_ms=1_200 * MINUTE, four_eyes=frozenset())
FOUR_EYES = TENANT._replace(four_eyes=frozenset({"Violent"}))
ROLES = {"ana": "reviewer", "bob": "reviewer", "sue": "senior", "sam": "senior", "aud": "auditor", "coop": "service"}

_ids = count(1)


def command(kind: str, by: str = "guardline", verdict_id: str | None = None, **fields: Any) -> ReviewCommand:
    record = {
        "command_id": f"{next(_ids):032x}",
        "verdict_id": verdict_id or review_item(1)["verdict_id"],
        "kind": kind,
        "by": by,
        "role": ROLES.get(by, "system"),
        "at": NOW,
        **fields,
    }
    return ReviewCommand.model_validate_json(json.dumps(record))


def given(
    command: ReviewCommand,
    now: int = NOW,
    terms: Terms = TERMS,
    tenant: TenantRules = TENANT,
    document: dict[str, Any] | None = None,
) -> Given:
    return Given(command, now, terms, tenant, lambda causing: superseding_id("test", causing), document or {})


def opened(tenant: TenantRules = TENANT, terms: Terms = TERMS, now: int = NOW, **changes: Any) -> Item:
    """Give an item that has arrived."""
    document = review_item(1, **changes)
    change = applied(None, given(command("arrive", item=document, key="cm9vbQ=="), now, terms, tenant, document))
    assert change.item is not None
    return change.item


class Case:
    """An item, and the commands that it gets."""

    def __init__(self, tenant: TenantRules = TENANT, terms: Terms = AT_ONCE, **changes: Any) -> None:
        self.tenant, self.terms, self.now = tenant, terms, NOW
        self.item: Item = opened(tenant, terms, **changes)
        self.actions: list[str] = []

    def do(self, kind: str, by: str = "guardline", **fields: Any) -> Change:
        change = applied(self.item, given(command(kind, by, **fields), self.now, self.terms, self.tenant))
        assert change.item is not None
        self.item = change.item
        self.actions += change.actions
        return change
