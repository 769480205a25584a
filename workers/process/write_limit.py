"""Ends connections whose client has stopped to read: uvicorn waits for such a client without a limit."""

from __future__ import annotations

import asyncio
import math

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger(__name__)


class WriteLimited(H11Protocol):
    """A connection that ends if its client takes none of the bytes that wait for it.

    The bytes are checked every `write_s`, while the transport refuses more, or after the end of an answer. A client
    that takes a part of them in between keeps its connection. Otherwise the connection ends, at the latest after
    twice the time, and its request is told that the client is gone. Nothing is checked while the transport takes what
    the application writes.
    """

    write_s: float
    _timer: asyncio.TimerHandle | None = None
    _waiting_bytes: float = 0

    def pause_writing(self) -> None:
        """Begin to check."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Note that the client has taken something."""
        super().resume_writing()
        self._waiting_bytes = math.inf

    def on_response_complete(self) -> None:
        """Check the end of the answer too, which may never fill the transport."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the check."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        size = self.transport.get_write_buffer_size()
        if self._timer is not None:
            self._waiting_bytes = math.inf  # Some of these bytes were written after the last check: count again.
        elif size:
            self._waiting_bytes = size
            self._timer = self.loop.call_later(self.write_s, self._check)

    def _check(self) -> None:
        self._timer = None
        if not (self.flow.write_paused or self.cycle.response_complete):
            return
        if 0 < self._waiting_bytes <= self.transport.get_write_buffer_size():
            log.info("a client takes nothing of its answer, and its connection ends", seconds=self.write_s)
            self.transport.abort()
        else:
            self._watch()


def limited(write_s: float) -> type[WriteLimited]:
    """Give the protocol for a server, with this time."""
    return type("Limited", (WriteLimited,), {"write_s": write_s})
