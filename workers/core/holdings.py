"""Which personal data each topic holds, and how a request to forget an author reaches it. Pure.

`guardline forget` says it of the topics that are there, and docs/privacy.md has it as a table. Each topic of the
settings needs its entry here: a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class Reach(StrEnum):
    """How the data of a forgotten author leaves a topic."""

    NOTHING = "holds no data of authors"
    RETENTION = "until the topic's retention ends"
    WORKER = "a worker replaces it"


class Holding(NamedTuple):
    """The personal data in a topic, the key of its records, and how a request reaches the data: by which worker."""

    data: str
    key: str
    reach: Reach
    worker: str = ""


UNDELIVERED = "actions.endpoints"
"""The section that names the topics of deliveries that were given up."""

AGGREGATES = "aggregates"
"""The worker whose own topics begin with the name of its group: its updates and the changelog of its rows."""

WORKERS: Mapping[str, str] = {
    "aggregates": "counts and strikes",
    "review": "items with their texts",
    "actions": "deliveries that wait",
    "moderation": "none beyond the records in flight",
}
"""What each worker holds of an author, in memory and in its own topics."""

OF_THE_EVENT = "that of the event"

TOPICS: Mapping[str, Holding] = {
    "inputs": Holding(
        "text, author id, attributes, earlier turns: whatever the producer writes", "any", Reach.RETENTION
    ),
    "verdicts": Holding("author id, attributes, names and notes of people who decide", OF_THE_EVENT, Reach.RETENTION),
    "review": Holding("text, author id, attributes, earlier turns", OF_THE_EVENT, Reach.RETENTION),
    "dead_letters": Holding("the whole record, with its headers", "that of the record", Reach.RETENTION),
    "usage": Holding("none", "the tenant", Reach.NOTHING),
    "forget": Holding("author id", "`TENANT\\|AUTHOR`", Reach.RETENTION),
    "signals": Holding("author id", "`TENANT\\|SUBJECT`", Reach.RETENTION),
    "review_commands": Holding(
        "appeals: text, author id, attributes, earlier turns, the reason; names and notes of people who decide",
        "the verdict's id",
        Reach.RETENTION,
    ),
    "review_state": Holding(
        "text, author id, attributes, earlier turns, names and notes of people who decide",
        "the verdict's id",
        Reach.WORKER,
        "review",
    ),
    "audit": Holding("names of people who decide; no author and no text", "the verdict's id", Reach.NOTHING),
    "deliveries": Holding("none", "the verdict's id", Reach.NOTHING),
    "streams": Holding("the texts of users and of assistants, or their tokens", "the `stream_id`", Reach.RETENTION),
    "stream_verdicts": Holding("none but the `stream_id`; no text", "that of the event", Reach.NOTHING),
    "interventions": Holding("none but the `stream_id`; no text", "that of the event", Reach.NOTHING),
    "stream_sessions": Holding(
        "none but the `stream_id`; no text", "the partition, the tenant and the `stream_id`", Reach.NOTHING
    ),
    AGGREGATES: Holding(
        "author ids, counts, the ids of verdicts", "the tenant, the kind of row and its subject", Reach.RETENTION
    ),
    UNDELIVERED: Holding(
        "the call that could not be made: a verdict or a signal with the author id, for Coop a report with the text; "
        "and whole records that cannot be read",
        "that of the verdict",
        Reach.RETENTION,
    ),
}
"""By the name of the setting in the section `topics`, and by `AGGREGATES` and `UNDELIVERED`."""
