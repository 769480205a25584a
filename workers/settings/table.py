"""The settings in force as rows for a person, each with where it came from. It must never show a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from workers.settings import Settings, origins

MASK = "**********"
_SECRET = re.compile(r"password|secret|token|key\.pem|api.?key|jaas|credential", re.IGNORECASE)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s']+(?=@)")


def rows(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Give (name, value, origin) of each setting, also of those in a section within a section."""
    found = origins()
    for name, value in _leaves(settings):
        shown = str(_masked(value) if isinstance(value, dict) else value)
        yield name, _USER_IN_URL.sub(MASK, shown), found.get(name, "default")


def _leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section:
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _masked(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        name: MASK if _SECRET.search(name) else _masked(value) if isinstance(value, dict) else value
        for name, value in properties.items()
    }
