"""The folders of the embedded stack: a cache that can be made again, and a data folder for each stack."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of files that can be downloaded or made again: GUARDLINE_CACHE, or `guardline` in the user's cache."""
    if own := os.environ.get("GUARDLINE_CACHE"):
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser().resolve() / "guardline"


def default_data_folder() -> Path:
    """The default data folder of a stack."""
    return cache_folder() / "devstack" / "default"
