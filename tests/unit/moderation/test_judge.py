"""The judge alone: single flight, timeouts, and revoked partitions."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from tenacity import wait_fixed

from schemas.event import EventDict
from tests.shown import shown
from tests.site import Site
from workers.core.records import Event, Source, TopicPartition
from workers.errors import Fatal, Unavailable
from workers.guard import retries
from workers.guard.guard import Refused, Request
from workers.moderation.judge import Judge
from workers.redis.crash_notes import CrashNotes

KEPT, GONE = TopicPartition("t", 0), TopicPartition("t", 1)


class ScriptedGuard:
    """Fails or waits if a text says so, and otherwise answers with the text. The engine is not part of these tests."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures = 0
        self.down: set[str] = set()
        self.answered = 0

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any] | Refused]:
        texts = [request.text for request in requests]
        self.calls.append(texts)
        await self.gate.wait()
        if self.down.intersection(texts):
            raise Unavailable("down")
        if self.failures:
            self.failures -= 1
            raise Unavailable("away")
        return [Refused("refused", "not for this model") if text == "bad" else {"of": text} for text in texts]


class LateNotes(CrashNotes):
    """Removes a note only when the test allows it."""

    def __init__(self, redis: Redis, *, namespace: str, worker_id: str, crashes_ttl_s: int) -> None:
        super().__init__(redis, namespace=namespace, worker_id=worker_id, crashes_ttl_s=crashes_ttl_s)
        self.may_take_back = asyncio.Event()
        self.may_take_back.set()
        self.taking_back = 0

    async def _take_back(self, field: str) -> None:
        self.taking_back += 1
        await self.may_take_back.wait()
        await super()._take_back(field)


@pytest.fixture
async def notes(site: Site) -> AsyncIterator[CrashNotes]:
    """No crash happened, so the notes have no effect."""
    settings = site.settings()
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=settings.redis.namespace, worker_id="w", crashes_ttl_s=60)
        await notes.start()
        yield notes
        await notes.close()


def judge_of(
    guard: ScriptedGuard,
    notes: CrashNotes,
    *,
    batches_in_flight: int = 1,
    is_current: Callable[[Source], bool] = lambda _: True,
    hangs_after_s: float = 60,
) -> Judge:
    return Judge(guard, notes, batches_in_flight=batches_in_flight, is_current=is_current, hangs_after_s=hangs_after_s)


def event_of(text: str, source: Source) -> Event:
    body: EventDict = {"event_id": text, "tenant_id": "acme", "surface": "chat", "text": text}
    return Event(source, b"k", body, content_key=text.encode().rjust(16))


async def judged(judge: Judge, events: Sequence[Event], retry_s: float = 5) -> list[dict[str, Any] | None]:
    for event in events:
        event.retry_s = retry_s
    await judge.judge(events)
    return [event.assessment for event in events]


def judging(
    judge: Judge, *texts: str, origin: TopicPartition = KEPT, retry_s: float = 5
) -> asyncio.Task[list[dict[str, Any] | None]]:
    events = [event_of(text, Source(origin, 1, offset)) for offset, text in enumerate(texts)]
    return asyncio.create_task(judged(judge, events, retry_s))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


async def test_equal_content_in_flight_is_judged_once(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.gate.clear()
    judge = judge_of(guard, notes, batches_in_flight=4)
    joined, calls = shown("guardline_joined_total"), shown("guardline_engine_call_seconds_count")
    first = judging(judge, "a", "b", "a")
    await until(lambda: bool(guard.calls))
    second = judging(judge, "b", "c", origin=GONE)
    await until(lambda: len(guard.calls) == 2)
    guard.gate.set()
    assert await first == [{"of": "a"}, {"of": "b"}, {"of": "a"}]
    assert await second == [{"of": "b"}, {"of": "c"}]
    assert guard.calls == [["a", "b"], ["c"]]
    assert shown("guardline_joined_total") == joined + 2
    assert shown("guardline_engine_call_seconds_count") == calls + 2


async def test_content_is_judged_again_after_its_flight_has_ended(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    judge = judge_of(guard, notes)
    await judging(judge, "a")
    await judging(judge, "a")
    assert guard.calls == [["a"], ["a"]]


async def test_a_cancelled_waiter_does_not_affect_another(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.gate.clear()
    judge = judge_of(guard, notes)
    owner = judging(judge, "a")
    await until(lambda: bool(guard.calls))
    waiter = judging(judge, "a")
    await asyncio.sleep(0)
    owner.cancel()
    guard.gate.set()
    assert await waiter == [{"of": "a"}]


async def test_work_continues_as_long_as_one_waiter_is_current(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.gate.clear()
    current = {KEPT, GONE}
    judge = judge_of(guard, notes, is_current=lambda source: source.origin in current)
    busy = judging(judge, "busy")
    await until(lambda: bool(guard.calls))
    owner, waiter = judging(judge, "shared", origin=GONE), judging(judge, "shared")
    await asyncio.sleep(0)
    current.remove(GONE)
    guard.gate.set()
    await busy
    assert await waiter == await owner == [{"of": "shared"}]


async def test_the_engine_time_is_charged_to_an_event_whose_partition_was_not_revoked(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.gate.clear()
    current = {KEPT, GONE}
    judge = judge_of(guard, notes, is_current=lambda source: source.origin in current)
    events = [event_of("a", Source(origin, 1, n)) for n, origin in enumerate([GONE, KEPT, KEPT])]
    tasks = [asyncio.create_task(judged(judge, [event])) for event in events]
    await until(lambda: bool(guard.calls))
    current.remove(GONE)
    guard.gate.set()
    await asyncio.gather(*tasks)
    assert guard.calls == [["a"]]
    assert [event.engine_ms is not None for event in events] == [False, True, False]


async def test_content_without_waiters_is_not_judged_and_the_others_are(notes: CrashNotes) -> None:
    """The other event's partition stays: without an answer its offset would block the partition for ever."""
    guard = ScriptedGuard()
    guard.gate.clear()
    current = {KEPT, GONE}
    judge = judge_of(guard, notes, is_current=lambda source: source.origin in current)
    busy = judging(judge, "busy")
    await until(lambda: bool(guard.calls))
    gone = judging(judge, "gone", origin=GONE)
    await asyncio.sleep(0)
    events = [event_of("gone", Source(GONE, 1, 7)), event_of("kept", Source(KEPT, 1, 7))]
    mixed = asyncio.create_task(judged(judge, events))
    await asyncio.sleep(0)
    current.remove(GONE)
    guard.gate.set()
    await busy
    assert await gone == [None]
    assert await mixed == [None, {"of": "kept"}]
    assert guard.calls == [["busy"], ["kept"]]


async def test_an_engine_that_recovers_in_time_is_called_again(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.failures = 2
    judge = judge_of(guard, notes)
    assert await judging(judge, "a") == [{"of": "a"}]
    assert len(guard.calls) == 3


async def test_an_event_past_its_timeout_gets_no_assessment(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.failures = 1_000
    judge = judge_of(guard, notes)
    failed = shown("guardline_failed_attempts_total", at="engine")
    assert await judging(judge, "a", "b", retry_s=0) == [None, None]
    assert shown("guardline_failed_attempts_total", at="engine") == failed + 1


async def test_a_waiter_with_a_long_timeout_gets_no_failure_of_a_short_one(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.gate.clear()
    guard.failures = 1
    judge = judge_of(guard, notes, batches_in_flight=2)
    hasty = judging(judge, "a", retry_s=0)
    await until(lambda: len(guard.calls) == 1)
    patient = judging(judge, "a", retry_s=5)
    await until(lambda: len(guard.calls) == 2)
    guard.gate.set()
    assert await hasty == [None]
    assert await patient == [{"of": "a"}]


async def test_one_refused_event_has_no_assessment_and_the_others_are_not_judged_again(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    judge = judge_of(guard, notes)
    assert await judging(judge, "a", "bad", "b") == [{"of": "a"}, None, {"of": "b"}]
    assert guard.calls == [["a", "bad", "b"]]


async def test_a_waiter_with_a_long_timeout_holds_no_place_at_a_failed_engine(notes: CrashNotes) -> None:
    """Otherwise the long waiter would keep the only place during its back-off, and the short one would time out."""
    guard = ScriptedGuard()
    texts = ["patient 0", "patient 1", "patient 2"]
    guard.down = {*texts, "hasty"}
    judge = judge_of(guard, notes)
    patient = [judging(judge, text, retry_s=60) for text in texts]
    await until(lambda: all([text] in guard.calls for text in texts))
    started = time.monotonic()
    assert await judging(judge, "hasty", retry_s=0.5) == [None]
    assert time.monotonic() - started < 5
    guard.down = set()
    assert await asyncio.gather(*patient) == [[{"of": text}] for text in texts]


async def test_work_that_lost_all_waiters_while_the_engine_was_down_is_dropped(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.down = {"held"}
    current = {GONE}
    judge = judge_of(guard, notes, is_current=lambda source: source.origin in current)
    held = judging(judge, "held", origin=GONE, retry_s=60)
    await until(lambda: bool(guard.calls))
    current.clear()
    async with asyncio.timeout(10):
        assert await held == [None]


async def test_an_event_that_arrives_after_its_work_was_dropped_is_judged(site: Site) -> None:
    """The work was settled without an answer, and events could join it until Redis had removed the note."""
    guard = ScriptedGuard()
    guard.gate.clear()
    current = {GONE, KEPT}
    settings = site.settings()
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = LateNotes(redis, namespace=settings.redis.namespace, worker_id="w", crashes_ttl_s=60)
        judge = judge_of(guard, notes, is_current=lambda source: source.origin in current)
        busy = judging(judge, "busy")
        await until(lambda: bool(guard.calls))
        gone = judging(judge, "shared", origin=GONE)
        await until(lambda: len(notes._open) == 2)
        current.remove(GONE)
        notes.may_take_back.clear()
        guard.gate.set()
        await until(lambda: notes.taking_back == 2)
        late = judging(judge, "shared")
        await asyncio.sleep(0)
        notes.may_take_back.set()
        assert await gone == [None]
        assert await late == [{"of": "shared"}]
        await busy


async def test_the_wait_for_the_engine_does_not_shorten_the_timeout(notes: CrashNotes) -> None:
    guard = ScriptedGuard()
    guard.gate.clear()
    judge = judge_of(guard, notes)
    busy = judging(judge, "busy")
    await until(lambda: bool(guard.calls))
    waiting = judging(judge, "a", retry_s=0.5)
    started = time.monotonic()
    await until(lambda: time.monotonic() - started > 0.5)
    guard.down = {"a"}
    guard.gate.set()
    await busy
    await until(lambda: ["a"] in guard.calls)
    guard.down = set()
    assert await waiting == [{"of": "a"}]


async def test_an_event_that_joins_late_gets_its_own_timeout(
    notes: CrashNotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Attempts at equal intervals: a random back-off might be longer than the late one's timeout.
    monkeypatch.setattr(retries, "wait_random_exponential", lambda **_: wait_fixed(0.01))
    guard = ScriptedGuard()
    guard.down = {"a"}
    guard.gate.clear()
    judge = judge_of(guard, notes)
    first = judging(judge, "a", retry_s=2)
    await until(lambda: bool(guard.calls))
    (work,) = judge._single_flight._works.values()
    await until(lambda: work.deadline - time.monotonic() < 1)
    joins = judging(judge, "a", retry_s=2)
    await asyncio.sleep(0)
    guard.gate.set()
    await until(lambda: work.has_failed)
    late = judging(judge, "a", retry_s=2)
    assert await first == await joins == [None]
    guard.down = set()
    assert await late == [{"of": "a"}]


async def test_a_call_that_hangs_is_fatal_and_leaves_its_note(notes: CrashNotes) -> None:
    """The note counts as a crash of its contents, so content that hangs the engine is found as well."""
    guard = ScriptedGuard()
    guard.gate.clear()
    judge = judge_of(guard, notes, hangs_after_s=0.2)
    async with asyncio.timeout(5):
        with pytest.raises(Fatal, match="engine_hangs_after_s"):
            await judging(judge, "a")
    assert notes._has_engine_died
    guard.gate.set()
