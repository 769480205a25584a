"""What every section of the settings is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


def _refuse_empty(path: object) -> object:
    if path == "":
        raise ValueError("is empty: name a file, or leave this setting out")
    return path


File = Annotated[Path | None, BeforeValidator(_refuse_empty)]
"""A file, or none. An empty path would be the current folder."""


class Section(BaseModel):
    """A group of settings; unknown names are refused, because a mistyped setting is worse than none."""

    model_config = ConfigDict(extra="forbid", frozen=True)
