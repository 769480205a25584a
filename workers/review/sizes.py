"""How large the records of the review worker are, and whether its topics take them."""

from __future__ import annotations

from workers.errors import Misconfigured
from workers.kafka import clients
from workers.kafka.topic_settings import described, limit_of, state_bytes
from workers.settings import Kafka, Settings


def with_room(kafka: Kafka) -> Kafka:
    """Let the client send the state of the largest review item that a moderation worker with these settings sends."""
    larger = {clients.MAX_BYTES: state_bytes(clients.client_limit(kafka))}
    return kafka.model_copy(update={"properties": {**kafka.properties, **larger}})


def check(settings: Settings) -> None:
    """Check that the topics of the review worker take all that becomes of the largest review item. Blocks.

    Raises:
        Misconfigured: one of them takes only smaller records: an item would be a dead letter, or could not be changed.
        Unavailable: Kafka does not answer.
    """
    topics = settings.topics
    names = {topics.review_state: "topics.review_state", topics.review_commands: "topics.review_commands"}
    found = described(clients.admin(settings.kafka), [topics.review, *names])
    item_bytes = min(clients.client_limit(settings.kafka), limit_of(found[topics.review]))
    needed = state_bytes(item_bytes)
    for name, setting in names.items():
        if limit_of(found[name]) < needed:
            raise Misconfigured(
                f"{setting}: {name} takes records of at most {limit_of(found[name])} bytes, and an item of "
                f"topics.review ({item_bytes} bytes) may need {needed}: raise max.message.bytes of {name}, as "
                "`guardline topics create --alter` does"
            )
