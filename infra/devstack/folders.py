"""Where the embedded stack keeps things: what can be made again in the cache, each stack's data in its own."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder of what can be fetched or made again: GUARDLINE_CACHE, or `guardline` in the user's cache."""
    if own := os.environ.get("GUARDLINE_CACHE"):
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser().resolve() / "guardline"


def default_data_folder() -> Path:
    """The data folder of a stack for which none was named."""
    return cache_folder() / "devstack" / "default"
