"""Commands and their outputs, over crashes at any moment and partitions that are taken away."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.audit import AuditRecord
from schemas.forget import Forget
from schemas.review import ReviewItem
from schemas.review_command import ReviewCommand
from tests.reviewing import review_item, verdict_id
from tests.unit.review.given import NOW, TENANT, TERMS, command
from workers import telemetry
from workers.core.records import Finished, Output, Record, Source, TopicPartition
from workers.errors import Fatal
from workers.review.desk import Desk
from workers.review.item import Item, decoded
from workers.review.processing import Processor, written
from workers.review.queues import Reader
from workers.review.reading import Reading, Work, arrival
from workers.review.terms import Terms
from workers.settings import Topics

TOPICS = Topics()
ITEMS = TopicPartition(TOPICS.review, 0)
COMMANDS = TopicPartition(TOPICS.review_commands, 0)
FORGET = TopicPartition(TOPICS.forget, 0)


class Brokers:
    """The inputs, the committed offsets, and the committed outputs. A transaction is committed as a whole."""

    def __init__(self, terms: Terms = TERMS, max_bytes: dict[str, int] | None = None) -> None:
        self.terms = terms
        self.max_bytes = max_bytes
        self.now = NOW
        self.inputs: dict[TopicPartition, list[bytes]] = {ITEMS: [], COMMANDS: [], FORGET: []}
        self.offsets = dict.fromkeys(self.inputs, 0)
        self.state: dict[bytes, bytes | None] = {}
        self.verdicts: list[dict[str, Any]] = []
        self.verdict_keys: list[bytes] = []
        self.audit: list[dict[str, Any]] = []
        self.start()

    def start(self) -> None:
        """Start a process: what the last one had in memory is gone."""
        self.desk = Desk()
        states = [decoded(value) for value in self.state.values() if value is not None]
        self.desk.load(states, self.now + self.terms.lease_ms)
        self.done: list[Finished] = []
        self.processor = Processor(
            self.desk,
            TOPICS,
            terms=self.terms,
            rules_of=lambda _: TENANT,
            pipeline="test",
            now_ms=lambda: self.now,
            deliver=lambda records: self.done.extend(records),
            max_bytes=self.max_bytes,
        )
        self.epoch = 0
        self.read = dict(self.offsets)

    def rebalance(self) -> None:
        """Take the partitions away before the commit, and give them back: the process reads the records again."""
        self.epoch += 1
        self.done = [record for record in self.done if record.source.epoch == self.epoch]
        self.read = dict(self.offsets)

    def send(self, *commands: ReviewCommand) -> None:
        self.inputs[COMMANDS] += [written(TOPICS, one).value or b"" for one in commands]

    def arrive(self, number: int) -> None:
        self.inputs[ITEMS].append(json.dumps(review_item(number, NOW)).encode())

    def poll(self, origins: Sequence[TopicPartition] = (FORGET, COMMANDS, ITEMS)) -> None:
        works: list[Work] = []
        for origin in origins:
            for offset in range(self.read[origin], len(self.inputs[origin])):
                record = Record(self.inputs[origin][offset], b"room", [], origin.topic)
                works += Reading(TOPICS)(record, Source(origin, self.epoch, offset, None, self.now))
            self.read[origin] = len(self.inputs[origin])
        self.processor.submit(works)

    def commit(self, origins: Sequence[TopicPartition] = (COMMANDS, ITEMS, FORGET)) -> None:
        """Commit the finished prefix of these partitions, in this order."""
        committed: list[Finished] = []
        for origin in origins:
            while True:
                now = [
                    one
                    for one in self.done
                    if (one.source.origin, one.source.offset, one.source.epoch)
                    == (origin, self.offsets[origin], self.epoch)
                ]
                if not now:
                    break
                self.offsets[origin] += 1
                committed.append(now[0])
        self.done = [one for one in self.done if one not in committed]
        for record in committed:
            for output in record.outputs:
                self._store(output)
        self.processor.committed(committed)

    def settle(self) -> None:
        """Read and commit until nothing is left to do."""
        rounds = 0
        while any(self.offsets[origin] < len(records) for origin, records in self.inputs.items()):
            self.poll()
            self.commit()
            rounds += 1
            assert rounds < 100, "a record is never committed"

    def _store(self, output: Output) -> None:
        if output.topic == TOPICS.review_state:
            self.state[output.key] = output.value
        elif output.topic == TOPICS.verdicts:
            self.verdicts.append(json.loads(output.value or b""))
            self.verdict_keys.append(output.key)
        elif output.topic == TOPICS.audit:
            self.audit.append(AuditRecord.model_validate_json(output.value or b"").model_dump())
        else:
            assert output.topic == TOPICS.review_commands
            self.inputs[COMMANDS].append(output.value or b"")


def check(brokers: Brokers) -> None:
    """Every decision that took effect has one superseding verdict, in one chain, and the state names the last one."""
    ids = [verdict["verdict_id"] for verdict in brokers.verdicts]
    assert len(set(ids)) == len(ids)
    for value in brokers.state.values():
        item: Item | None = None if value is None else decoded(value)
        if item is None:
            continue
        chain = [item.verdict_id]
        for verdict in brokers.verdicts:
            if verdict["event_id"] == json.loads(bytes(item.verdict))["event_id"]:
                assert verdict["supersedes"] == chain[-1]
                chain.append(verdict["verdict_id"])
        assert item.current == chain[-1]
        assert sum(step.action == "published" for step in item.history) == len(chain) - 1
        assert brokers.desk.items[item.verdict_id].current == item.current
    published = [record["published"] for record in brokers.audit if record["action"] == "published"]
    assert sorted(published) == sorted(ids)


OPERATIONS = st.one_of(
    st.tuples(st.just("arrive"), st.integers(0, 2)),
    st.tuples(
        st.just("command"),
        st.tuples(
            st.integers(0, 2),
            st.sampled_from(["lease", "decide", "decide", "undo", "release", "skip", "reopen", "appeal"]),
            st.sampled_from(["ana", "bob", "sue"]),
        ),
    ),
    st.tuples(st.sampled_from(["repeat", "poll", "crash", "rebalance", "later"]), st.none()),
    st.tuples(
        st.just("commit"), st.sampled_from([(COMMANDS,), (ITEMS,), (COMMANDS, ITEMS, FORGET), (ITEMS, COMMANDS)])
    ),
    st.tuples(st.just("forget"), st.none()),
)


@given(st.lists(OPERATIONS, max_size=40))
@settings(max_examples=150)
def test_a_crash_or_a_rebalance_at_any_moment_loses_nothing_and_doubles_nothing(wanted: list[Any]) -> None:
    brokers = Brokers()
    sent: list[ReviewCommand] = []
    for kind, detail in wanted:
        if kind == "arrive":
            brokers.arrive(detail)
        elif kind == "command":
            number, what, by = detail
            fields = {"decision": "block"} if what == "decide" else {"text": "x"} if what == "appeal" else {}
            sent.append(command(what, by, verdict_id(number), **fields))
            brokers.send(sent[-1])
        elif kind == "repeat" and sent:
            brokers.send(sent[-1])
        elif kind == "poll":
            brokers.poll()
        elif kind == "commit":
            brokers.commit(detail)
        elif kind == "crash":
            brokers.start()
        elif kind == "rebalance":
            brokers.rebalance()
        elif kind == "forget":
            request = {
                "forget_id": "0" * 32,
                "tenant_id": "acme",
                "author_id": "u-17",
                "requested_at": "2026-11-28T14:00:00Z",
            }
            brokers.inputs[FORGET].append(Forget.model_validate(request).model_dump_json().encode())
        elif kind == "later":
            brokers.now += TERMS.undo_ms
            brokers.send(
                *(
                    command("settle", verdict_id=item.verdict_id)
                    for item in brokers.desk.items.values()
                    if item.pending is not None
                )
            )
    brokers.settle()
    check(brokers)
    before = dict(brokers.desk.items)
    brokers.start()
    for item in before.values():
        again = brokers.desk.items[item.verdict_id]
        assert (again.status, again.current, again.history) == (item.status, item.current, item.history)


def test_an_item_is_shown_only_after_its_arrival_is_committed() -> None:
    brokers = Brokers()
    brokers.arrive(0)
    brokers.poll()
    ana = Reader("ana", is_senior=False)
    assert brokers.desk.reserve(ana) is None
    brokers.send(command("lease", "ana", verdict_id(0)))
    brokers.poll()
    brokers.commit((COMMANDS,))
    assert brokers.offsets[COMMANDS] == 0
    brokers.commit()
    brokers.commit()
    assert brokers.offsets[COMMANDS] == 1
    assert brokers.desk.items[verdict_id(0)].lease is not None


def test_a_command_whose_state_is_too_large_for_its_topic_changes_nothing_for_those_after_it() -> None:
    limits = {TOPICS.review_state: 1_000_000}
    brokers = Brokers(max_bytes=limits)
    brokers.arrive(0)
    brokers.settle()
    limits[TOPICS.review_state] = len(brokers.state[verdict_id(0).encode()] or b"") + 1_500
    before = brokers.desk.items[verdict_id(0)]
    brokers.send(command("decide", "ana", verdict_id(0), decision="block", note="n" * 2_000))
    brokers.send(command("decide", "bob", verdict_id(0), decision="allow"))
    brokers.poll()
    assert [output.topic for output in brokers.done[0].outputs] == []
    brokers.settle()
    after = brokers.desk.items[verdict_id(0)]
    assert after.pending is not None
    assert (before.pending, after.pending.by) == (None, "bob")
    assert decoded(brokers.state[verdict_id(0).encode()] or b"") == after


def test_an_arrival_that_became_a_dead_letter_leaves_no_item() -> None:
    brokers = Brokers()
    brokers.arrive(0)
    brokers.poll()
    letter = Output(TOPICS.dead_letters, b"room", b"{")
    brokers.processor.committed([Finished(one.source, (letter,)) for one in brokers.done])
    assert brokers.desk.items == {}


def test_a_limit_that_was_lowered_ends_the_worker() -> None:
    """The items in memory would differ from those in the topic."""
    brokers = Brokers()
    brokers.arrive(0)
    brokers.settle()
    brokers.send(command("lease", "ana", verdict_id(0)))
    brokers.poll()
    letter = Output(TOPICS.dead_letters, b"room", b"{")
    with pytest.raises(Fatal, match="A restart reads the items again"):
        brokers.processor.committed([Finished(one.source, (letter,)) for one in brokers.done])


def test_heartbeats_do_not_fill_the_memory_and_move_the_end_of_the_lease() -> None:
    brokers = Brokers()
    brokers.arrive(0)
    brokers.settle()
    brokers.send(command("lease", "ana", verdict_id(0)))
    brokers.settle()
    planned = len(brokers.desk._due)
    for beat in range(100):
        until = NOW + TERMS.lease_ms + beat
        brokers.desk.beat(verdict_id(0), "ana", until, NOW + 1)
    assert len(brokers.desk._due) == planned
    assert brokers.desk.due(until - 1, 10, 1_000) == []
    assert [due.kind for due in brokers.desk.due(until, 10, 1_000)] == ["end_lease"]
    assert brokers.desk.due(until + 999, 10, 1_000) == []
    assert [due.kind for due in brokers.desk.due(until + 1_000, 10, 1_000)] == ["end_lease"]


def test_every_superseding_verdict_names_its_item_also_after_a_restart() -> None:
    """An appeal that named an older one would open a second item for the event."""
    brokers = Brokers(TERMS._replace(undo_ms=0))
    brokers.arrive(0)
    brokers.settle()
    for by in ("ana", "bob"):
        brokers.send(command("decide", by, verdict_id(0), decision="block"))
        brokers.send(command("appeal", "coop", verdict_id(0), text="x"))
        brokers.settle()
    published = [verdict["verdict_id"] for verdict in brokers.verdicts]
    assert len(published) == 2
    for is_restarted in (False, True):
        if is_restarted:
            brokers.start()
        assert [brokers.desk.root_of(one) for one in published] == [verdict_id(0)] * 2


def test_commands_are_counted_when_they_are_committed() -> None:
    def counted() -> float:
        commands = telemetry.REVIEW_COMMANDS.labels("decide", "applied")._value.get()
        decisions = telemetry.REVIEW_DECISIONS.labels("block")._value.get()
        assert commands - first[0] == decisions - first[1]
        return float(decisions)

    first = [
        telemetry.REVIEW_COMMANDS.labels("decide", "applied")._value.get(),
        telemetry.REVIEW_DECISIONS.labels("block")._value.get(),
    ]

    brokers = Brokers()
    brokers.arrive(0)
    brokers.settle()
    before = counted()
    brokers.send(command("decide", "ana", verdict_id(0), decision="block"))
    brokers.poll()
    assert counted() == before
    brokers.commit()
    assert counted() == before + 1


def test_repairs_that_run_at_the_same_time_write_a_missing_verdict_once() -> None:
    """And a repair of a later loss writes it again."""
    brokers = Brokers(TERMS._replace(undo_ms=0))
    brokers.arrive(0)
    brokers.settle()
    brokers.send(command("decide", "ana", verdict_id(0), decision="block"))
    brokers.settle()
    (lost,) = brokers.verdicts
    for repair in range(3):
        again = command("republish", verdict_id=verdict_id(0), command_id=f"{repair:032x}")
        brokers.send(again, again)
        brokers.settle()
        brokers.start()
        brokers.send(again)
        brokers.settle()
        assert brokers.verdicts == [lost] * (repair + 2)


def test_forgetting_an_author_closes_the_items_of_this_author_only() -> None:
    brokers = Brokers()
    for number in range(3):
        brokers.inputs[ITEMS].append(
            json.dumps(review_item(number, NOW, author_id="u-17" if number < 2 else "u-18")).encode()
        )
    request = {"forget_id": "0" * 32, "tenant_id": "acme", "author_id": "u-17", "requested_at": "2026-11-28T14:00:00Z"}
    brokers.settle()
    brokers.inputs[FORGET].append(json.dumps(request).encode())
    brokers.settle()
    statuses = [brokers.desk.items[verdict_id(number)].status for number in range(3)]
    assert statuses == ["closed", "closed", "open"]
    assert [b"u-17" in (brokers.state[verdict_id(number).encode()] or b"") for number in range(2)] == [False, False]
    assert [record["action"] for record in brokers.audit].count("forgotten") == 2


def test_the_item_of_a_forgotten_author_is_closed_also_if_reconcile_puts_it_back() -> None:
    brokers = Brokers()
    request = {"forget_id": "0" * 32, "tenant_id": "acme", "author_id": "u-17", "requested_at": "2026-11-28T14:00:00Z"}
    brokers.inputs[FORGET].append(json.dumps(request).encode())
    brokers.settle()
    lost = review_item(0, NOW)
    arriving = arrival(ReviewItem.model_validate_json(json.dumps(lost)), "cm9vbQ==", NOW)
    brokers.inputs[COMMANDS].append(written(TOPICS, arriving, {"item": lost}).value or b"")
    brokers.settle()
    item = brokers.desk.items[verdict_id(0)]
    assert (item.status, item.has_content, item.author_id) == ("closed", False, None)


def test_a_verdict_keeps_its_key_if_its_author_is_forgotten_in_the_same_moment() -> None:
    brokers = Brokers()
    brokers.arrive(0)
    brokers.settle()
    brokers.send(command("decide", "ana", verdict_id(0), decision="block"), command("forget", verdict_id=verdict_id(0)))
    brokers.settle()
    assert brokers.desk.items[verdict_id(0)].key != "cm9vbQ=="
    assert brokers.verdict_keys == [b"room"]


def test_a_command_that_is_read_again_later_changes_nothing() -> None:
    """Its first effect was undone meanwhile, so the rules alone would permit it."""
    brokers = Brokers()
    brokers.arrive(0)
    brokers.settle()
    decide = command("decide", "ana", verdict_id(0), decision="block")
    brokers.send(decide, command("undo", "ana", verdict_id(0)))
    brokers.settle()
    for is_restarted in (False, True):
        if is_restarted:
            brokers.start()
        before = brokers.desk.items[verdict_id(0)]
        brokers.send(decide)
        brokers.settle()
        assert brokers.desk.items[verdict_id(0)] == before
        assert before.pending is None
