"""Who is asked again, and until when."""

from __future__ import annotations

import math
import time

import pytest
from structlog.testing import capture_logs
from tenacity import wait_fixed

from workers.errors import Fatal, Unavailable
from workers.guard import retries
from workers.guard.retries import ask_with_retries, start_with_retries


class Failing:
    """Raises the errors it is given, one a call, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    async def start(self) -> None:
        await self.ask()

    async def ask(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "wait_random_exponential", lambda **_: wait_fixed(0.001))


async def test_an_unavailable_guard_is_retried() -> None:
    engine = Failing(Unavailable("busy"), Unavailable("busy"))
    assert await ask_with_retries(engine.ask, lambda: math.inf) == "answer"
    assert engine.calls == 3


async def test_past_the_deadline_the_last_failure_is_raised() -> None:
    engine = Failing(Unavailable("busy"), Unavailable("busy"))
    with pytest.raises(Unavailable, match="busy"):
        await ask_with_retries(engine.ask, time.monotonic)
    assert engine.calls == 1, "once, however late it is"


async def test_the_first_call_may_set_the_deadline() -> None:
    engine = Failing(Unavailable("busy"))
    deadlines = [0.0]

    async def ask() -> str:
        deadlines.append(time.monotonic() + 30)
        return await engine.ask()

    assert await ask_with_retries(ask, lambda: deadlines[-1]) == "answer"


@pytest.mark.parametrize("error", [Fatal("gone"), ValueError("a fault")])
async def test_an_error_that_a_retry_cannot_cure_is_raised_at_once(error: Exception) -> None:
    engine = Failing(error)
    with pytest.raises(type(error)):
        await ask_with_retries(engine.ask, lambda: math.inf)
    assert engine.calls == 1


async def test_a_start_waits_for_an_engine_that_does_not_answer_yet_and_says_so() -> None:
    engine = Failing(Unavailable("connection refused"))
    with capture_logs() as logs:
        await start_with_retries(engine.start, 30)
    assert [entry["reason"] for entry in logs] == ["connection refused"]
    with pytest.raises(Unavailable, match="still away"):
        await start_with_retries(Failing(Unavailable("still away"), Unavailable("still away")).start, 0)
