"""Logs the requests that fail by no fault of their client: the model server is down, or the guard does not answer."""

from __future__ import annotations

import math
from collections import Counter

import structlog

from workers.gateway.problems import Problem

log = structlog.get_logger(__name__)

SAY_AGAIN_S = 30.0
"""How often one status is logged. While a model server is down, every request fails."""

_LOGGED_ELSEWHERE = ("draining", "internal_error")
"""The codes of problems that have a line of their own in the log."""


class Failures:
    """Logs each status of 500 and above once in `SAY_AGAIN_S`, with the number of further ones since the last line.

    Problems that have a line of their own are left out. A stream that ends with an error event counts with the status
    of that error.
    """

    def __init__(self) -> None:
        self._say_at: dict[int, float] = {}
        self._unsaid: Counter[int] = Counter()

    def note(self, problem: Problem, path: str, now: float) -> None:
        """Log an answer or the end of a stream, or count it. `now`: in seconds, of a clock that never goes back."""
        status = problem.status
        if status < 500 or problem.body.code in _LOGGED_ELSEWHERE:
            return
        if now < self._say_at.get(status, -math.inf):
            self._unsaid[status] += 1
            return
        self._say_at[status] = now + SAY_AGAIN_S
        # The sentence names the setting. It holds no text of a request or an answer.
        log.warning(str(problem), path=path, status=status, code=problem.body.code, others=self._unsaid.pop(status, 0))
