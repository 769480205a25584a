from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from workers.process.write_limit import WriteLimited, limited


class Connection:
    """The transport and the event loop of a connection: a test says how many bytes wait, and when time passes."""

    def __init__(self) -> None:
        self.waiting = 0
        self.is_aborted = False
        self.timers: list[Callable[[], None]] = []

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, _: str) -> None:
        return None

    def is_closing(self) -> bool:
        return True  # Nothing but the check follows the end of an answer.

    def abort(self) -> None:
        self.is_aborted = True

    def call_later(self, seconds: float, call: Callable[[], None]) -> object:
        assert seconds == 7
        self.timers.append(call)
        return object()

    def time_passes(self) -> None:
        timers, self.timers = self.timers, []
        for call in timers:
            call()


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def protocol(connection: Connection) -> WriteLimited:
    made = limited(7)(
        Config(lambda *_: None, log_config=None, lifespan="off"), ServerState(), {}, cast(Any, connection)
    )
    made.connection_made(cast(Any, connection))
    return made


def test_a_client_that_takes_nothing_loses_its_connection(connection: Connection, protocol: WriteLimited) -> None:
    connection.waiting = 70_000
    protocol.pause_writing()
    connection.time_passes()
    assert connection.is_aborted


def test_a_client_that_takes_a_little_each_time_keeps_it(connection: Connection, protocol: WriteLimited) -> None:
    connection.waiting = 70_000
    protocol.pause_writing()
    for _ in range(5):
        connection.waiting -= 1
        connection.time_passes()
    protocol.resume_writing()
    connection.waiting = 80_000
    protocol.pause_writing()
    connection.time_passes()
    assert not connection.is_aborted

    connection.waiting = 0
    connection.time_passes()
    assert (connection.is_aborted, connection.timers) == (False, [])


def test_a_client_that_takes_an_answer_before_the_next_one_keeps_its_connection(
    connection: Connection, protocol: WriteLimited
) -> None:
    protocol.cycle = cast(Any, SimpleNamespace(response_complete=True))
    connection.waiting = 100
    protocol.on_response_complete()
    connection.waiting = 200
    protocol.on_response_complete()
    connection.time_passes()
    assert not connection.is_aborted

    connection.time_passes()
    assert connection.is_aborted


def test_a_stream_that_the_transport_takes_keeps_its_connection(connection: Connection, protocol: WriteLimited) -> None:
    protocol.cycle = cast(Any, SimpleNamespace(response_complete=True))
    connection.waiting = 100
    protocol.on_response_complete()
    protocol.cycle = cast(Any, SimpleNamespace(response_complete=False))
    connection.waiting = 200
    connection.time_passes()
    assert (connection.is_aborted, connection.timers) == (False, [])

    connection.waiting = 70_000
    protocol.pause_writing()
    connection.time_passes()
    assert connection.is_aborted
