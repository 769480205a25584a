"""Requests through the pipeline, with guards that wait or fail and a real Valkey."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from schemas.event import TurnDict
from tests.gateway import running_valkey
from tests.unit.moderation.test_pipeline import until
from tests.unit.redis.test_dedup import ASSESSMENT
from workers.core.records import Memory
from workers.errors import Unavailable
from workers.gateway.judging import Judging, Text
from workers.gateway.moderations import result_of
from workers.gateway.problems import Problem
from workers.guard.guard import Refused, Request
from workers.moderation.judge import Judge
from workers.moderation.pipeline import Pipeline
from workers.policy.policy import CompiledPolicy, default_strict
from workers.redis.crash_notes import CrashNotes
from workers.redis.dedup import Dedup
from workers.redis.strikes import StrikeLookups
from workers.settings import Batch, Settings, Worker


class ScriptedGuard:
    """Answers each text by its first word: `refused`, `down`, `bad`, or judged as Safe. Notes the calls."""

    answered = 0

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any] | Refused]:
        self.calls.append([request.text for request in requests])
        await self.may_answer.wait()
        if any(request.text.startswith("down") for request in requests):
            raise Unavailable("the engine is away")
        return [self._answer(request.text) for request in requests]

    def _answer(self, text: str) -> dict[str, Any] | Refused:
        if text.startswith("refused"):
            return Refused("refused", "not for this model")
        changes: dict[str, Any] = {}
        if text.startswith("bad"):
            changes = {"severity": "Unsafe", "scores": {"safe": 0.0, "controversial": 0.0, "unsafe": 1.0}}
        if text.startswith("windows"):
            changes = {"truncated_windows": 1}
        return {**ASSESSMENT, **changes}


class NoPolicies:
    def snapshot(self) -> dict[str, CompiledPolicy]:
        return {}


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    with running_valkey() as url:
        yield url


@asynccontextmanager
async def judging(url: str, guard: ScriptedGuard, answer_s: float = 10) -> AsyncIterator[tuple[Judging, list[Memory]]]:
    settings = Settings(
        batch=Batch(max_age_s=0.02), worker=Worker(unavailable_after_s=min(answer_s, 0.2), hold_s=min(answer_s, 0.2))
    )
    memories: list[Memory] = []
    failures: list[BaseException] = []
    async with Redis.from_url(url) as redis:
        dedup = Dedup(redis, settings.dedup, namespace="t", fingerprint="f")
        made = Judging(lambda events: pipeline.submit(events), memories.extend, answer_s=answer_s, max_text_chars=1_000)
        notes = CrashNotes(redis, namespace="t", worker_id="w", crashes_ttl_s=60)
        pipeline = Pipeline(
            settings,
            dedup=dedup,
            judge=Judge(guard, notes, batches_in_flight=1, is_current=made.is_current, hangs_after_s=60),
            strikes=StrikeLookups(redis, namespace="t", secret=""),
            policies=NoPolicies(),
            default_policy=default_strict(),
            is_current=made.is_current,
            deliver=made.deliver,
            fail=failures.append,
        )
        yield made, memories
        assert not failures
        assert not made.is_waiting
    assert not any(memory.has_verdict for memory in memories)


async def test_the_texts_of_a_request_are_one_micro_batch_and_keep_their_order(valkey: str) -> None:
    guard = ScriptedGuard()
    async with judging(valkey, guard) as (judged, memories):
        texts = [f"text {number}" for number in range(20)]
        verdicts = await judged.judge("acme", [Text(text) for text in texts])
    assert guard.calls == [texts]
    assert [verdict["event_id"].rpartition("-")[2] for verdict in verdicts] == [str(place) for place in range(20)]
    assert len({verdict["verdict_id"] for verdict in verdicts}) == 20
    assert len(memories) == 20


async def test_requests_at_the_same_time_share_a_micro_batch(valkey: str) -> None:
    guard = ScriptedGuard()
    async with judging(valkey, guard) as (judged, _):
        await asyncio.gather(*(judged.judge(f"tenant-{number}", [Text(f"t{number}")]) for number in range(5)))
    assert len(guard.calls) == 1


@pytest.mark.parametrize("texts", [["down"], ["down", "fine"], ["refused"], ["", "down"]])
async def test_without_an_assessment_of_any_text_the_answer_is_503(valkey: str, texts: list[str]) -> None:
    async with judging(valkey, ScriptedGuard()) as (judged, memories):
        with pytest.raises(Problem) as refused:
            await judged.judge("acme", [Text(text) for text in texts])
    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"] == "5"
    assert all(memory.assessment is None for memory in memories)


async def test_an_engine_that_is_slow_gets_503_and_its_answer_goes_to_nobody(valkey: str) -> None:
    guard = ScriptedGuard()
    guard.may_answer.clear()
    async with judging(valkey, guard, answer_s=0.2) as (judged, _):
        with pytest.raises(Problem) as refused:
            await judged.judge("acme", [Text("late")])
        assert refused.value.status == 503
        guard.may_answer.set()
        (verdict,) = await judged.judge("acme", [Text("in time")])
    assert verdict["decision"] == "allow"


async def test_a_text_that_cannot_be_judged_beside_others_is_flagged(valkey: str) -> None:
    async with judging(valkey, ScriptedGuard()) as (judged, _):
        verdicts = await judged.judge("acme", [Text("fine"), Text("refused"), Text("")])
    results = [result_of(verdict) for verdict in verdicts]
    assert [result["flagged"] for result in results] == [False, True, False]
    assert [result["guardline"]["reasons"] for result in results] == [[], ["unavailable"], ["empty"]]
    assert [result["guardline"]["severity"] for result in results] == ["Safe", None, None]


async def test_a_request_that_ends_is_not_sent_to_the_engine(valkey: str) -> None:
    guard = ScriptedGuard()
    guard.may_answer.clear()
    async with judging(valkey, guard) as (judged, _):
        first = asyncio.create_task(judged.judge("acme", [Text("first")]))
        await until(lambda: bool(guard.calls))
        second = asyncio.create_task(judged.judge("acme", [Text("second")]))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        guard.may_answer.set()
        await first
        await judged.judge("acme", [Text("third")])
    assert guard.calls == [["first"], ["third"]]


async def test_a_long_text_in_which_nothing_is_found_is_refused_because_its_middle_is_not_read(valkey: str) -> None:
    guard = ScriptedGuard()
    async with judging(valkey, guard) as (judged, _):
        with pytest.raises(Problem) as refused:
            await judged.judge("acme", [Text("short"), Text("a" * 600 + "b" * 5_000 + "c" * 600)])
        (verdict,) = await judged.judge("acme", [Text("bad " + "d" * 5_000)])
    assert (refused.value.status, refused.value.body.code) == (400, "text_too_long")
    assert "text 1" in refused.value.body.message
    text = guard.calls[0][1]
    assert (text[0], text[-1]) == ("a", "c")
    assert result_of(verdict)["flagged"]
    assert result_of(verdict)["guardline"]["truncated_text_chars"] > 4_000


async def test_windows_that_were_not_read_are_not_allowed_either(valkey: str) -> None:
    async with judging(valkey, ScriptedGuard()) as (judged, _):
        with pytest.raises(Problem) as refused:
            await judged.judge("acme", [Text("windows")])
    assert refused.value.body.code == "text_too_long"


async def test_half_of_a_surrogate_pair_is_judged_as_a_replacement_character(valkey: str) -> None:
    guard = ScriptedGuard()
    async with judging(valkey, guard) as (judged, _):
        (verdict,) = await judged.judge("acme", [Text("a \ud83d", context=(TurnDict(role="user", text="\udc00"),))])
    assert guard.calls == [["a \ufffd"]]
    assert verdict["decision"] == "allow"
