"""The SDK's own log lines, as lines of this log: one for each kind in a while. A collector that is down is no flood."""

from __future__ import annotations

import logging
import time

import structlog

log = structlog.get_logger(__name__)

AGAIN_S = 60.0
"""How long after a line the next one of the same kind is logged."""

LOGGERS = ("opentelemetry", "urllib3")


class Reports(logging.Handler):
    """Takes the records of a library's logger. Without tracebacks: they are the library's own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logged_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log one line, unless its kind was logged lately."""
        now, kind = time.monotonic(), str(record.msg)
        if now < self._logged_at.get(kind, -AGAIN_S) + AGAIN_S:
            return
        self._logged_at[kind] = now
        log.warning("traces are not exported as they should be", report=record.getMessage(), source=record.name)


def log_reports() -> None:
    """Take over the log lines of the SDK and of its HTTP client. Without this Python writes them as plain text."""
    reports = Reports()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [reports]
        logger.propagate = False
