"""Ctrl-C while records are sent."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import typer
from confluent_kafka import Producer

from workers.cli.interrupts import NOTED, Interrupts
from workers.cli.records import verdicts_command
from workers.kafka import reader


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_in_a_callback_of_the_client_ends_the_lines_and_not_the_call() -> None:
    reports = []

    def report(*_: object) -> None:
        reports.append(1)
        press()

    producer = Producer({"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": 10, "log_level": 0})
    with Interrupts() as interrupts:
        lines = interrupts.reading([b"one", b"two"])
        producer.produce("t", next(lines), on_delivery=report)
        deadline = time.monotonic() + 20
        while not reports:
            assert time.monotonic() < deadline
            producer.poll(0.1)
        with pytest.raises(KeyboardInterrupt):
            next(lines)
    assert reports == [1]


def test_ctrl_c_ends_the_wait_for_a_line() -> None:
    def waiting() -> Iterator[bytes]:
        yield b"one"
        press()
        yield b"two"

    with Interrupts() as interrupts:
        lines = interrupts.reading(waiting())
        assert next(lines) == b"one"
        with pytest.raises(KeyboardInterrupt):
            next(lines)
        assert interrupts.count == 1


def test_ctrl_c_ends_what_comes_before_the_first_line() -> None:
    with Interrupts(is_reading=True) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            press()
        interrupts.count = 0
        lines = interrupts.reading([b"one"])
        next(lines)
        press()
        assert interrupts.count == 1


def test_all_lines_are_read_without_ctrl_c() -> None:
    with Interrupts() as interrupts:
        assert [*interrupts.reading([b"one", b"", b"two"])] == [b"one", b"", b"two"]


def test_a_third_ctrl_c_interrupts_and_after_the_block_it_does_what_it_did_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        for _ in range(NOTED):
            press()
        assert interrupts.count == NOTED
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("is_lost", [True, False])
def test_ctrl_c_that_confluent_kafka_loses_ends_verdicts_with_its_own_exit_code(
    is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def records(*_: object, **__: object) -> Iterator[None]:
        with suppress(KeyboardInterrupt):
            press()
        if is_lost:
            yield None
        raise SystemError("a call returned a result with an exception set")

    monkeypatch.setattr(reader, "read", records)
    with pytest.raises(typer.Exit) as ended:
        verdicts_command(follow=True)
    assert ended.value.exit_code == 130


def test_an_error_of_confluent_kafka_without_ctrl_c_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def records(*_: object, **__: object) -> Iterator[None]:
        yield None
        raise SystemError("another one")

    monkeypatch.setattr(reader, "read", records)
    with pytest.raises(SystemError, match="another one"):
        verdicts_command(follow=True)
