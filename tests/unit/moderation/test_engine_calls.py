"""How a hang of the engine is told from a slow engine."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.site import Site
from workers.errors import Fatal
from workers.guard.guard import Request
from workers.moderation.engine_calls import OVERTAKEN_TIMES, EngineCalls
from workers.redis.crash_notes import CrashNotes

HANGS_AFTER_S = 0.3
FAR_LONGER_S = 4 * HANGS_AFTER_S


class PacedGuard:
    """Answers a call when its gate opens, and counts the answered prompts that a test sets."""

    def __init__(self) -> None:
        self.answered = 0
        self.gates: dict[str, asyncio.Event] = {}

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any]]:
        gate = self.gates.setdefault(requests[0].text, asyncio.Event())
        await gate.wait()
        return [{"of": request.text} for request in requests]


def calls_of(site: Site, guard: PacedGuard, batches_in_flight: int) -> EngineCalls:
    settings = site.settings()
    notes = CrashNotes(
        Redis.from_url(settings.redis.url.get_secret_value()), namespace="n", worker_id="w", crashes_ttl_s=60
    )
    return EngineCalls(guard, notes, batches_in_flight=batches_in_flight, hangs_after_s=HANGS_AFTER_S)


async def go_on_for(seconds: float, step: Callable[[], None]) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        step()
        await asyncio.sleep(HANGS_AFTER_S / 10)


async def test_a_long_call_whose_parts_return_is_not_a_hang(site: Site) -> None:
    """A micro-batch of 256 takes 85 s at 3 messages/s, and four of them take almost six minutes."""
    guard = PacedGuard()
    calls = calls_of(site, guard, batches_in_flight=8)

    def answer_one() -> None:
        guard.answered += 1

    call = asyncio.create_task(calls.assess([Request("long")] * 8, math.inf))
    await go_on_for(FAR_LONGER_S, answer_one)
    assert not call.done()
    guard.gates["long"].set()
    assert (await call)[0] == [{"of": "long"}] * 8


async def test_any_call_that_returns_shows_that_the_engine_works(site: Site) -> None:
    """Also for an engine that counts no parts: the other calls in the queue wait for it."""
    guard = PacedGuard()
    calls = calls_of(site, guard, batches_in_flight=8)
    waits = asyncio.create_task(calls.assess([Request("waits")], math.inf))
    ends = time.monotonic() + FAR_LONGER_S
    number = 0
    while time.monotonic() < ends:
        number += 1
        other = asyncio.create_task(calls.assess([Request(f"{number}")], math.inf))
        await asyncio.sleep(HANGS_AFTER_S / 3)
        guard.gates[f"{number}"].set()
        await other
    assert not waits.done()
    guard.gates["waits"].set()
    assert (await waits)[0] == [{"of": "waits"}]


async def test_an_engine_that_answers_nothing_hangs(site: Site) -> None:
    guard = PacedGuard()
    calls = calls_of(site, guard, batches_in_flight=8)
    started = time.monotonic()
    first, second = [asyncio.create_task(calls.assess([Request(text)], math.inf)) for text in "ab"]
    for call in (first, second):
        with pytest.raises(Fatal, match=r"answered nothing for 0\.3 s \(worker\.engine_hangs_after_s\)"):
            await call
    assert time.monotonic() - started >= HANGS_AFTER_S


async def test_a_call_that_all_others_overtake_is_detected(site: Site) -> None:
    """One thread of the engine hangs, and the others continue: without a limit its partitions would stop for ever."""
    guard = PacedGuard()
    calls = calls_of(site, guard, batches_in_flight=2)

    def answer_many() -> None:
        guard.answered += 2 * OVERTAKEN_TIMES

    before = asyncio.create_task(calls.assess([Request("before")] * 7, math.inf))
    await asyncio.sleep(0)
    stuck = asyncio.create_task(calls.assess([Request("stuck")], math.inf))
    await go_on_for(HANGS_AFTER_S / 2, answer_many)
    assert not stuck.done()
    guard.gates["before"].set()
    await before
    with pytest.raises(Fatal, match=rf"while the engine answered {8 * OVERTAKEN_TIMES} prompts"):
        await asyncio.gather(stuck, go_on_for(FAR_LONGER_S, answer_many))


async def test_time_without_calls_at_the_engine_does_not_count(site: Site) -> None:
    guard = PacedGuard()
    calls = calls_of(site, guard, batches_in_flight=1)
    await asyncio.sleep(2 * HANGS_AFTER_S)
    call = asyncio.create_task(calls.assess([Request("a")], math.inf))
    await asyncio.sleep(HANGS_AFTER_S / 2)
    assert not call.done()
    guard.gates["a"].set()
    assert (await call)[0] == [{"of": "a"}]


async def test_a_frozen_event_loop_is_not_a_hang_of_the_engine(site: Site) -> None:
    """As after a SIGSTOP: time passed in which no answer was possible."""
    guard = PacedGuard()
    calls = calls_of(site, guard, batches_in_flight=1)
    call = asyncio.create_task(calls.assess([Request("a")], math.inf))
    await asyncio.sleep(0.01)
    time.sleep(FAR_LONGER_S)  # noqa: ASYNC251 - that is the point
    await asyncio.sleep(HANGS_AFTER_S / 2)
    assert not call.done()
    guard.gates["a"].set()
    assert (await call)[0] == [{"of": "a"}]
