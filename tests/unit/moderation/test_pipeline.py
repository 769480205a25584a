"""The pipeline with a guard that waits or fails: which policy decides, and which events wait for each other."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
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
from workers.settings import Language


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


@pytest.mark.parametrize("refuses", [False, True])
async def test_the_policy_in_force_after_the_engine_decides(site: Site, *, refuses: bool) -> None:
    """With an older policy, a change would take effect only after the engine has answered."""
    settings = site.settings()
    namespace = settings.redis.namespace
    guard = WaitingGuard(refuses=refuses)
    policies = HeldPolicies(acme=Policy(id="old", safe=Decision.ALLOW, on_unavailable="review"))
    finished: asyncio.Future[list[Finished]] = asyncio.get_running_loop().create_future()
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        pipeline = Pipeline(
            settings,
            dedup=Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f"),
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=Judge(guard, notes, batches_in_flight=1, is_current=lambda _: True, hangs_after_s=60),
            policies=policies,
            default_policy=default_strict(),
            is_current=lambda _: True,
            deliver=finished.set_result,
            fail=finished.set_exception,
        )
        pipeline.submit([event_at(0)])
        async with asyncio.timeout(10):
            await guard.asked.wait()
            policies.put(acme=Policy(id="new", safe=Decision.BLOCK, on_unavailable="block"))
            guard.may_answer.set()
            (record,) = await finished
    verdict = orjson.loads(record.outputs[0].value or b"")
    assert (verdict["policy"]["id"], verdict["decision"]) == ("new", "block")
    assert (verdict["assessment"] is None) == refuses


async def test_a_verdict_has_the_simhash_of_its_text_if_they_are_on(site: Site) -> None:
    settings = site.settings()
    namespace = settings.redis.namespace
    guard = WaitingGuard(refuses=False)
    guard.may_answer.set()
    hashes = SimHashes("secret")
    text = "good morning to everyone in this room"
    finished: asyncio.Future[list[Finished]] = asyncio.get_running_loop().create_future()
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        pipeline = Pipeline(
            settings,
            dedup=Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f"),
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=Judge(guard, notes, batches_in_flight=1, is_current=lambda _: True, hangs_after_s=60),
            policies=HeldPolicies(),
            default_policy=default_strict(),
            is_current=lambda _: True,
            deliver=finished.set_result,
            fail=finished.set_exception,
            similarity=hashes,
        )
        pipeline.submit([event_at(0, text=text), event_at(1, text="short"), event_at(2, text=text.upper() + " 🔥")])
        async with asyncio.timeout(10):
            records = await finished
    found = [orjson.loads(record.outputs[0].value or b"").get("similarity") for record in records]
    assert found == [hashes.of([text])[0], None, found[0]]
    assert found[0] is not None


async def test_the_strikes_of_the_moment_of_the_decision_decide_and_the_verdict_names_them(site: Site) -> None:
    """The engine may take minutes, in which the author's other messages are judged."""
    settings = site.settings()
    namespace = settings.redis.namespace
    guard = WaitingGuard(refuses=False)
    asking = Policy.model_validate(
        {"id": "acme", "strikes": {}, "rules": [{"severity": "Safe", "min_strikes": 3, "decision": "block"}]}
    )
    finished: asyncio.Future[list[Finished]] = asyncio.get_running_loop().create_future()
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        pipeline = Pipeline(
            settings,
            dedup=Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f"),
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=Judge(guard, notes, batches_in_flight=1, is_current=lambda _: True, hangs_after_s=60),
            policies=HeldPolicies(acme=asking),
            default_policy=default_strict(),
            is_current=lambda _: True,
            deliver=finished.set_result,
            fail=finished.set_exception,
        )
        pipeline.submit([event_at(0, author_id="u-17"), event_at(1, author_id="new", text="other"), event_at(2)])
        async with asyncio.timeout(10):
            await guard.asked.wait()
            stored = StoredStrikes(redis, namespace=namespace, secret="")
            await stored.write({Author("acme", "u-17"): standing_of(3)})
            guard.may_answer.set()
            records = await finished
    verdicts = [orjson.loads(record.outputs[0].value or b"") for record in records]
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
    settings = site.settings()
    namespace = settings.redis.namespace
    guard = WaitingGuard(refuses=False)
    guard.may_answer.set()
    finished: asyncio.Future[list[Finished]] = asyncio.get_running_loop().create_future()
    before = shown("guardline_decisions_total", decision=decision)
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        Pipeline(
            settings,
            dedup=Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f"),
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=Judge(guard, notes, batches_in_flight=1, is_current=lambda _: True, hangs_after_s=60),
            policies=HeldPolicies(**policies),
            default_policy=default_strict(),
            is_current=lambda _: True,
            deliver=finished.set_result,
            fail=finished.set_exception,
        ).submit([event_at(0)])
        async with asyncio.timeout(10):
            (record,) = await finished
    verdict = orjson.loads(record.outputs[0].value or b"")
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
    settings = site.settings()
    namespace = settings.redis.namespace
    guard = HalfDeadGuard()
    holds = Policy(id="patient", on_unavailable="hold" if why == "its tenant holds" else "review")
    delivered: list[Finished] = []
    errors: list[BaseException] = []
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        dedup = Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f")
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        texts = {0: "hello", 1: "slow", 2: "good day"}
        events = [
            event_at(n, event_id=str(n), tenant_id="patient" if text == "slow" else "acme", text=text)
            for n, text in texts.items()
        ]
        if why == "it is a suspect":
            await dedup.look_up([events[1]])
            notes._crashes = {events[1].content_key[-16:]: SUSPECT}
        pipeline = Pipeline(
            settings,
            dedup=dedup,
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=Judge(guard, notes, batches_in_flight=1, is_current=lambda _: True, hangs_after_s=60),
            policies=HeldPolicies(patient=holds),
            default_policy=default_strict(),
            is_current=lambda _: True,
            deliver=delivered.extend,
            fail=errors.append,
        )
        pipeline.submit(events)
        await until(lambda: guard.has_failed and len(delivered) == 2)
        assert [record.source.offset for record in delivered] == [0, 2]
        guard.is_down = False
        await until(lambda: len(delivered) == 3)
    assert not errors
    assert all(orjson.loads(record.outputs[0].value or b"")["assessment"] for record in delivered)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


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
    settings = site.settings(GUARDLINE_BATCH__MAX_AGE_S="0.001")
    namespace = settings.redis.namespace
    guard = CountingGuard()
    finished: list[Finished] = []
    failures: list[BaseException] = []
    everything = asyncio.Event()
    count = 20

    def deliver(records: list[Finished]) -> None:
        finished.extend(records)
        if len(finished) == count:
            everything.set()

    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        judge = Judge(guard, notes, batches_in_flight=1, is_current=lambda _: True, hangs_after_s=60)
        pipeline = Pipeline(
            settings,
            dedup=Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f"),
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=judge,
            policies=HeldPolicies(),
            default_policy=default_strict(),
            is_current=lambda _: True,
            deliver=deliver,
            fail=failures.append,
        )
        async with asyncio.timeout(20):
            for offset in range(count):
                pipeline.submit([event_at(offset, event_id=f"e{offset}", text=f"hello {offset}")])
                if offset == 0:
                    await guard.asked.wait()
                elif offset == 1:
                    while not judge.is_full:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.001)
                else:
                    await asyncio.sleep(0.002)  # Old enough, each of them.
            guard.may_answer.set()
            await everything.wait()
    # One at the engine and one that waits for it: the rest came while there was no place.
    assert guard.sizes == [1, 1, count - 2]
    assert not failures


async def test_events_that_a_rebalance_moved_are_not_counted(site: Site) -> None:
    """Otherwise the worker counts them as unavailable, and a duplicate names a verdict that does not exist."""
    settings = site.settings()
    namespace = settings.redis.namespace
    guard = WaitingGuard(refuses=True)
    delivered: list[Finished] = []
    errors: list[BaseException] = []
    gone: set[Source] = set()
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        dedup = Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f")
        pipeline = Pipeline(
            settings,
            dedup=dedup,
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=Judge(
                guard, notes, batches_in_flight=1, is_current=lambda source: source not in gone, hangs_after_s=60
            ),
            policies=HeldPolicies(),
            default_policy=default_strict(),
            is_current=lambda source: source not in gone,
            deliver=delivered.extend,
            fail=errors.append,
        )
        events = [event_at(n, event_id=f"e{n}") for n in range(3)]
        before = counted(telemetry.STALE)
        pipeline.submit(events)
        await guard.asked.wait()
        gone.update({events[0].source, events[2].source})
        guard.may_answer.set()
        await until(lambda: bool(delivered or errors))
    assert [record.source.offset for record in delivered] == [1]
    assert telemetry.UNAVAILABLE in delivered[0].counted
    assert counted(telemetry.STALE) - before == 2
    assert len(dedup.claims) == 1
    assert not errors


def counted(counter: Counter) -> float:
    (metric,) = counter.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_total"))


class NoLanguages(Languages):
    """Finds the language of no text."""

    async def fill(self, events: Sequence[Event]) -> None:
        """Leave them all as they are."""


async def test_who_named_a_language_is_counted_by_the_commit_and_only_where_there_is_a_text(site: Site) -> None:
    settings = site.settings()
    namespace = settings.redis.namespace
    guard = WaitingGuard(refuses=False)
    guard.may_answer.set()
    delivered: list[Finished] = []
    errors: list[BaseException] = []
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        pipeline = Pipeline(
            settings,
            dedup=Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f"),
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=Judge(guard, notes, batches_in_flight=1, is_current=lambda _: True, hangs_after_s=60),
            policies=HeldPolicies(),
            default_policy=default_strict(),
            is_current=lambda _: True,
            deliver=delivered.extend,
            fail=errors.append,
            languages=NoLanguages(Language()),
        )
        before = shown("guardline_languages_total", source="unknown")
        pipeline.submit([event_at(0), event_at(1, text=""), event_at(2, event_id="other", language="de")])
        await until(lambda: len(delivered) == 3 or bool(errors))
    assert not errors
    every = {source: telemetry.LANGUAGES.labels(source) for source in ("producer", "detector", "unknown")}
    found = [[source for source, counter in every.items() if counter in record.counted] for record in delivered]
    assert found == [["unknown"], [], ["producer"]]
    assert shown("guardline_languages_total", source="unknown") == before


async def test_an_event_without_text_needs_no_model_and_named_headers_are_carried(site: Site) -> None:
    settings = site.settings(GUARDLINE_EVENTS__CARRY_HEADERS='["traceparent"]')
    namespace = settings.redis.namespace
    guard = CountingGuard()
    guard.may_answer.set()
    delivered: list[Finished] = []
    errors: list[BaseException] = []
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        notes = CrashNotes(redis, namespace=namespace, worker_id="w", crashes_ttl_s=60)
        pipeline = Pipeline(
            settings,
            dedup=Dedup(redis, settings.dedup, namespace=namespace, fingerprint="f"),
            strikes=StrikeLookups(redis, namespace=namespace, secret=""),
            judge=Judge(guard, notes, batches_in_flight=1, is_current=lambda _: True, hangs_after_s=60),
            policies=HeldPolicies(acme=Policy(id="acme", safe=Decision.REVIEW)),
            default_policy=default_strict(),
            is_current=lambda _: True,
            deliver=delivered.extend,
            fail=errors.append,
        )
        events = [event_at(0, text=""), event_at(1), event_at(2, event_id="other")]
        events[0].headers = [("other", b"x"), ("traceparent", b"00-a")]
        events[1].headers = [("other", b"x")]
        events[2].headers = [("traceparent", b"00-b"), ("traceparent", None)]
        pipeline.submit(events)
        await until(lambda: len(delivered) == 3 or bool(errors))
    assert not errors
    assert guard.sizes == [1]  # Two events of the same text.
    decisions = [[orjson.loads(output.value or b"")["decision"] for output in one.outputs] for one in delivered]
    assert decisions == [["allow"], ["review", "review"], ["review", "review"]]
    assert [[output.headers for output in one.outputs] for one in delivered] == [
        [[("traceparent", b"00-a")]],
        [None, None],
        [[("traceparent", b"00-b"), ("traceparent", None)]] * 2,
    ]
    assert not any(telemetry.UNAVAILABLE in record.counted for record in delivered)
