"""What a delivery leaves in Kafka when it ends: its record, and a dead letter if it was given up. Pure."""

from __future__ import annotations

from workers import telemetry
from workers.actions.delivery import Delivery
from workers.core.dead_letters import dead_letter
from workers.core.decide import compact
from workers.core.marks import written_time
from workers.core.records import Finished, Headers, Output
from workers.errors import OneAtFault
from workers.settings.action_sections import Endpoint

SCHEMA_VERSION = 1

DELIVERED = "delivered"
FORGOTTEN = "forgotten"
"""The author was forgotten before the delivery was accepted. It has no dead letter, which would hold the author."""

OUTCOMES = (DELIVERED, "refused", "expired", "gone", FORGOTTEN)

AUTHOR, HAPPENED = "author.id", "event.ms"
"""The headers of a dead letter by which a request to forget its author reaches it."""


class Letters:
    """Makes the outputs of one endpoint's records."""

    def __init__(self, endpoint: Endpoint, deliveries: str) -> None:
        self._endpoint = endpoint
        self._deliveries = deliveries
        # The first increase of a series that did not exist before is not visible to an alert.
        for outcome in OUTCOMES:
            telemetry.DELIVERIES.labels(endpoint.name, outcome)

    def finished(self, delivery: Delivery, reason: str | None, now_s: float) -> Finished:
        """Return the finished record of a delivery: `reason` is None if it was accepted. `now_s`: since 1970."""
        outputs: tuple[Output, ...] = (self.record(delivery, reason or DELIVERED, now_s),)
        if reason is not None and reason != FORGOTTEN:
            outputs += self._letter(delivery, reason)
        counter = telemetry.DELIVERIES.labels(self._endpoint.name, reason or DELIVERED)
        return Finished(delivery.source, outputs, counted=(counter,))

    def record(self, delivery: Delivery, outcome: str, now_s: float, *, is_repeat: bool = False) -> Output:
        """Return the record for the topic of deliveries. Its key is the id: the record's own key may name an author."""
        first_ms = delivery.first_attempt_ms
        document = {
            "schema_version": SCHEMA_VERSION,
            "id": delivery.id,
            "endpoint": self._endpoint.name,
            "kind": delivery.kind,
            "tenant_id": delivery.tenant_id,
            "outcome": outcome,
            "attempts": delivery.attempts,
            "status": delivery.status,
            "first_attempt_at": written_time(first_ms / 1000).decode() if first_ms else None,
            "ended_at": written_time(now_s).decode(),
            "is_repeat": is_repeat,
        }
        return Output(self._deliveries, delivery.id.encode(), compact(document))

    def _letter(self, delivery: Delivery, reason: str) -> tuple[Output, ...]:
        own: Headers = [
            ("webhook-id", delivery.id.encode()),
            ("kind", delivery.kind.encode()),
            ("tenant.id", delivery.tenant_id.encode()),
            ("endpoint", self._endpoint.name.encode()),
            ("attempts", str(delivery.attempts).encode()),
        ]
        if delivery.status is not None:
            own.append(("status", str(delivery.status).encode()))
        if delivery.first_attempt_ms:
            own.append(("attempt.first", written_time(delivery.first_attempt_ms / 1000)))
            own.append(("attempt.last", written_time(delivery.last_attempt_ms / 1000)))
        if delivery.author_id is not None:
            own.append((AUTHOR, delivery.author_id.encode()))
            own.append((HAPPENED, str(delivery.happened_ms).encode()))
        error = OneAtFault(reason, delivery.reason)
        topic = self._endpoint.dead_letters
        return dead_letter(topic, delivery.source, delivery.key, delivery.body, own, error).outputs
