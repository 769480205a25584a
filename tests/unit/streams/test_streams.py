"""The records of streams and what becomes of them, on an engine whose probabilities follow a rule."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.policy import StreamPolicy
from schemas.stream import StreamVerdict
from tests.unit.streams.given import document
from tests.unit.streams.world import World, by_stream, by_word, plain, policy_of, until
from workers.errors import Fatal
from workers.policy.policy import CompiledPolicy
from workers.streams.stream import Limits

REPLACED = {"replacement": "Stopped."}


def with_world(run: Callable[[World], Awaitable[None]], **world: Any) -> None:
    """Run a test with a worker that owns the partition."""

    async def whole() -> None:
        made = World(by_word, **world)
        await made.owner()
        await run(made)

    asyncio.run(whole())


def acme(**stream: Any) -> dict[str, CompiledPolicy]:
    return {"acme": policy_of(**stream)}


def outcomes(verdicts: Sequence[StreamVerdict]) -> list[str]:
    return [verdict.outcome for verdict in verdicts]


def test_an_answer_is_judged_token_by_token_from_open_to_close() -> None:
    async def run(world: World) -> None:
        found = await world.answer(
            document("open", 0),
            document("user", 1, "How are you?"),
            document("delta", 2, "I"),
            document("delta", 3, " am very well"),
            document("close", 4),
        )
        assert outcomes(found) == ["opened", "judged", "waiting", "judged", "closed"]
        opened, user, _, delta, closed = found
        assert user.prompt is not None
        assert user.prompt.severity == "Safe"
        assert (delta.first_position, delta.shown_chars) == (0, len("I am very"))
        assert (closed.first_position, closed.shown_chars) == (3, len("I am very well"))
        assert [verdict.verdict_id for verdict in found] == list({verdict.verdict_id: 0 for verdict in found})
        acme = world.policies["acme"]
        assert [verdict.policy and verdict.policy.model_dump() for verdict in found] == [acme.stream_reference] * 5
        assert [verdict.rules for verdict in found] == [acme.stream, None, None, None, None]
        assert opened.source.offset == 0
        assert (world.sessions, world.interventions) == ({}, [])
        assert world.engine.sessions == set()

    with_world(run)


def test_a_cut_is_published_once_and_the_rest_is_not_judged() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"))
        (cut,) = await world.answer(document("delta", 2, "Fine. I will kill you now, and then"))
        assert (cut.outcome, cut.shown_chars) == ("cut", len("Fine. I will"))
        (intervention,) = world.interventions
        assert intervention.intervention_id == cut.verdict_id
        assert (intervention.reason, intervention.shown_chars) == ("unsafe", cut.shown_chars)
        assert (intervention.replacement, intervention.severity) == ("Stopped.", "Unsafe")
        (session,) = world.sessions.values()
        assert (session.state, session.shown_chars) == ("cut", cut.shown_chars)
        assert world.engine.sessions == set()
        sent = world.engine.sent
        after = await world.answer(document("delta", 3, " more"), document("open", 0), document("close", 4))
        assert outcomes(after) == ["after_cut", "after_cut", "closed"]
        assert {verdict.shown_chars for verdict in after} == {cut.shown_chars}
        assert (world.engine.sent, len(world.interventions), world.sessions) == (sent, 1, {})

    with_world(run, policies=acme(**REPLACED))


def test_a_turn_of_the_user_can_cut_the_stream_before_the_answer() -> None:
    async def run(world: World) -> None:
        world.engine.prompt = (0.1, 0.1, 0.8)
        found = await world.answer(document("open", 0), document("user", 1, "a bad wish"), document("delta", 2, "No"))
        assert outcomes(found) == ["opened", "cut", "after_cut"]
        assert found[1].prompt is not None
        (intervention,) = world.interventions
        assert (intervention.reason, intervention.position, intervention.shown_chars) == ("prompt", 0, 0)

    with_world(run)


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        (document("delta", 5, " and on"), "out_of_order"),
        (document("delta", 1, " and on"), "out_of_order"),
        (document("delta", 3, [48_000]), "refused"),
        (document("delta", 3, [-1]), "refused"),
        (document("delta", 3, [1]), "refused"),
        (document("delta", 3, "x" * 300_000), "too_long"),
    ],
)
@pytest.mark.parametrize("on_unavailable", ["cut", "allow"])
def test_a_part_that_cannot_be_judged_is_never_allowed_unless_the_policy_says_so(
    record: dict[str, Any], outcome: str, on_unavailable: str
) -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now"))
        shown = world.verdicts[-1].shown_chars
        sent = world.engine.sent
        (found,) = await world.answer(record)
        assert found.outcome == outcome
        (session,) = world.sessions.values()
        (after,) = await world.answer(document("delta", record["seq"] + 1, " I will kill you now"))
        if on_unavailable == "cut":
            (intervention,) = world.interventions
            assert (intervention.reason, intervention.severity) == ("unavailable", None)
            assert intervention.intervention_id == found.verdict_id
            assert (found.shown_chars, after.shown_chars, after.outcome) == (shown, shown, "after_cut")
            assert session.state == "cut"
        else:
            assert world.interventions == []
            assert session.state == "unavailable"
            assert found.shown_chars >= len("All is well now")
            assert after.shown_chars == found.shown_chars + len(" I will kill you now")
        assert world.engine.sent == sent
        (closed,) = await world.answer(document("close", record["seq"] + 2))
        assert (closed.outcome, world.sessions) == ("closed", {})

    with_world(run, policies=acme(on_unavailable=on_unavailable))


@pytest.mark.parametrize("failure", ["hang", "fail", "nan", "short", "zero"])
def test_an_engine_that_fails_is_never_an_allow(failure: str) -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"))
        world.engine.failures = [failure] * 100
        (found,) = await world.answer(document("delta", 2, "All is well now."))
        assert (found.outcome, found.shown_chars, found.risk) == ("unavailable", 0, [])
        (intervention,) = world.interventions
        assert intervention.reason == "unavailable"

    with_world(run, append_within_s=0.2)


def test_records_of_no_stream_are_answered_and_nothing_is_shown_or_kept() -> None:
    async def run(world: World) -> None:
        found = await world.answer(
            document("delta", 2, "hello there"), document("user", 1, "hello there"), document("close", 9)
        )
        assert outcomes(found) == ["unknown_stream"] * 3
        assert {(verdict.shown_chars, verdict.policy) for verdict in found} == {(0, None)}
        assert (world.sessions, world.streams.open, world.engine.sent) == ({}, 0, 0)

    with_world(run)


def test_a_repeat_is_answered_and_not_judged_again() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now"))
        sent = world.engine.sent
        (again,) = await world.answer(document("delta", 2, "All is well now"))
        assert (again.outcome, again.risk, again.shown_chars) == ("repeated", [], world.verdicts[-2].shown_chars)
        assert world.engine.sent == sent
        (closed,) = await world.answer(document("close", 3))
        assert closed.shown_chars == len("All is well now")

    with_world(run)


def test_two_tenants_may_use_the_same_id() -> None:
    async def run(world: World) -> None:
        other = {"tenant_id": "globex"}
        await world.answer(document("open", 0), document("user", 1, "hi"))
        assert outcomes(await world.answer(document("delta", 2, "kill", **other))) == ["unknown_stream"]
        found = await world.answer(
            document("open", 0, **other),
            document("user", 1, "hi", **other),
            document("delta", 2, "I kill you now", **other),
        )
        assert outcomes(found) == ["opened", "judged", "cut"]
        assert outcomes(await world.answer(document("delta", 2, "All is well"))) == ["judged"]
        assert {session.tenant_id: session.state for session in world.sessions.values()} == {
            "acme": "open",
            "globex": "cut",
        }

    with_world(run)


def test_the_rules_are_those_of_the_beginning_also_for_the_next_owner() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "It is fine"))
        world.policies = acme(cut_unsafe=2)
        bad = "? I will kill you now"
        (found,) = await world.answer(document("delta", 3, bad))
        assert found.outcome == "judged"
        await world.owner()
        (found,) = await world.answer(document("delta", 4, bad + bad))
        assert (found.outcome, found.policy and found.policy.version) == ("judged", 7)
        await world.answer(document("close", 5), document("open", 0), document("user", 1, "hi"))
        assert outcomes(await world.answer(document("delta", 2, bad))) == ["cut"]

    with_world(run, policies=acme(cut_unsafe=None))


def test_an_expired_stream_is_over_and_its_id_may_begin_anew() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now"))
        shown = world.verdicts[-1].shown_chars
        (late,) = await world.answer(document("delta", 3, " still"), at_s=61)
        assert (late.outcome, late.shown_chars, world.sessions) == ("expired", shown, {})
        assert outcomes(await world.answer(document("delta", 4, " still"), at_s=62)) == ["unknown_stream"]
        found = await world.answer(document("open", 0), document("open", 0), document("user", 1, "hi"), at_s=63)
        assert outcomes(found) == ["opened", "repeated", "judged"]
        found = await world.answer(document("open", 0), document("user", 1, "hi"), at_s=300)
        assert outcomes(found) == ["opened", "judged"]
        assert len(world.sessions) == 1

    with_world(run)


def test_streams_above_the_bound_are_not_judged() -> None:
    async def run(world: World) -> None:
        found = await world.answer(*(document("open", 0, stream_id=f"s{number}") for number in range(4)))
        assert sorted(outcomes(found)) == ["opened", "opened", "unavailable", "unavailable"]
        assert [one.reason for one in world.interventions] == ["unavailable"] * 2

    with_world(run, max_open=2)


def test_more_streams_than_sessions_are_all_judged() -> None:
    async def run(world: World) -> None:
        for step in (document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now")):
            await world.answer(*({**step, "stream_id": f"s{number}"} for number in range(20)))
        assert outcomes(world.verdicts[-20:]) == ["judged"] * 20
        assert len(world.engine.sessions) <= 2

    with_world(run, max_sessions=2)


def test_a_stream_with_a_long_queue_does_not_delay_another_one() -> None:
    async def run(world: World) -> None:
        await world.answer(*(document("open", 0, stream_id=name) for name in "ab"))
        await world.answer(*(document("user", 1, "x", stream_id=name) for name in "ab"))
        world.append([(document("delta", seq, " well", stream_id="a"), 0) for seq in range(2, 2_002)])
        world.append([(document("delta", 2, "All is well now", stream_id="b"), 0)])
        world.poll(2_001)
        last = len(world.log) - 1
        await until(lambda: world.is_finished(last))
        assert world.finished < 200
        await world.settle()

    with_world(run)


def test_records_of_an_epoch_that_has_ended_free_their_sessions() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now"))
        former, engine = world.streams, world.engine
        assert len(engine.sessions) == 1
        await world.owner()
        watching = asyncio.create_task(former.watch())
        await until(lambda: not engine.sessions and not former.open)
        watching.cancel()

    with_world(run)


def test_a_worker_that_gets_a_partition_back_forgets_what_it_knew() -> None:
    """Another one may have answered records meanwhile, and its own last ones may not have been committed."""

    async def run(world: World) -> None:
        first = world.streams
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now"))
        await world.owner()
        await world.answer(document("delta", 3, " and then I will"))
        await world.owner(first)
        (found,) = await world.answer(document("delta", 4, " kill you now"))
        assert (found.outcome, found.shown_chars) == ("cut", len("All is well now and then I will"))
        await world.owner()
        await world.owner(first)
        assert outcomes(await world.answer(document("close", 5))) == ["closed"]

    with_world(run)


def test_a_new_owner_waits_for_kafka_and_reads_everything_again() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well, and I"))
        await world.owner()
        world.outages = [True, False, True]
        (found,) = await world.answer(document("delta", 3, " kill you now"))
        assert (found.outcome, found.shown_chars) == ("cut", len("All is well, and I"))
        assert (world.outages, len(world.reads)) == ([], 2)

    with_world(run)


def test_an_engine_that_hangs_ends_the_worker() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0))
        world.engine.failures = ["hang"] * 1_000
        watching = asyncio.create_task(world.streams.watch())
        seq = 1
        while not watching.done():
            await world.answer(
                document("open", 0, stream_id=f"s{seq}"), document("delta", 1, "a b c", stream_id=f"s{seq}")
            )
            seq += 1
        with pytest.raises(Fatal, match="has judged nothing for"):
            watching.result()
        assert outcomes(world.verdicts[-1:]) == ["unavailable"]

    with_world(run, append_within_s=0.1, hangs_after_s=0.2)


def test_streams_that_nobody_ends_are_freed_by_the_clock() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now"))
        watching = asyncio.create_task(world.streams.watch())
        await until(lambda: world.streams.open == 0 and not world.engine.sessions)
        assert outcomes(await world.answer(document("delta", 3, " still"))) == ["unknown_stream"]
        watching.cancel()

    with_world(run, limits=Limits(idle_ms=50, age_ms=100))


def test_a_new_owner_without_the_first_record_of_a_stream_does_not_judge_it() -> None:
    """The topic's retention was shorter than the stream's life."""

    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now"))
        world.deleted = 1
        await world.owner()
        (found,) = await world.answer(document("delta", 3, " still"))
        assert (found.outcome, [one.reason for one in world.interventions]) == ("unavailable", ["unavailable"])

    with_world(run)


@pytest.mark.parametrize("trouble", ["none", "the engine fails", "the first record is deleted", "all are deleted"])
@pytest.mark.parametrize("on_unavailable", ["cut", "allow"])
def test_a_stream_that_expires_at_a_new_owner_shows_no_more_than_before_and_is_not_cut(
    trouble: str, on_unavailable: str
) -> None:
    """As at the former owner. Only what cannot be judged again is not shown any more, whatever the policy."""

    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well. And"))
        await world.answer(document("delta", 3, " now"), at_s=50)
        shown = world.verdicts[-1].shown_chars
        assert shown == len("All is well.")
        await world.owner()
        world.engine.failures = ["fail"] * 100 if trouble == "the engine fails" else []
        world.deleted = {"the first record is deleted": 1, "all are deleted": 4}.get(trouble, 0)
        (late,) = await world.answer(document("delta", 4, " still"), at_s=601)
        assert (late.outcome, late.shown_chars) == ("expired", shown if trouble == "none" else 0)
        assert (world.interventions, world.sessions) == ([], {})
        assert outcomes(await world.answer(document("close", 5), at_s=601)) == ["unknown_stream"]

    rules = {"on_unavailable": on_unavailable, "hold_back": {"until": "sentence"}}
    with_world(run, policies=acme(**rules), append_within_s=0.2)


def test_a_new_owner_knows_when_a_stream_was_idle_also_without_its_first_record() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"))
        await world.answer(document("delta", 2, "All is well now"), at_s=50)
        world.deleted = 2
        await world.owner()
        (found,) = await world.answer(document("delta", 3, " still"), at_s=111)
        assert (found.outcome, world.interventions) == ("expired", [])

    with_world(run)


def test_a_stream_without_any_of_its_records_is_not_judged_and_not_taken_for_idle() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0))
        await world.answer(document("delta", 1, "All is well now"), at_s=50)
        world.deleted = 2
        await world.owner()
        (found,) = await world.answer(document("delta", 2, " still"), at_s=70)
        assert (found.outcome, [one.reason for one in world.interventions]) == ("unavailable", ["unavailable"])

    with_world(run)


def test_a_new_stream_in_the_place_of_an_expired_one_does_not_wait_for_its_repetition() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"), document("delta", 2, "All is well now"))
        await world.owner()
        assert outcomes(await world.answer(document("open", 0), at_s=61)) == ["opened"]
        assert world.engine.calls == 0
        (found,) = await world.answer(document("delta", 1, "I will kill you now"), at_s=62)
        assert (found.outcome, found.shown_chars) == ("cut", len("I will"))

    with_world(run)


@pytest.mark.parametrize("owners", [1, 2])
@pytest.mark.parametrize(("kind", "outcome"), [("delta", "unknown_stream"), ("open", "opened")])
def test_a_stream_that_has_expired_for_long_is_not_known_to_any_owner(owners: int, kind: str, outcome: str) -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("delta", 1, "All is well now"))
        world.now_s = 661
        if owners == 2:
            await world.owner()
        content = "x" if kind == "delta" else None
        (found,) = await world.answer(document(kind, 2, content), at_s=661)
        assert (found.outcome, found.shown_chars) == (outcome, 0)
        assert world.streams.open == (kind == "open")

    with_world(run)


def test_a_new_owner_reads_only_from_the_first_open_stream_that_is_not_cut() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0, stream_id="a"), document("delta", 1, "I kill you now", stream_id="a"))
        await world.answer(document("open", 0, stream_id="b"), document("close", 1, stream_id="b"))
        await world.owner()
        assert outcomes(await world.answer(document("delta", 2, "x", stream_id="a"))) == ["after_cut"]
        assert world.reads == []
        await world.answer(document("open", 0, stream_id="c"), document("delta", 1, "hello", stream_id="c"))
        await world.owner()
        await world.answer(document("delta", 2, "x", stream_id="c"))
        assert world.reads == [(5, 7)]

    with_world(run)


def test_a_new_owner_forgets_streams_that_nobody_has_ended_for_longer_than_they_live() -> None:
    """The topic of sessions keeps them for days. They must neither be read again nor count as open."""

    async def run(world: World) -> None:
        for number in range(3):
            name = {"stream_id": f"old{number}"}
            await world.answer(document("open", 0, **name), document("delta", 1, "All is well now", **name))
        await world.owner()
        world.now_s = 10_000
        found = await world.answer(document("open", 0), document("user", 1, "hi"), at_s=10_000)
        assert outcomes(found) == ["opened", "judged"]
        assert (world.reads, world.streams.open) == ([], 1)

    with_world(run, max_open=2)


@pytest.mark.parametrize(("at_s", "now_s"), [(10_000, 60), (60, 10_000)])
def test_neither_a_backlog_nor_the_wrong_clock_of_another_sender_makes_a_new_owner_forget(
    at_s: float, now_s: float
) -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("delta", 1, "All is well, and I"))
        await world.owner()
        world.now_s = now_s
        await world.answer(document("open", 0, stream_id="other"), at_s=at_s)
        (found,) = await world.answer(document("delta", 2, " kill you now"), at_s=60)
        assert (found.outcome, found.shown_chars) == ("cut", len("All is well, and I"))

    with_world(run)


def test_a_new_owner_judges_many_deltas_in_one_call() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), document("user", 1, "hi"))
        await world.answer(*(document("delta", seq, " well") for seq in range(2, 102)))
        assert world.engine.calls > 90
        await world.owner()
        await world.answer(document("delta", 102, " and that is all"))
        assert world.engine.calls < 10

    with_world(run)


def test_a_new_owner_keeps_texts_and_not_records_until_a_stream_goes_on() -> None:
    async def run(world: World) -> None:
        await world.answer(document("open", 0), *(document("delta", seq, " well") for seq in range(1, 10)))
        await world.owner()
        item = world.log[5]
        before = sys.getrefcount(item)
        await world.answer(document("open", 0, stream_id="other"))
        assert world.reads == [(0, 10)]
        assert sys.getrefcount(item) == before
        (found,) = await world.answer(document("close", 10))
        assert (found.outcome, found.shown_chars) == ("closed", 9 * len(" well"))

    with_world(run)


def test_many_streams_that_go_on_at_once_at_a_new_owner_are_all_judged() -> None:
    """To repeat them all at once takes 1 s, and one of them may wait for 0.8 s. Some at a time take less."""

    async def run(world: World) -> None:
        names = [{"stream_id": f"s{number}"} for number in range(100)]
        for name in names:
            await world.answer(document("open", 0, **name), document("delta", 1, "All is well now", **name))
        await world.owner()
        world.engine.takes_s = 0.01
        found = await world.answer(*(document("delta", 2, " and that is all", **name) for name in names))
        assert outcomes(found) == ["judged"] * 100
        assert world.interventions == []

    with_world(run, max_sessions=1, append_within_s=0.8)


WORDS = [" well", " kill", "é", "\ud83d", "\ude00", " fine.", "x", " you", "", "。", " no"]


@st.composite
def logs(draw: st.DrawFn, pauses: Sequence[float] = (5.0, 40.0, 70.0, 700.0)) -> list[tuple[dict[str, Any], float]]:
    """Give the records of some streams: mostly in order, with repeats, jumps, long pauses and reused ids."""
    values: list[tuple[dict[str, Any], float]] = []
    at_s = 0.0
    seqs: dict[str, int] = {}
    for _ in range(draw(st.integers(5, 40))):
        name = draw(st.sampled_from("abc"))
        seq = seqs.get(name, 0)
        kind = "open" if seq == 0 else draw(st.sampled_from(["user", *["delta"] * 12, "close", "open"]))
        trouble = draw(st.sampled_from([0] * 20 + [1, -1, 3]))
        content = draw(st.sampled_from(WORDS)) + draw(st.sampled_from(WORDS)) if kind in ("user", "delta") else None
        at_s += draw(st.sampled_from([0.0] * 10 + [*pauses]))
        values.append((document(kind, max(0, seq + trouble), content, stream_id=name), at_s))
        seqs[name] = 0 if kind == "close" else max(seq, seq + trouble + 1)
    return values


@given(log=logs(), seed=st.integers(0, 1_000), on_unavailable=st.sampled_from(["cut", "allow"]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_number_of_owners_give_the_verdicts_of_one(
    log: list[tuple[dict[str, Any], float]], seed: int, on_unavailable: str
) -> None:
    """Each owner commits a part of what it has answered, and the next one goes on from there."""

    async def answers(owners: bool) -> World:
        world = World(by_word, policies=acme(on_unavailable=on_unavailable))
        choose = random.Random(seed)
        workers = [await world.owner()]
        world.append(log)
        while world.committed < len(log):
            world.poll(choose.randint(1, 12) if owners else 100)
            if owners and choose.random() < 0.5:
                for _ in range(choose.randint(0, 200)):
                    await asyncio.sleep(0)
                world.commit(choose.randint(0, 10))
                workers.append(await world.owner(choose.choice([None, *workers])))
            else:
                await world.settle()
        return world

    undisturbed, disturbed = asyncio.run(answers(owners=False)), asyncio.run(answers(owners=True))
    assert [plain(verdict) for verdict in disturbed.verdicts] == [plain(verdict) for verdict in undisturbed.verdicts]
    assert disturbed.interventions == undisturbed.interventions
    assert disturbed.sessions == undisturbed.sessions
    assert {name: len({one.verdict_id for one in found}) for name, found in by_stream(disturbed.verdicts).items()} == {
        name: len(found) for name, found in by_stream(disturbed.verdicts).items()
    }


@given(log=logs(pauses=[1.0]), seed=st.integers(0, 1_000))
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_an_owner_whose_engine_fails_never_shows_more_than_one_whose_engine_works(
    log: list[tuple[dict[str, Any], float]], seed: int
) -> None:
    """Also where only the repetition of what a former owner has judged fails."""

    async def answers(fails: bool) -> World:
        world = World(by_word, append_within_s=0.02 if fails else 30)
        choose = random.Random(seed)
        await world.owner()
        world.append(log)
        while world.committed < len(log):
            if fails and choose.random() < 0.5:
                await world.owner()
                world.engine.failures = ["fail"] * choose.choice([0, 1, 1_000])
            world.poll(choose.randint(1, 12))
            await world.settle()
        return world

    working, failing = asyncio.run(answers(fails=False)), asyncio.run(answers(fails=True))
    shown = [
        (one.shown_chars, other.shown_chars) for one, other in zip(failing.verdicts, working.verdicts, strict=True)
    ]
    assert [(less, more) for less, more in shown if less > more] == []
    by_content = [one for one in failing.interventions if one.reason != "unavailable"]
    assert [one for one in by_content if one not in working.interventions] == []


def test_a_policy_without_rules_for_streams_has_the_default_ones() -> None:
    assert policy_of().stream == StreamPolicy()
