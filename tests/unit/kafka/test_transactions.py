"""The meaning of a producer's log lines; tests/chaos/test_late_requests.py has the real log."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from workers.kafka import clients
from workers.kafka.transactions import Signs
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
