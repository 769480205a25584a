"""What a worker knows of its streams: the place in the order of records, the session, and the records that wait."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from workers.core.records import Source
from workers.live.session import LiveSession
from workers.streams.outputs import Terms
from workers.streams.reading import Item
from workers.streams.stream import Act, Limits, Meaning, Stream
from workers.streams.takeover import Known


class Opened:
    """One stream: its place in the order of records, its session, and the records that wait.

    `past` has what a former owner has judged: texts of deltas, and other records. `is_whole`: whether it begins with
    the stream's first record. `stays`: what may be shown after a cut.
    """

    __slots__ = ("is_whole", "items", "past", "session", "stays", "stream", "task", "terms", "used_at")

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.past: list[list[str] | tuple[Item, Meaning]] = []
        self.is_whole = False
        self.stream: Stream | None = None
        self.session: LiveSession | None = None
        self.terms: Terms | None = None
        self.stays = 0
        self.task: asyncio.Task[None] | None = None
        self.used_at = time.monotonic()

    @property
    def waits_for_repetition(self) -> bool:
        """Whether a former owner has judged what this one has not judged again."""
        return self.stream is not None and self.stream.state != "cut" and self.session is None

    def repeat(self, item: Item, limits: Limits) -> bool:
        """Take the next record that a former owner has answered. Returns whether it is one of this stream.

        Deltas are joined: their division changes no outcome. So the engine gets many tokens in one call, and a stream
        that waits for its next record needs little more memory than its text.
        """
        stream = self.stream
        if stream is None or stream.state == "cut" or item.source.offset < stream.source.offset:
            return False  # Nothing of it is judged any more, or the record is of an earlier stream of the same id.
        if item.source.offset == stream.source.offset:
            stream.begin(item)
            self.is_whole = True
        elif self.is_whole:
            meaning = stream.meaning(item, limits)
            if meaning.act is not Act.JUDGE or item.kind != "delta" or not isinstance(item.content, str):
                self.past.append((item, meaning))
            elif self.past and isinstance(self.past[-1], list):
                self.past[-1].append(item.content)
            else:
                self.past.append([item.content])
        else:
            stream.see(item)
        return True

    async def close_session(self) -> None:
        """Free the session, if there is one."""
        session, self.session = self.session, None
        if session is not None:
            self.stays = session.shown_chars
            await session.close()


class Partition:
    """The streams of a partition in one epoch. `first` is the first record of the epoch."""

    __slots__ = ("first", "is_over", "streams", "waiting")

    def __init__(self, first: Source) -> None:
        self.first = first
        self.streams: dict[tuple[str, str], Opened] = {}
        self.waiting: list[Item] | None = []
        """The items that wait until the streams are known; None from then on."""
        self.is_over = False


def opened_of(known: Known) -> Opened:
    """Give a stream of a former owner."""
    opened = Opened()
    opened.stream, opened.terms, opened.stays = known.stream, known.terms, known.shown_chars
    return opened
