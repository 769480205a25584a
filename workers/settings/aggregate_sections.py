"""The settings of `guardline worker aggregates`. Contradictions are refused here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from workers.settings.section import Section

MAX_WINDOW_MINUTES = 60
"""A row has the counts of this many minutes."""


def _refuse_empty(path: object) -> object:
    if path == "":
        raise ValueError("is empty: name a folder, or leave this setting out")
    return path


Folder = Annotated[Path | None, BeforeValidator(_refuse_empty)]


class HarmRate(Section):
    """The signal `harm_rate`: a tenant's rate of harmful verdicts against its own normal."""

    window_minutes: int = Field(5, ge=1, le=30)
    """how many minutes are compared with what is normal for the tenant"""
    raise_at: float = Field(5, gt=0)
    """the signal is raised when the rate is this many standard deviations above normal: see
    docs/aggregates.md#a-tenants-harm-rate"""
    clear_below: float = Field(2, ge=0)
    """the signal is cleared when the rate falls below this many standard deviations above normal"""
    min_harmful: int = Field(20, ge=1)
    """the signal is raised only with at least this many harmful verdicts in the window"""
    min_verdicts: int = Field(1_000, ge=1)
    """the signal is raised only if what is normal is known from at least this many verdicts"""
    half_life_hours: float = Field(24, gt=0)
    """after this time a verdict counts half in what is normal"""

    @model_validator(mode="after")
    def _check_levels(self) -> HarmRate:
        if self.clear_below >= self.raise_at:
            raise ValueError(
                f"aggregates.harm_rate: clear_below ({self.clear_below:g}) has to be below raise_at "
                f"({self.raise_at:g}): the signal would be raised and cleared again and again"
            )
        return self


class SimilarContent(Section):
    """The signal `similar_content`: many authors send nearly the same content. It needs `events.similarity`."""

    window_minutes: int = Field(10, ge=1, le=MAX_WINDOW_MINUTES)
    """how many minutes an author counts after sending such a content"""
    authors: int = Field(10, ge=2, le=64)
    """the signal is raised when this many different authors have sent nearly the same content, at most 64"""
    clear_below: int = Field(5, ge=1)
    """the signal is cleared when fewer authors than this sent such a content in the window"""
    max_distance: int = Field(3, ge=0, le=3)
    """the number of bits, of 64, by which the SimHash of two contents may differ, at most 3"""

    @model_validator(mode="after")
    def _check_levels(self) -> SimilarContent:
        if self.clear_below > self.authors:
            raise ValueError(
                f"aggregates.similar: clear_below ({self.clear_below}) must not be above authors ({self.authors})"
            )
        return self


class Thread(Section):
    """The signal `thread`: a thread with many harmful verdicts."""

    attribute: str = "conversation_id"
    """the attribute of an event that names its thread; `events.carry_attributes` has to include it. Empty: the worker
    watches no threads"""
    window_minutes: int = Field(15, ge=1, le=MAX_WINDOW_MINUTES)
    """how many minutes of a thread are looked at"""
    rate: float = Field(0.3, gt=0, le=1)
    """the signal is raised when this part of a thread's verdicts is harmful"""
    clear_below: float = Field(0.15, ge=0, le=1)
    """the signal is cleared when the part falls below this"""
    min_harmful: int = Field(5, ge=1)
    """the signal is raised only with at least this many harmful verdicts in the window"""

    @model_validator(mode="after")
    def _check_levels(self) -> Thread:
        if self.clear_below > self.rate:
            raise ValueError(
                f"aggregates.thread: clear_below ({self.clear_below:g}) must not be above rate ({self.rate:g})"
            )
        return self


class Aggregates(Section):
    """What `guardline worker aggregates` counts, where it keeps its tables, and when it sends signals."""

    folder: Folder = None
    """the folder for the tables' local copy, one for each worker; a restarted worker then reads only what is new. None:
    the tables are in memory, and a restarted worker reads them from Kafka"""
    idle_hours: float = Field(48, ge=2)
    """how long a row without new verdicts and without strikes is kept, at least 2"""
    max_rows: int = Field(2_000_000, ge=1_000)
    """how many rows a worker holds at most, at least 1000. A worker that holds as many counts no new author and no new
    thread until rows expire"""
    rewrite_s: float = Field(300, ge=1)
    """how often all strikes are written to Redis again, in case Redis lost them"""
    harm_rate: HarmRate = HarmRate()
    similar: SimilarContent = SimilarContent()
    thread: Thread = Thread()
