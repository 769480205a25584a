"""The meaning of a producer's log lines; tests/chaos/test_late_requests.py has the real log."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from workers.errors import Fatal, Unavailable
from workers.kafka import clients
from workers.kafka.transactions import ProducerSession, Signs
from workers.settings import Kafka

CLEAN = ("ENDTXN", "EndTxn returned NO_ERROR in state CommittingTransaction (may_retry=false)")
REPEATED = ("ENDTXN", "EndTxn returned _TRANSPORT in state CommittingTransaction (may_retry=true)")
TIMED_OUT = ("REQTMOUT", "TxnCoordinator/1: Timed out EndTxnRequest in flight (after 3005ms, timeout #0)")
CUT = ("FAIL", "[thrd:b:9092/1]: b:9092/1: Disconnected (after 312ms in state UP)")
REFUSED = (
    "FAIL",
    "[thrd:b:9093/2]: b:9093/2: Connect to b:9093 failed: Connection refused (after 0ms in state CONNECT)",
)
REFUSED_AGAIN = ("FAIL", REFUSED[1].replace("CONNECT)", "CONNECT, 3 identical error(s) suppressed)"))
BOOTSTRAP = ("FAIL", "[thrd:b:9092/bootstrap]: b:9092/bootstrap: Disconnected (after 600123ms in state UP)")


@pytest.mark.parametrize(
    ("lines", "is_trusted"),
    [
        ([CLEAN], True),
        ([], False),
        ([REPEATED, CLEAN], False),
        ([CLEAN, TIMED_OUT], False),
        ([CUT, CLEAN], False),
        ([REFUSED, REFUSED_AGAIN, BOOTSTRAP, CLEAN], True),
    ],
)
def test_the_log_shows_how_the_last_transaction_ended(lines: list[tuple[str, str]], is_trusted: bool) -> None:
    signs = Signs()
    assert signs.has_ended
    signs.begin()
    for facility, text in lines:
        signs.log(20, "%s [%s] %s", facility, "rdkafka#producer-1", text)
    assert (signs.has_ended and signs.doubt is None) is is_trusted


@pytest.mark.parametrize("shows_debug", [True, False])
def test_debug_lines_are_logged_only_when_requested(shows_debug: bool) -> None:
    with capture_logs() as logged:
        signs = Signs(shows_debug=shows_debug)
        signs.log(10, "%s [%s] %s", "ENDTXN", "rdkafka#producer-1", "fine")
        signs.log(20, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "b:9092/1: Disconnected")
    assert len(logged) == 1 + shows_debug


def test_the_producer_keeps_each_request_until_its_transaction_ends() -> None:
    properties: dict[str, str | int | float | bool] = {"socket.timeout.ms": 1000, "debug": "broker"}
    config = clients.transactional_producer_config(
        Kafka(properties=properties, transaction_timeout_s=20), "w", {"t": 1}
    )
    assert config["socket.timeout.ms"] == 20_100
    assert (config["debug"], config["log_level"], config["log.connection.close"]) == ("eos,broker", 7, True)


class FakeProducer:
    """Gets its epoch, or fails to get it."""

    def __init__(self, signs: Signs, failure: KafkaException | None = None) -> None:
        self.signs = signs
        self._failure = failure

    def poll(self, _timeout_s: float) -> None:
        """Nothing is in its log."""

    def init_transactions(self, _timeout_s: float) -> None:
        if self._failure is not None:
            raise self._failure


# The last argument says that the call may be repeated.
AWAY = KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer", False, True))


@pytest.mark.parametrize(
    ("failures", "sentence"),
    [([Unavailable("no token"), Unavailable("no token")], "no token"), ([AWAY, Unavailable("no token")], "no answer")],
    ids=["no token comes", "no epoch comes"],
)
def test_a_producer_that_could_not_be_replaced_begins_no_transaction(
    monkeypatch: pytest.MonkeyPatch, failures: list[Exception], sentence: str
) -> None:
    to_come: list[Exception | None] = [None, *failures, None]

    def make(*_: object, logger: Any) -> FakeProducer:
        failure = to_come.pop(0)
        if isinstance(failure, Unavailable):
            raise failure
        return FakeProducer(logger, failure if isinstance(failure, KafkaException) else None)

    monkeypatch.setattr(clients, "transactional_producer", make)
    session = ProducerSession(Kafka(), "w", {})
    first: Any = session.producer
    session.ready(time.monotonic() + 1)
    first.signs.log(20, "%s [%s] %s", CUT[0], "rdkafka#producer-1", CUT[1])
    with pytest.raises(Unavailable, match=sentence):
        session.ready(time.monotonic() + 1)
    with pytest.raises(Unavailable, match="no token"):
        session.ready(time.monotonic() + 1)
    session.ready(time.monotonic() + 1)
    assert session.producer is not first
    assert to_come == []


def test_a_producer_that_others_may_have_fenced_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one would fence the process that has taken over."""
    monkeypatch.setattr(clients, "transactional_producer", lambda *_, logger: FakeProducer(logger))
    session = ProducerSession(Kafka(), "single", {}, is_single=True)
    first: Any = session.producer
    session.ready(time.monotonic() + 1)
    first.signs.log(20, "%s [%s] %s", CUT[0], "rdkafka#producer-1", CUT[1])
    with pytest.raises(Fatal, match="would fence a process that has taken over"):
        session.ready(time.monotonic() + 1)
    assert session.producer is first
