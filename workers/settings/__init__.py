"""The settings of a worker: what they are (`sections`, `*_sections`), and where they come from (`sources`)."""

from workers.settings.action_sections import Actions, Endpoint, Retry
from workers.settings.aggregate_sections import Aggregates
from workers.settings.event_sections import CloudEvents, Events, Language, Registry
from workers.settings.gateway_sections import Gateway, GatewayKey
from workers.settings.guard_sections import Guard, OpenAI
from workers.settings.kafka_sections import Kafka, Topics
from workers.settings.review_sections import Review, ReviewToken
from workers.settings.sections import (
    Batch,
    Commit,
    Dedup,
    Http,
    Privacy,
    Redis,
    Settings,
    Telemetry,
    Worker,
)
from workers.settings.sources import load, origins
from workers.settings.stream_sections import Streams

__all__ = [
    "Actions",
    "Aggregates",
    "Batch",
    "CloudEvents",
    "Commit",
    "Dedup",
    "Endpoint",
    "Events",
    "Gateway",
    "GatewayKey",
    "Guard",
    "Http",
    "Kafka",
    "Language",
    "OpenAI",
    "Privacy",
    "Redis",
    "Registry",
    "Retry",
    "Review",
    "ReviewToken",
    "Settings",
    "Streams",
    "Telemetry",
    "Topics",
    "Worker",
    "load",
    "origins",
]
