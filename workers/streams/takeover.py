"""What a new owner of a partition has to know: where the open streams of the partition begin, and their records.

The input topic is the log. The topic of sessions, which the previous owner wrote in the transactions of its offsets,
says from where it has to be read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from pydantic import ValidationError

from schemas.policy import StreamPolicy
from schemas.stream import StreamSession
from workers.core.records import Finished, Source, TopicPartition
from workers.errors import Fatal
from workers.kafka.loop import Decode
from workers.kafka.ranges import read_range, timestamp_of
from workers.kafka.reader import read, wait_for_open_transactions
from workers.settings import Kafka, Settings
from workers.streams.outputs import SCHEMA_VERSION, Terms
from workers.streams.reading import Item
from workers.streams.stream import Stream

READERS = 4
"""Each has a connection, threads and a buffer of its own."""


class Known(NamedTuple):
    """A stream that was open when the previous owner committed last. `shown_chars` counts if it was cut."""

    tenant_id: str
    stream_id: str
    stream: Stream
    terms: Terms
    shown_chars: int


class Sessions:
    """Reads the topic of sessions. Partitions that are assigned together share one read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Mapping[bytes, StreamSession]] | None = None

    async def read(self) -> Mapping[bytes, StreamSession]:
        """Give the newest state of each session, with everything that was committed before this call.

        Raises:
            Unavailable: Kafka or the topic is not there.
            Fatal: a newer version of the worker wrote a state, or something else did.
        """
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._read())
        return await asyncio.shield(self._next)

    async def _read(self) -> Mapping[bytes, StreamSession]:
        async with self._lock:
            self._next = None  # Who asks from here on needs what is committed until then, and waits for the next read.
            return await asyncio.to_thread(_newest, self._settings)


def _newest(settings: Settings) -> Mapping[bytes, StreamSession]:
    topic = settings.topics.stream_sessions
    ends = wait_for_open_transactions(settings.kafka, topic)
    newest: dict[bytes, bytes] = {}
    places: dict[bytes, str] = {}
    for message in read(settings.kafka, [topic], from_beginning=True, follow=False, until=ends):
        if message is None:
            continue
        key, value = message.key() or b"", message.value()
        if value is None:
            newest.pop(key, None)
        else:
            newest[key] = value
            places[key] = f"{topic}/{message.partition()}/{message.offset()}"
    return {key: _parsed(value, places[key]) for key, value in newest.items()}


def _parsed(value: bytes, where: str) -> StreamSession:
    try:
        session = StreamSession.model_validate_json(value)
    except ValidationError as error:
        raise Fatal(f"topics.stream_sessions: {where} is not the session of a stream: {error}") from None
    if session.schema_version > SCHEMA_VERSION:
        raise Fatal(
            f"topics.stream_sessions: {where} was written by a newer version (schema_version "
            f"{session.schema_version}, this worker reads {SCHEMA_VERSION}): start that version"
        )
    return session


def known_in(sessions: Mapping[bytes, StreamSession], first: Source, forgotten_ms: float) -> list[Known]:
    """Give the streams of this partition that began before its first new record.

    Those that began more than `forgotten_ms` before it are left out: the topic keeps streams that nobody has ended.
    Both the timestamp of the first record and the time of its poll have to say so: then neither a backlog nor the wrong
    clock of another stream's sender ends a stream.
    """
    now_ms = first.received_at_ms if first.timestamp_ms is None else min(first.timestamp_ms, first.received_at_ms)
    return [
        Known(
            session.tenant_id,
            session.stream_id,
            Stream(Source(first.origin, 0, session.start.offset, session.start.timestamp), session.state),
            Terms(session.policy.model_dump(), StreamPolicy.model_validate(session.rules)),
            session.shown_chars,
        )
        for session in sessions.values()
        if (session.start.topic, session.start.partition) == first.origin
        and session.start.offset < first.offset
        and (session.start.timestamp is None or now_ms - session.start.timestamp <= forgotten_ms)
    ]


class Log:
    """Reads the input topic again, `READERS` partitions at a time.

    `decode` is that of the Kafka thread: both have to find the same items.
    """

    def __init__(self, kafka: Kafka, decode: Decode[Item]) -> None:
        self._kafka = kafka
        self._decode = decode
        self._readers = asyncio.Semaphore(READERS)

    async def items(self, origin: TopicPartition, first: int, end: int) -> AsyncIterator[Item]:
        """Give the items of the records from `first` up to `end`, which is left out.

        Raises: as `workers.kafka.ranges.read_range`.
        """
        async with self._readers:
            batches = read_range(self._kafka, origin, first, end)
            try:
                while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                    for message in batch:
                        found = self._decode(message, Source(origin, 0, message.offset() or 0, timestamp_of(message)))
                        for item in () if isinstance(found, Finished) else found:
                            yield item
            finally:
                await asyncio.to_thread(batches.close)
