"""The pipeline with a guard that waits or fails: which policy decides, and which events wait for each other."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from prometheus_client import Counter
from redis.asyncio import Redis

from schemas.policy import Policy
from schemas.taxonomy import Decision
from tests.shown import shown
from tests.site import Site
from tests.unit.redis.test_dedup import ASSESSMENT, event_at
from tests.unit.redis.test_strikes import standing_of
from workers import telemetry
from workers.core.records import Event, Finished, Source
from workers.core.similarity import SimHashes
from workers.errors import Unavailable
from workers.guard.guard import Refused, Request
from workers.guard.languages import Languages
from workers.moderation.judge import Judge
from workers.moderation.pipeline import Pipeline
from workers.policy.document import DEFAULT, DEFAULT_ID
from workers.policy.policy import CompiledPolicy, default_strict
from workers.redis.crash_notes import SUSPECT, CrashNotes
from workers.redis.dedup import Dedup
from workers.redis.strikes import Author, StoredStrikes, StrikeLookups
from workers.settings import Language, Settings


class WaitingGuard:
    """Finds all safe once it may, or refuses all."""

    answered = 0

    def __init__(self, *, refuses: bool) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self._refuses = refuses

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any] | Refused]:
        self.asked.set()
        await self.may_answer.wait()
        return [Refused("refused", "not for this model") if self._refuses else ASSESSMENT for _ in requests]


class HeldPolicies:
    """The policies that a test puts in force."""

    def __init__(self, **policies: Policy) -> None:
        self.put(**policies)

    def put(self, **policies: Policy) -> None:
        self._snapshot = {tenant: CompiledPolicy(policy) for tenant, policy in policies.items()}

    def snapshot(self) -> dict[str, CompiledPolicy]:
        return self._snapshot


class Running:
    """A pipeline with a real Redis, and what it has delivered."""

    def __init__(self, redis: Redis, settings: Settings, guard: Any, is_current: Callable[[Source], bool]) -> None:
        self.redis = redis
        self.namespace = settings.redis.namespace
        self.delivered: list[Finished] = []
        self.errors: list[BaseException] = []
        self.dedup = Dedup(redis, settings.dedup, namespace=self.namespace, fingerprint="f")
        self.notes = CrashNotes(redis, namespace=self.namespace, worker_id="w", crashes_ttl_s=60)
        self.judge = Judge(guard, self.notes, batches_in_flight=1, is_current=is_current, hangs_after_s=60)
        self.pipeline: Pipeline

    async def outcomes(self, count: int) -> list[dict[str, Any]]:
        """Wait for this many finished records, and return their verdicts."""
        await until(lambda: len(self.delivered) >= count or bool(self.errors))
        assert len(self.delivered) == count or self.errors
        return [orjson.loads(record.outputs[0].value or b"") for record in self.delivered]


@asynccontextmanager
async def running(
    site: Site,
    guard: Any,
    policies: HeldPolicies | None = None,
    *,
    is_current: Callable[[Source], bool] = lambda _: True,
    changes: dict[str, str] | None = None,
    **parts: Any,
) -> AsyncIterator[Running]:
    """Make a pipeline. At the end it must not have failed. `changes` are settings, `parts` further arguments of it."""
    settings = site.settings(**(changes or {}))
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        made = Running(redis, settings, guard, is_current)
        made.pipeline = Pipeline(
            settings,
            dedup=made.dedup,
            strikes=StrikeLookups(redis, namespace=made.namespace, secret=""),
            judge=made.judge,
            policies=policies or HeldPolicies(),
            default_policy=default_strict(),
            is_current=is_current,
            deliver=made.delivered.extend,
            fail=made.errors.append,
            **parts,
        )
        yield made
        assert not made.errors


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("refuses", [False, True])
async def test_the_policy_in_force_after_the_engine_decides(site: Site, *, refuses: bool) -> None:
    """With an older policy, a change would take effect only after the engine has answered."""
    guard = WaitingGuard(refuses=refuses)
    policies = HeldPolicies(acme=Policy(id="old", safe=Decision.ALLOW, on_unavailable="review"))
    async with running(site, guard, policies) as at:
        at.pipeline.submit([event_at(0)])
        await asyncio.wait_for(guard.asked.wait(), 10)
        policies.put(acme=Policy(id="new", safe=Decision.BLOCK, on_unavailable="block"))
        guard.may_answer.set()
        (verdict,) = await at.outcomes(1)
    assert (verdict["policy"]["id"], verdict["decision"]) == ("new", "block")
    assert (verdict["assessment"] is None) == refuses


async def test_a_verdict_has_the_simhash_of_its_text_if_they_are_on(site: Site) -> None:
    guard = WaitingGuard(refuses=False)
    guard.may_answer.set()
    hashes = SimHashes("secret")
    text = "good morning to everyone in this room"
    async with running(site, guard, similarity=hashes) as at:
        at.pipeline.submit([event_at(0, text=text), event_at(1, text="short"), event_at(2, text=text.upper() + " 🔥")])
        found = [verdict.get("similarity") for verdict in await at.outcomes(3)]
    assert found == [hashes.of([text])[0], None, found[0]]
    assert found[0] is not None


async def test_the_strikes_of_the_moment_of_the_decision_decide_and_the_verdict_names_them(site: Site) -> None:
    """The engine may take minutes, in which the author's other messages are judged."""
    guard = WaitingGuard(refuses=False)
    asking = Policy.model_validate(
        {"id": "acme", "strikes": {}, "rules": [{"severity": "Safe", "min_strikes": 3, "decision": "block"}]}
    )
    async with running(site, guard, HeldPolicies(acme=asking)) as at:
        at.pipeline.submit([event_at(0, author_id="u-17"), event_at(1, author_id="new", text="other"), event_at(2)])
        await asyncio.wait_for(guard.asked.wait(), 10)
        stored = StoredStrikes(at.redis, namespace=at.namespace, secret="")
        await stored.write({Author("acme", "u-17"): standing_of(3)})
        guard.may_answer.set()
        verdicts = await at.outcomes(3)
    decided = [(verdict["author_id"], verdict["decision"], verdict.get("strikes")) for verdict in verdicts]
    assert decided == [("u-17", "block", 3), ("new", "allow", 0), (None, "allow", None)]


@pytest.mark.parametrize(
    ("policies", "decided_by", "decision"),
    [
        ({}, "default-strict", "allow"),
        ({DEFAULT: Policy(id=DEFAULT_ID, safe=Decision.REVIEW)}, DEFAULT_ID, "review"),
        ({DEFAULT: Policy(id=DEFAULT_ID, safe=Decision.REVIEW), "acme": Policy(id="acme")}, None, "allow"),
    ],
)
async def test_a_tenant_without_a_policy_gets_the_default_and_is_counted(
    site: Site, policies: dict[str, Policy], decided_by: str | None, decision: str
) -> None:
    guard = WaitingGuard(refuses=False)
    guard.may_answer.set()
    before = shown("guardline_decisions_total", decision=decision)
    async with running(site, guard, HeldPolicies(**policies)) as at:
        at.pipeline.submit([event_at(0)])
        (verdict,) = await at.outcomes(1)
    (record,) = at.delivered
    assert verdict["decision"] == decision
    assert verdict["policy"]["id"] == decided_by or decided_by is None
    for name in ("default-strict", DEFAULT_ID):
        assert (telemetry.UNKNOWN_TENANTS.labels(name) in record.counted) == (name == decided_by)
    assert telemetry.DECISIONS.labels(decision) in record.counted
    assert shown("guardline_decisions_total", decision=decision) == before, "the commit counts it"


class HalfDeadGuard:
    """Fails for one text until it may answer."""

    answered = 0

    def __init__(self) -> None:
        self.has_failed = False
        self.is_down = True

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any] | Refused]:
        if self.is_down and any(request.text == "slow" for request in requests):
            self.has_failed = True
            raise Unavailable("down")
        return [ASSESSMENT for _ in requests]


@pytest.mark.parametrize("why", ["its tenant holds", "it is a suspect"])
async def test_no_event_waits_for_a_slow_event_of_its_micro_batch(site: Site, why: str) -> None:
    """If a micro-batch were delivered as one, all its events would wait up to `worker.hold_s`."""
    guard = HalfDeadGuard()
    holds = Policy(id="patient", on_unavailable="hold" if why == "its tenant holds" else "review")
    async with running(site, guard, HeldPolicies(patient=holds)) as at:
        texts = {0: "hello", 1: "slow", 2: "good day"}
        events = [
            event_at(n, event_id=str(n), tenant_id="patient" if text == "slow" else "acme", text=text)
            for n, text in texts.items()
        ]
        if why == "it is a suspect":
            await at.dedup.look_up([events[1]])
            at.notes._crashes = {events[1].content_key[-16:]: SUSPECT}
        at.pipeline.submit(events)
        await until(lambda: guard.has_failed and len(at.delivered) == 2)
        assert [record.source.offset for record in at.delivered] == [0, 2]
        guard.is_down = False
        assert all(verdict["assessment"] for verdict in await at.outcomes(3))


class CountingGuard(WaitingGuard):
    """Counts what it is asked at a time."""

    def __init__(self) -> None:
        super().__init__(refuses=False)
        self.sizes: list[int] = []

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any] | Refused]:
        self.sizes.append(len(requests))
        return await super().assess(requests)


async def test_events_that_arrive_while_the_engine_is_busy_are_judged_together(site: Site) -> None:
    """Otherwise each would become a micro-batch of its own."""
    guard = CountingGuard()
    count = 20
    async with (
        running(site, guard, changes={"GUARDLINE_BATCH__MAX_AGE_S": "0.001"}) as at,
        asyncio.timeout(20),
    ):
        for offset in range(count):
            at.pipeline.submit([event_at(offset, event_id=f"e{offset}", text=f"hello {offset}")])
            if offset == 0:
                await guard.asked.wait()
            elif offset == 1:
                await until(lambda: at.judge.is_full)
            else:
                await asyncio.sleep(0.002)  # Old enough, each of them.
        guard.may_answer.set()
        await at.outcomes(count)
    # One at the engine and one that waits for it: the rest came while there was no place.
    assert guard.sizes == [1, 1, count - 2]


async def test_events_that_a_rebalance_moved_are_not_counted(site: Site) -> None:
    """Otherwise the worker counts them as unavailable, and a duplicate names a verdict that does not exist."""
    guard = WaitingGuard(refuses=True)
    gone: set[Source] = set()
    async with running(site, guard, is_current=lambda source: source not in gone) as at:
        events = [event_at(n, event_id=f"e{n}") for n in range(3)]
        before = counted(telemetry.STALE)
        at.pipeline.submit(events)
        await guard.asked.wait()
        gone.update({events[0].source, events[2].source})
        guard.may_answer.set()
        await at.outcomes(1)
    assert [record.source.offset for record in at.delivered] == [1]
    assert telemetry.UNAVAILABLE in at.delivered[0].counted
    assert counted(telemetry.STALE) - before == 2
    assert len(at.dedup.claims) == 1


def counted(counter: Counter) -> float:
    (metric,) = counter.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_total"))


class NoLanguages(Languages):
    """Finds the language of no text."""

    async def fill(self, events: Sequence[Event]) -> None:
        """Leave them all as they are."""


async def test_who_named_a_language_is_counted_by_the_commit_and_only_where_there_is_a_text(site: Site) -> None:
    guard = WaitingGuard(refuses=False)
    guard.may_answer.set()
    async with running(site, guard, languages=NoLanguages(Language())) as at:
        before = shown("guardline_languages_total", source="unknown")
        at.pipeline.submit([event_at(0), event_at(1, text=""), event_at(2, event_id="other", language="de")])
        await at.outcomes(3)
    every = {source: telemetry.LANGUAGES.labels(source) for source in ("producer", "detector", "unknown")}
    found = [[source for source, counter in every.items() if counter in record.counted] for record in at.delivered]
    assert found == [["unknown"], [], ["producer"]]
    assert shown("guardline_languages_total", source="unknown") == before


async def test_an_event_without_text_needs_no_model_and_named_headers_are_carried(site: Site) -> None:
    guard = CountingGuard()
    guard.may_answer.set()
    policies = HeldPolicies(acme=Policy(id="acme", safe=Decision.REVIEW))
    changes = {"GUARDLINE_EVENTS__CARRY_HEADERS": '["traceparent"]'}
    async with running(site, guard, policies, changes=changes) as at:
        events = [event_at(0, text=""), event_at(1), event_at(2, event_id="other")]
        events[0].headers = [("other", b"x"), ("traceparent", b"00-a")]
        events[1].headers = [("other", b"x")]
        events[2].headers = [("traceparent", b"00-b"), ("traceparent", None)]
        at.pipeline.submit(events)
        await at.outcomes(3)
    assert guard.sizes == [1]  # Two events of the same text.
    decisions = [[orjson.loads(output.value or b"")["decision"] for output in one.outputs] for one in at.delivered]
    assert decisions == [["allow"], ["review", "review"], ["review", "review"]]
    assert [[output.headers for output in one.outputs] for one in at.delivered] == [
        [[("traceparent", b"00-a")]],
        [None, None],
        [[("traceparent", b"00-b"), ("traceparent", None)]] * 2,
    ]
    assert not any(telemetry.UNAVAILABLE in record.counted for record in at.delivered)
