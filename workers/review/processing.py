"""Applies commands to the items, in the order of the topic, and makes the outputs of each. Used in the event loop.

All outputs of a command, and the command's offset, are in one transaction. So after a crash a command was applied
completely, or the next process applies it.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from sys import maxsize
from typing import Any

import structlog
from msgspec import Struct

from schemas.review_command import CommandKind, ReviewCommand, ReviewRole
from workers import telemetry
from workers.core.dead_letters import size_of
from workers.core.decide import compact
from workers.core.forgotten import Forgotten
from workers.core.marks import Marks, written_time
from workers.core.records import Finished, Output, Source, TopicPartition
from workers.errors import Fatal
from workers.review import item as items
from workers.review.desk import Desk
from workers.review.item import Item, Lease
from workers.review.reading import SYSTEM, Work, command_id
from workers.review.refusal import Refusal
from workers.review.rules import applied, forgotten
from workers.review.terms import Change, Given, TenantRules, Terms
from workers.review.verdicts import superseding, superseding_id
from workers.settings import Topics

log = structlog.get_logger(__name__)

Position = tuple[TopicPartition, int]

TOO_LARGE = (
    "the state of the item is too large for topics.review_state, and nothing has changed: raise the topic's "
    "max.message.bytes"
)


class _Pending(Struct):
    """A record that was read and is not committed. `outputs` is None while it waits for another record's commit."""

    work: Work
    source: Source
    outputs: tuple[Output, ...] | None = None
    before: Item | None = None
    answer: Item | Refusal | None = None
    result: str = "applied"
    """What the metric says of the command, after the commit."""


class Processor:
    """The only place where items change.

    Guarantee: a command changes an item at most once, whatever the number of records with its id, within the steps that
    the item's history keeps (`item.MAX_STEPS`). A record that is read again, because the group took its partition away
    before the commit, has the same outputs again. Never blocks.
    """

    def __init__(
        self,
        desk: Desk,
        topics: Topics,
        *,
        terms: Terms,
        rules_of: Callable[[str], TenantRules],
        pipeline: str,
        now_ms: Callable[[], int],
        deliver: Callable[[list[Finished]], None],
        marks: Marks | None = None,
        forgotten: Forgotten | None = None,
        max_bytes: Mapping[str, int] | None = None,
    ) -> None:
        """`max_bytes`: how large a record each topic takes, as `workers.kafka.topics.Checked` says."""
        self._desk = desk
        self._topics = topics
        self._terms = terms
        self._rules_of = rules_of
        self._pipeline = pipeline
        self._now_ms = now_ms
        self._deliver = deliver
        self._marks = marks
        self._forgotten = forgotten or Forgotten()
        self._max_bytes = max_bytes or {}
        self._pending: dict[Position, _Pending] = {}
        self._behind: dict[str, list[_Pending]] = {}
        """The commands that wait for the arrival of their item to be committed."""
        self._uncommitted: set[str] = set()
        """The ids of the commands that were read and are not committed."""
        self._expected: dict[str, asyncio.Future[Item | None]] = {}

    def expect(self, command_id: str) -> asyncio.Future[Item | None]:
        """Give the future item after a command: its result is set after the commit; None if the item was deleted.

        The future raises `Refusal` if the command is not permitted. Two requests with one command share it.
        """
        future = self._expected.get(command_id)
        if future is None:
            future = self._expected[command_id] = asyncio.get_running_loop().create_future()
        return future

    def give_up(self, command_id: str) -> None:
        """Forget a command whose answer nobody waits for any more. It is applied all the same."""
        if (future := self._expected.pop(command_id, None)) is not None:
            future.cancel()

    def is_pending(self, command_id: str) -> bool:
        """Whether a command was read and is not committed."""
        return command_id in self._uncommitted

    def is_too_large(self, output: Output) -> bool:
        """Whether the topic of a record does not take it."""
        return size_of(output) > self._max_bytes.get(output.topic, maxsize)

    def submit(self, works: Sequence[Work]) -> None:
        """Take what was read."""
        for work in works:
            position = (work.source.origin, work.source.offset)
            known = self._pending.get(position)
            if known is None:
                self._pending[position] = pending = _Pending(work, work.source)
                self._process(pending)
            else:
                known.source = work.source
                if known.outputs is not None:
                    self._deliver([Finished(known.source, known.outputs)])

    def committed(self, finished: Sequence[Finished]) -> None:
        """Take what was committed: reveal new items, and answer those who wait."""
        for record in finished:
            pending = self._pending.pop((record.source.origin, record.source.offset), None)
            if pending is None:
                continue
            command = pending.work.command
            if record.outputs != pending.outputs:
                self._drop(pending)
            if command is None:
                continue
            telemetry.REVIEW_COMMANDS.labels(command.kind.value, pending.result).inc()
            if command.decision is not None and pending.result == "applied":
                telemetry.REVIEW_DECISIONS.labels(command.decision).inc()
            self._uncommitted.discard(command.command_id)
            if pending.work.is_arrival:
                self._desk.reveal(command.verdict_id)
                for waiting in self._behind.pop(command.verdict_id, ()):
                    self._process(waiting)
            future = self._expected.pop(command.command_id, None)
            if future is not None:
                if isinstance(pending.answer, Refusal):
                    future.set_exception(pending.answer)
                else:
                    future.set_result(pending.answer)

    def _drop(self, pending: _Pending) -> None:
        """Forget an item whose arrival became a dead letter, because its state is too large for its topic.

        No command was applied to it: those for a hidden item wait.

        Raises:
            Fatal: it was no arrival, so a topic's limit was lowered, and the items in memory differ from the topic.
        """
        command = pending.work.command
        if command is None:
            return
        if not pending.work.is_arrival or pending.before is not None:
            raise Fatal(f"{TOO_LARGE}. A restart reads the items again")
        log.error("an item was not taken", verdict=command.verdict_id, reason=TOO_LARGE)
        self._desk.remove(command.verdict_id)
        pending.answer, pending.result = Refusal(413, TOO_LARGE), "refused"

    def _process(self, pending: _Pending) -> None:
        work = pending.work
        if work.forget is not None:
            pending.outputs = self._forget(work)
        else:
            command = work.command
            assert command is not None  # A work has a command or a request to forget.
            if self._desk.is_hidden(command.verdict_id) and not work.is_arrival:
                # Its state is written in another partition's order. Compaction would keep the older of the two.
                self._behind.setdefault(command.verdict_id, []).append(pending)
                return
            pending.outputs = self._apply(pending, command)
        self._deliver([Finished(pending.source, pending.outputs)])

    def _apply(self, pending: _Pending, command: ReviewCommand) -> tuple[Output, ...]:
        desk, work = self._desk, pending.work
        self._uncommitted.add(command.command_id)
        item = pending.before = desk.items.get(command.verdict_id)
        pending.answer = item
        if item is not None and item.step_of(command.command_id) is not None:
            pending.result = "repeated"
            return ()
        tenant_id = item.tenant_id if item is not None else str((work.document or {}).get("tenant_id", ""))
        given = Given(
            command,
            self._now_ms(),
            self._terms,
            self._rules_of(tenant_id),
            lambda causing: superseding_id(self._pipeline, causing),
            work.document or {},
            self._other_leases(command),
        )
        try:
            change = applied(item, given)
        except Refusal as refusal:
            pending.answer, pending.result = refusal, "refused"
            desk.free(command.verdict_id)
            return ()
        if item is None and command.kind is CommandKind.ARRIVE and self._is_forgotten(change.item, given.document):
            change = forgotten(change, given)
        outputs = self._outputs(item, change, given)
        if not work.is_arrival and any(map(self.is_too_large, outputs)):
            # Before the desk has it: commands that follow must not be applied to a state that Kafka refuses.
            log.error(
                "an item was not changed", verdict=command.verdict_id, command=command.kind.value, reason=TOO_LARGE
            )
            pending.answer, pending.result = Refusal(413, TOO_LARGE), "refused"
            desk.free(command.verdict_id)
            return ()
        pending.answer = change.item
        if change.item is None:
            desk.remove(command.verdict_id)
        elif change.item is not item:
            desk.put(change.item, is_hidden=work.is_arrival)
        return outputs

    def _other_leases(self, command: ReviewCommand) -> list[Lease]:
        if command.kind is not CommandKind.LEASE:
            return []
        held = self._desk.leased_by(command.by)
        return [item.lease for item in held if item.lease is not None and item.verdict_id != command.verdict_id]

    def _outputs(self, before: Item | None, change: Change, given: Given) -> tuple[Output, ...]:
        """Give the records of a change: the verdict, the new state, and the audit records."""
        command, item = given.command, change.item
        known = item or before
        assert known is not None  # Without an item before, there is one after.
        key = command.verdict_id.encode()
        outputs = []
        published = None
        if "published" in change.actions and item is not None:
            published = item.current
            # If the same command forgets the author, only the item before has the key.
            verdict = Output(self._topics.verdicts, base64.b64decode((before or item).key), compact(superseding(item)))
            if self._marks is not None:
                verdict = self._marks.put(verdict, published, written_time(given.now_ms / 1000))
            outputs.append(verdict)
        if item is not before:
            outputs.append(Output(self._topics.review_state, key, None if item is None else items.encoded(item)))
        for action in change.actions:
            record = {
                "schema_version": 1,
                "at": given.now_ms,
                "tenant_id": known.tenant_id,
                "verdict_id": command.verdict_id,
                "command_id": command.command_id,
                "action": action,
                "by": command.by,
                "role": command.role.value,
                "decision": command.decision,
                "published": published if action == "published" else None,
            }
            outputs.append(Output(self._topics.audit, key, compact(record)))
        return tuple(outputs)

    def _is_forgotten(self, item: Item | None, document: Mapping[str, Any]) -> bool:
        """Whether the author of an item that arrives was forgotten after the event: the request was read first."""
        if item is None or item.author_id is None:
            return False
        sent_ms, received_ms = document["source"]["timestamp"], document["timings"]["received_at"]
        return self._forgotten.covers(item.tenant_id, item.author_id, sent_ms, received_ms)

    def _forget(self, work: Work) -> tuple[Output, ...]:
        """Give a command for each item of the author. Each item then changes in the order of its own commands."""
        forget = work.forget
        assert forget is not None  # The caller has checked it.
        self._forgotten.add(forget)
        outputs = []
        for verdict_id in self._desk.of_author(forget.tenant_id, forget.author_id):
            command = ReviewCommand(
                command_id=command_id("forget", forget.forget_id, verdict_id),
                verdict_id=verdict_id,
                kind=CommandKind.FORGET,
                by=SYSTEM,
                role=ReviewRole.SYSTEM,
                at=self._now_ms(),
            )
            outputs.append(written(self._topics, command))
        return tuple(outputs)


def written(topics: Topics, command: ReviewCommand, brought: Mapping[str, Any] | None = None) -> Output:
    """Give the record of a command. `brought`: its `item` or `verdict` as it was read, unknown fields included."""
    record = {**command.model_dump(mode="json", exclude_none=True), **(brought or {})}
    return Output(topics.review_commands, command.verdict_id.encode(), compact(record))
