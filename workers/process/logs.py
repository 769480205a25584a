"""Logs on standard error. They must never hold a URL's password, nor what a terminal would obey."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from structlog.typing import EventDict

from workers.shown import shown, without_passwords


def log_to_stderr() -> None:
    """Write logs as JSON lines, or coloured where a person reads them."""
    is_terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # JSON itself escapes what a terminal would obey.
            partial(_each_text, shown if is_terminal else without_passwords),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _each_text(change: Callable[[str], str], _: object, __: str, event: EventDict) -> EventDict:
    return {change(name): _changed(change, value) for name, value in event.items()}


def _changed(change: Callable[[str], str], value: Any) -> Any:
    match value:
        case str():
            # A traceback has lines of its own.
            return (
                "\n".join(change(line) for line in value.split("\n"))
                if value.startswith("Traceback")
                else change(value)
            )
        case dict():
            return {change(str(name)): _changed(change, inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_changed(change, inner) for inner in value]
    return value
