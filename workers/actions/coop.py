"""The format `coop`: review items become reports in Coop, and appeals become appeals. Pure.

Written after Coop's published API, commit 1f1c54d of roostorg/coop: `docs/api/report.md`, `docs/api/appeal.md`, and the
JSON Schemas of request bodies in `server/routes/reporting/ReportingRoutes.ts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from schemas.taxonomy import Category
from workers.actions.delivery import Call, Delivery
from workers.actions.format import ByStatus
from workers.actions.secrets import Secrets
from workers.core.decide import compact
from workers.core.marks import written_time
from workers.settings.action_sections import Kind
from workers.settings.coop_sections import ATTRIBUTE, CoopItems

APPEALED = "appealed"
REPORT, APPEAL = "report", "report/appeal"
"""The paths behind the URL of the endpoint, `https://HOST/api/v1`."""


class Coop(ByStatus):
    """Makes calls of Coop's API. `url` ends with `/api/v1`, and the header `X-API-KEY` comes from a file.

    Coop does not know a repeated report: it adds the second one to the same item.
    """

    def __init__(self, items: CoopItems, secrets: Secrets) -> None:
        self._items = items
        self._secrets = secrets

    def body(self, kind: Kind, document: Mapping[str, Any], value: bytes, at_ms: int) -> bytes | None:
        """Return a report for a review item, an appeal for an item that was just appealed, None for anything else."""
        if kind == "review":
            return compact(report(document, self._items, at_ms))
        if kind == "appeal" and is_new_appeal(document):
            return compact(appeal(document, self._items))
        return None

    def call(self, batch: Sequence[Delivery], now_s: float) -> Call:
        """See `Format.call`."""
        (delivery,) = batch
        headers = {**self._secrets.headers, "Content-Type": "application/json"}
        return Call(delivery.body, headers, path=APPEAL if delivery.kind == "appeal" else REPORT)


def report(item: Mapping[str, Any], items: CoopItems, at_ms: int) -> dict[str, Any]:
    """Give the report of a review item. Coop's id of the item is the `verdict_id`, which its callbacks name again.

    Raises:
        LookupError, TypeError, ValueError: the item lacks a field.
    """
    document: dict[str, Any] = {
        "reporter": {"kind": "user", "typeId": items.user_type, "id": items.reporter},
        "reportedAt": written_time(at_ms / 1000).decode(),
        "reportedForReason": {"reason": _reason(item)},
        "reportedItem": _item(item["verdict_id"], item, item["text"], item["attributes"], items),
    }
    if policies := _policies(item, items):
        document["reportedForReason"]["policyId"] = policies[0]
    if item["context"]:
        document["reportedItemThread"] = _earlier(item["verdict_id"], item["context"], items)
    return document


def is_new_appeal(state: Mapping[str, Any]) -> bool:
    """Whether the state of an item is the one that an appeal made: each appeal makes exactly one such record."""
    history = state["history"]
    return state["status"] == APPEALED and bool(history) and history[-1]["action"] == APPEALED


def appeal_id(verdict_id: str, current: str) -> str:
    """Give Coop's id of an appeal. It names the appealed verdict, so that an old callback fits no new appeal."""
    return f"{verdict_id}.{current}"


def appeal(state: Mapping[str, Any], items: CoopItems) -> dict[str, Any]:
    """Give the appeal of an item, from its state.

    Raises:
        LookupError, TypeError, ValueError: the state lacks a field, or has no content any more.
    """
    verdict, content = state["verdict"], state["content"]
    action = items.actions.get(state["current_decision"])
    document: dict[str, Any] = {
        "appealId": appeal_id(state["verdict_id"], state["current"]),
        "appealedBy": {"typeId": items.user_type, "id": verdict.get("author_id") or "unknown"},
        "appealedAt": written_time(state["waiting_since"] / 1000).decode(),
        "actionedItem": _item(state["verdict_id"], verdict, content["text"], content["attributes"], items),
        "actionsTaken": [action] if action else [],
        "appealReason": state["appeal"] or "",
    }
    if policies := _policies(verdict, items):
        document["violatingPolicies"] = [{"id": policy} for policy in policies]
    if content["context"]:
        document["additionalItems"] = _earlier(state["verdict_id"], content["context"], items)
    return document


def _item(
    identity: str, verdict: Mapping[str, Any], text: str, attributes: Mapping[str, Any], items: CoopItems
) -> dict[str, Any]:
    author = verdict.get("author_id")
    assessment = verdict.get("assessment") or {}
    values = {
        "text": text,
        "created_at": verdict.get("created_at"),
        "tenant": verdict["tenant_id"],
        "surface": verdict["surface"],
        "language": verdict.get("language"),
        "author": {"id": author, "typeId": items.user_type} if author else None,
        "decision": verdict["decision"],
        "severity": assessment.get("severity"),
        "categories": assessment.get("categories"),
        "reasons": ", ".join(verdict["reasons"]),
        "policy": f"{verdict['policy']['id']} {verdict['policy']['version']}",
        "event_id": verdict["event_id"],
    }
    data = {}
    for name, field in items.fields.items():
        value = attributes.get(name.removeprefix(ATTRIBUTE)) if name.startswith(ATTRIBUTE) else values[name]
        if value is not None:
            data[field] = value if isinstance(value, str | list | dict) else orjson.dumps(value).decode()
    return {"id": identity, "typeId": items.item_type, "data": data}


def _earlier(identity: str, context: Sequence[Mapping[str, Any]], items: CoopItems) -> list[dict[str, Any]]:
    # Turns have no ids of their own. Their item type needs a field for the text at least.
    field = items.fields.get("text", "text")
    return [
        {"id": f"{identity}.context.{number}", "typeId": items.item_type, "data": {field: turn["text"]}}
        for number, turn in enumerate(context)
        if turn["text"]
    ]


def _policies(verdict: Mapping[str, Any], items: CoopItems) -> list[str]:
    names = (verdict.get("assessment") or {}).get("categories") or ()
    return [items.policies[Category(name)] for name in names if name in items.policies]


def _reason(item: Mapping[str, Any]) -> str:
    policy = item["policy"]
    return f"{', '.join(item['reasons']) or 'no reason'} (policy {policy['id']}, version {policy['version']})"
