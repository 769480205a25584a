"""Writes the table of docs/privacy.md from `workers/core/holdings.py` and the default settings."""

from __future__ import annotations

from infra.docs.metrics import replaced, table
from workers.core.holdings import AGGREGATES, TOPICS, UNDELIVERED, Reach
from workers.settings import Settings

BEGIN = "<!-- topics: `make generated` writes this table from workers/core/holdings.py -->\n"


NAMED = {UNDELIVERED: f"`{UNDELIVERED}`", AGGREGATES: f"the topics that begin with `kafka.group` and `.{AGGREGATES}-`"}
"""What names the topics that no setting of the section `topics` names."""


def rendered(page: str) -> str:
    """Return the page with its table written again: one row for each setting that names topics."""
    settings = Settings.model_construct()
    rows = [
        (
            NAMED.get(name, f"`topics.{name}`"),
            holding.data,
            holding.key,
            _reached(holding.reach, holding.worker),
            _kept(settings, name),
        )
        for name, holding in TOPICS.items()
    ]
    head = ("setting", "personal data", "key", "`forget`", "default retention")
    return replaced(page, BEGIN, table(head, rows))


def _reached(reach: Reach, worker: str) -> str:
    return {
        Reach.NOTHING: "nothing to delete",
        Reach.RETENTION: "waits for the retention",
        Reach.WORKER: f"worker {worker}",
    }[reach]


def _kept(settings: Settings, setting: str) -> str:
    topics = settings.topics
    if setting == AGGREGATES:
        return "that of `topics.verdicts`; the changelog is compacted"
    names = topics.inputs if setting == "inputs" else [getattr(topics, setting, "")]
    if topics.is_compacted(names[0]):
        return "compacted: the newest record of each key"
    return f"{settings.retention_hours_of(names[0]):g} hours"
