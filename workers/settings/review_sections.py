"""The settings of the review worker. Contradictions are refused here."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from workers.settings.coop_sections import CoopCallbacks
from workers.settings.section import Section

NAME = "[A-Za-z0-9._@-]{1,64}"
"""The pattern of a name."""


class ReviewToken(Section):
    """Somebody who may use the review worker: a person, or a system."""

    name: str
    """who it is, such as `ana`: audit records and superseding verdicts say so"""
    role: Literal["reviewer", "senior", "auditor", "service"]
    """`reviewer` reads and decides; `senior` also decides escalated items and reopens; `auditor` sees everything except
    content; `service` appeals, and passes on the decisions of people of another system"""
    file: Path
    """the absolute path of a file that holds the token, at least 32 characters. Each line is a valid token, so that a
    new one can replace an old one"""
    tenants: list[str] = []
    """the tenants whose items are shown; empty: all"""
    languages: list[str] = []
    """the languages of the items that are shown, such as `en`; empty: all. Items without a language are always shown"""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise ValueError("review.tokens: a name has letters, digits, dots, underscores, hyphens and @, at most 64")
        return name

    @field_validator("file")
    @classmethod
    def _check_file(cls, file: Path) -> Path:
        if not file.is_absolute():
            raise ValueError("review.tokens: file has to be the absolute path of a file, such as /run/secrets/ana")
        return file


class Review(Section):
    """The review worker: see docs/review.md."""

    host: str = Field("127.0.0.1", min_length=1)
    """the address on which the review worker serves its API and its page. Put a proxy with TLS in front of it"""
    port: int = Field(9470, ge=0, le=65_535)
    """0 takes any free port"""
    tokens: list[ReviewToken] = []
    """who may use it: a list of objects with `name`, `role` (`reviewer`, `senior`, `auditor` or `service`), `file`,
    `tenants` and `languages`: see docs/review.md#roles"""
    lease_s: float = Field(120, ge=1)
    """how long an item belongs to the person who took it. Each heartbeat begins this time anew"""
    max_leases: int = Field(10, ge=1)
    """how many items one person may have on lease"""
    undo_s: float = Field(5, ge=0)
    """how long a decision can be undone. The superseding verdict is written after this time. 0: at once"""
    sla_minutes: float = Field(240, gt=0)
    """the time within which an item should be decided, for tenants whose policy does not say (`review.sla_minutes`)"""
    retention_hours: float = Field(720, gt=0)
    """how long an item waits at most, for tenants whose policy does not say (`review.retention_hours`). Then it is
    closed and loses its content"""
    keep_decided_hours: float = Field(24, ge=0)
    """how long a decided item keeps its content, so that it can be reopened. 0: not at all"""
    keep_history_hours: float = Field(720, gt=0)
    """how long an item without content is kept, for appeals and for `guardline review show`"""
    reach_attribute: str | None = None
    """the attribute of an event that says how many people see it, such as `followers`: items with a larger reach come
    earlier. None: reach does not count"""
    answer_s: float = Field(10, gt=0)
    """how long a request waits until Kafka has stored its command. Then the answer is 503"""
    max_body_bytes: int = Field(1_048_576, ge=1_024)
    """a larger request is refused"""
    coop: CoopCallbacks = CoopCallbacks()
    """the callbacks of Coop"""

    @model_validator(mode="after")
    def _check_tokens(self) -> Review:
        twice = [name for name, count in Counter(token.name for token in self.tokens).items() if count > 1]
        if twice:
            raise ValueError(f"review.tokens: {', '.join(sorted(twice))} is there twice: give each token its own name")
        return self
