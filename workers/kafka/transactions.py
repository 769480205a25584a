"""The transactional producer, and whether another transaction may be begun with it.

librdkafka repeats a request whose connection broke, and the copy that it gave up may still reach the broker later: an
EndTxn then commits the next transaction before its time, a TxnOffsetCommit takes its offsets back. A broker tells such
a copy from a present request only by the producer's epoch, so a producer that may have left one behind must not begin
another transaction: a new one with the same transactional id, and so a higher epoch, takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from logging import DEBUG
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException

from workers import telemetry
from workers.core.records import NOTHING_LOST
from workers.errors import Fatal, Unavailable
from workers.kafka import causes, clients
from workers.settings import Kafka

log = structlog.get_logger(__name__)

START_S = 30.0
"""How long the first producer waits for its transactional id."""

AWAY = f"the brokers were away for longer than kafka.transaction_timeout_s. {NOTHING_LOST}"

HARMLESS = ("in state CONNECT", "/bootstrap: ")
"""In the report of a broken connection: it carried no request yet, or none of a transaction. A host of
`kafka.bootstrap_servers` that is down is reported for ever, and must not cost a new producer for each transaction."""


class Signs:
    """Reads in the log of one producer whether its last transaction left a request behind.

    librdkafka says it nowhere else: a commit whose EndTxn was repeated succeeds, and no callback is called. The lines
    come while the producer is polled. Nothing is raised, because a callback must not.
    """

    def __init__(self, *, shows_debug: bool = False) -> None:
        self._shows_debug = shows_debug
        self._log = structlog.get_logger("librdkafka")
        self.has_ended = True
        """Whether the broker has answered the EndTxn of the last transaction. Without its line nothing is trusted."""
        self.doubt: str | None = None
        """Why a request may be under way; None where all were answered."""

    def begin(self) -> None:
        """Look for the end of the next transaction."""
        self.has_ended = False

    def log(self, level: int, event: str, *args: Any) -> None:
        """Take one line: (level, format, facility, client's name, text)."""
        facility, text = (str(args[0]), str(args[-1])) if args else ("", event)
        if facility == "ENDTXN" and "EndTxn returned " in text:
            if "EndTxn returned NO_ERROR " in text:
                self.has_ended = True
            else:
                self.doubt = text
        elif facility in ("FAIL", "REQTMOUT") and not any(part in text for part in HARMLESS):
            self.doubt = text
        if level > DEBUG or self._shows_debug:
            self._log.log(level, event, *args)


class ProducerSession:
    """The transactional id of this worker, and the producer that has it now. Owned by the Kafka thread.

    Guarantee: no request of an earlier transaction can take effect after `ready`; brokers refuse it by its epoch.
    """

    def __init__(self, kafka: Kafka, worker_id: str, max_bytes: Mapping[str, int]) -> None:
        self._kafka = kafka
        self._worker_id = worker_id
        self._max_bytes = max_bytes
        try:
            self._begin_epoch(START_S)
        except KafkaException as error:
            raise causes.failure("kafka: transactions cannot be used", error.args[0]) from error

    def ready(self, deadline: float) -> None:
        """Make `producer` fit for one more transaction: a new one where the last may have left a request behind.

        Blocks, for a new one, until the `time.monotonic()` of `deadline`.

        Raises:
            Unavailable: the brokers gave no new epoch in time. Nothing was begun; ask again.
            Fatal: they refuse one.
        """
        self.producer.poll(0)  # Delivers the log of the last transaction.
        if self._signs.doubt is not None or not self._signs.has_ended:
            self._replace(deadline)
        self._signs.begin()

    def _replace(self, deadline: float) -> None:
        log.info("a new producer for the next transaction", reason=self._signs.doubt or "no end of the last was seen")
        telemetry.PRODUCERS_REPLACED.inc()
        old = [self.producer]
        try:
            self._begin_epoch(max(0.1, deadline - time.monotonic()))
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            self._signs.doubt = f"no new epoch: {cause.str()}"
            if cause.retriable():
                raise Unavailable(f"{AWAY} ({cause.str()})") from error
            raise Fatal(f"kafka: no new epoch ({cause.str()})") from error
        finally:
            # The last reference goes in a thread of its own: a client that closes waits for its own threads.
            threading.Thread(target=old.clear, daemon=True, name="closing-producer").start()

    def _begin_epoch(self, timeout_s: float) -> None:
        self._signs = Signs(shows_debug=clients.shows_debug(self._kafka))
        self.producer = clients.transactional_producer(
            self._kafka, self._worker_id, self._max_bytes, logger=self._signs
        )
        self.producer.init_transactions(timeout_s)
