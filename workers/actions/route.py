"""The Kafka side of one endpoint: its group, its inputs and its outputs. `guardline actions` uses it too."""

from __future__ import annotations

from workers.actions.reading import inputs_of
from workers.kafka.route import Route
from workers.settings import Batch, Settings
from workers.settings.action_sections import Endpoint

HELD = 10
"""How many times `actions.max_waiting` records may be uncommitted. Deliveries that have ended wait for an earlier one
of their partition that is tried again, and other partitions should not wait with them."""


def route_of(endpoint: Endpoint, settings: Settings) -> Route:
    """Return the route of one endpoint: its group is `KAFKA.GROUP.actions.NAME`."""
    most = settings.actions.max_waiting
    topics = settings.topics
    return Route(
        kafka=settings.kafka.model_copy(update={"group": f"{settings.kafka.group}.actions.{endpoint.name}"}),
        worker_id=settings.worker.id,
        inputs=inputs_of(endpoint, topics),
        outputs={
            topics.deliveries: "topics.deliveries",
            endpoint.dead_letters: f"actions.endpoints, {endpoint.name}, undelivered",
        },
        dead_letters=endpoint.dead_letters,
        is_static=settings.worker.has_name,
        batch=Batch(low_water=most, high_water=HELD * most, in_flight=1),
        commit=settings.commit,
        target_s=settings.worker.target_s,
    )
