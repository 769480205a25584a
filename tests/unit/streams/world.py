"""A partition of the input topic in memory, its owners one after the other, and what they have committed."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from schemas.policy import Policy
from schemas.stream import Intervention, StreamSession, StreamVerdict
from tests.scripted_streams import Rule, ScriptedEngine
from tests.unit.streams.given import ORIGIN, read
from workers.core.records import Finished, Source, TopicPartition
from workers.errors import Unavailable
from workers.guard.tokens import Tokens
from workers.live.guard import LiveGuard
from workers.policy.policy import CompiledPolicy
from workers.settings import Topics
from workers.streams.outputs import Outputs
from workers.streams.reading import Item
from workers.streams.stream import Limits
from workers.streams.streams import Streams

TOPICS = Topics()
LIMITS = Limits(idle_ms=60_000, age_ms=600_000)
FOLDER = Path(str(files("infra.nano") / "checkpoint" / "hf"))
SAFE, UNSAFE = (0.9, 0.06, 0.04), (0.1, 0.2, 0.7)
BAD = {token for word in (" kill", "kill") for token in Tokens(FOLDER).content([word])[0]}


def by_word(ids: list[int]) -> Sequence[float]:
    """Find the token of a bad word, and the one after it: by the rule of two in a row, the answer is cut."""
    return UNSAFE if BAD & set(ids[-2:]) else SAFE


def policy_of(**stream: Any) -> CompiledPolicy:
    return CompiledPolicy(Policy.model_validate({"id": "acme", "version": 7, "stream": stream}))


class World:
    """The log, the committed outputs, and the present owner.

    Attributes:
        committed: how many records of the log have been answered and committed.
        failed: the errors that would have ended the worker.
        reads: the parts of the log that owners have read again.
        deleted: how many records the log has lost.
        now_s: the time at which records are polled.
        outages: whether Kafka fails at each of the next steps of the owner's reading.
    """

    def __init__(
        self,
        rule: Rule,
        *,
        policies: Mapping[str, CompiledPolicy] | None = None,
        max_sessions: int = 8,
        max_open: int = 100,
        append_within_s: float = 5,
        limits: Limits = LIMITS,
        hangs_after_s: float = 300,
    ) -> None:
        self.log: list[Item] = []
        self.committed = 0
        self.verdicts: list[StreamVerdict] = []
        self.interventions: list[Intervention] = []
        self.sessions: dict[bytes, StreamSession] = {}
        self.failed: list[BaseException] = []
        self.policies: Mapping[str, CompiledPolicy] = policies or {"acme": policy_of()}
        self.engine = ScriptedEngine(rule, max_sessions=max_sessions)
        self._max_open = max_open
        self._append_within_s = append_within_s
        self._limits = limits
        self._hangs_after_s = hangs_after_s
        self.reads: list[tuple[int, int]] = []
        self.deleted = 0
        self.now_s = 0.0
        self.outages: list[bool] = []
        self._epoch = 0
        self._submitted = 0
        self._finished: dict[int, Finished] = {}

    async def owner(self, again: Streams | None = None) -> Streams:
        """Give the partition to a new worker with a new engine, or to a former one again.

        The one that had it goes on with what it has, and nobody hears it.
        """
        self._epoch += 1
        self._submitted, self._finished = self.committed, {}
        if again is not None:
            self.streams = again
            return again
        self.engine = ScriptedEngine(self.engine.rule, max_sessions=self.engine.max_sessions)
        guard = LiveGuard(
            self.engine,
            FOLDER,
            max_tokens=4_096,
            anchor_tokens=64,
            append_within_s=self._append_within_s,
        )
        await guard.start()

        def deliver(finished: list[Finished]) -> None:
            for record in finished:
                if record.source.epoch == self._epoch:
                    assert record.source.offset not in self._finished, "finished twice"
                    self._finished[record.source.offset] = record

        self.streams = Streams(
            guard,
            Outputs(TOPICS, "test"),
            limits=self._limits,
            max_open=self._max_open,
            policies=lambda: self.policies,
            default_policy=policy_of(),
            read_sessions=self._read_sessions,
            read_items=self._read_items,
            is_current=lambda source: source.epoch == self._epoch,
            deliver=deliver,
            fail=self.failed.append,
            hangs_after_s=self._hangs_after_s,
        )
        return self.streams

    def append(self, values: Sequence[tuple[dict[str, Any], float]]) -> None:
        """Add records to the log: values and their times in seconds."""
        for value, at_s in values:
            self.log.append(read(value, len(self.log), at_s))

    def poll(self, count: int) -> None:
        """Hand the next records to the owner."""
        items = self.log[self._submitted : self._submitted + count]
        self._submitted += len(items)
        self.streams.submit([_polled(item, self._epoch, self.now_s) for item in items])

    @property
    def finished(self) -> int:
        """How many records are answered and not committed."""
        return len(self._finished)

    def is_finished(self, offset: int) -> bool:
        """Say whether this record is answered and not committed."""
        return offset in self._finished

    async def settle(self) -> None:
        """Wait until everything that was handed over is answered, and commit it."""
        await until(lambda: self.finished == self._submitted - self.committed or bool(self.failed))
        assert not self.failed, self.failed
        self.commit()

    def commit(self, limit: int = 1_000_000) -> None:
        """Commit the contiguous prefix of what is answered, of `limit` records at most."""
        while limit and (record := self._finished.pop(self.committed, None)) is not None:
            self.committed += 1
            limit -= 1
            for output in record.outputs:
                if output.topic == TOPICS.stream_verdicts:
                    self.verdicts.append(StreamVerdict.model_validate_json(output.value or b"", strict=True))
                elif output.topic == TOPICS.interventions:
                    self.interventions.append(Intervention.model_validate_json(output.value or b"", strict=True))
                elif output.value is None:
                    del self.sessions[output.key]
                else:
                    self.sessions[output.key] = StreamSession.model_validate_json(output.value, strict=True)

    async def answer(self, *values: dict[str, Any], at_s: float = 0) -> list[StreamVerdict]:
        """Add records, have them answered one after the other, and give their verdicts."""
        before = len(self.verdicts)
        self.append([(value, at_s) for value in values])
        self.poll(len(values))
        await self.settle()
        return self.verdicts[before:]

    async def _read_sessions(self) -> Mapping[bytes, StreamSession]:
        await asyncio.sleep(0)
        self._fail()
        return dict(self.sessions)

    async def _read_items(self, origin: TopicPartition, first: int, end: int) -> AsyncIterator[Item]:
        assert origin == ORIGIN
        self.reads.append((first, end))
        for item in self.log[max(first, self.deleted) : end]:
            yield item
            self._fail()

    def _fail(self) -> None:
        if self.outages and self.outages.pop(0):
            raise Unavailable("no broker answers")


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until the condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - of state that has no event
            await asyncio.sleep(0)


def _polled(item: Item, epoch: int, now_s: float) -> Item:
    source = item.source
    own = Source(source.origin, epoch, source.offset, source.timestamp_ms, int(now_s * 1000))
    return Item(own, *(getattr(item, name) for name in item.__struct_fields__[1:]))


def plain(verdict: StreamVerdict) -> dict[str, Any]:
    """Give what may not depend on who answers, and when."""
    found: dict[str, Any] = json.loads(verdict.model_dump_json())
    del found["judged_ms"]
    return found


def by_stream(verdicts: Sequence[StreamVerdict]) -> dict[str, list[StreamVerdict]]:
    found: dict[str, list[StreamVerdict]] = defaultdict(list)
    for verdict in verdicts:
        found[verdict.stream_id].append(verdict)
    return found
