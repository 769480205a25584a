"""The answers of an engine or a guard, for tests in which no request may be refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from workers.engines.engine import Refused, all_or_refused

Answer = TypeVar("Answer")


def answered(answers: Iterable[Answer | Refused]) -> list[Answer]:
    found = all_or_refused(answers)
    assert not isinstance(found, Refused), found
    return found
