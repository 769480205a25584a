"""The format `webhook`: one signed call for each verdict or signal, by Standard Webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workers.actions.delivery import Call, Delivery
from workers.actions.format import ByStatus
from workers.actions.secrets import Secrets
from workers.actions.signing import signed_headers
from workers.core.decide import carried, compact
from workers.core.marks import written_time
from workers.settings.action_sections import Kind

TYPES: Mapping[Kind, str] = {
    "verdict": "verdict.created",
    "superseding": "verdict.superseded",
    "signal": "signal.changed",
    "review": "review.requested",
    "appeal": "review.appealed",
}

CONTENT = ("text", "context")
"""The fields of a review item that a webhook never has."""


class Webhook(ByStatus):
    """Makes signed calls. The body of a delivery is always the same, and its signature has the time of the attempt."""

    def __init__(self, secrets: Secrets, carry_attributes: bool | Sequence[str] = True) -> None:
        """`carry_attributes`: the attributes of the event that a call has, by the setting `events.carry_attributes`."""
        self._secrets = secrets
        self._carry_attributes = carry_attributes

    def body(self, kind: Kind, document: Mapping[str, Any], value: bytes, at_ms: int) -> bytes | None:
        """Return `{"type", "timestamp", "data"}`: `timestamp` is Kafka's, `data` the verdict or signal as it is."""
        if kind == "review":
            item = {name: held for name, held in document.items() if name not in CONTENT}
            item["attributes"] = carried(item.get("attributes") or {}, self._carry_attributes)
            value = compact(item)
        return b'{"type":"%b","timestamp":"%b","data":%b}' % (
            TYPES[kind].encode(),
            written_time(at_ms / 1000),
            value,
        )

    def call(self, batch: Sequence[Delivery], now_s: float) -> Call:
        """See `Format.call`."""
        (delivery,) = batch
        headers = {
            **self._secrets.headers,
            "Content-Type": "application/json",
            **signed_headers(self._secrets.keys, delivery.id, now_s, delivery.body),
        }
        return Call(delivery.body, headers)
