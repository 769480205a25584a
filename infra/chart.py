"""Writes the files of the Helm chart that are generated: a chart can only read what is in its own folder."""

from __future__ import annotations

import json

from workers.settings.descriptions import described


def settings() -> str:
    """Return the names of all settings, by which the chart refuses a mistyped one."""
    return json.dumps([one.name for one in described()], indent=2) + "\n"
