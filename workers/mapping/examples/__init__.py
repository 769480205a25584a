"""Mappings of well-known platforms (`NAME.yaml`), each with records of their shape (`NAME.jsonl`), values made up."""

from __future__ import annotations

from importlib.resources import files

NAMES = (
    "debezium",
    "discord",
    "mastodon",
    "matrix",
    "reddit",
    "slack",
    "telegram",
    "twitch",
    "youtube",
    "zendesk",
)


def read(file: str) -> str:
    """Give the text of one of the files."""
    return files(__name__).joinpath(file).read_text(encoding="utf-8")
