"""The settings of a worker: what they are (`sections`, `kafka_sections`), and where they come from (`sources`)."""

from workers.settings.aggregate_sections import Aggregates
from workers.settings.kafka_sections import Kafka, Topics
from workers.settings.sections import (
    Batch,
    CloudEvents,
    Commit,
    Dedup,
    Events,
    Guard,
    Http,
    Language,
    OpenAI,
    Privacy,
    Redis,
    Registry,
    Settings,
    Telemetry,
    Worker,
)
from workers.settings.sources import load, origins

__all__ = [
    "Aggregates",
    "Batch",
    "CloudEvents",
    "Commit",
    "Dedup",
    "Events",
    "Guard",
    "Http",
    "Kafka",
    "Language",
    "OpenAI",
    "Privacy",
    "Redis",
    "Registry",
    "Settings",
    "Telemetry",
    "Topics",
    "Worker",
    "load",
    "origins",
]
