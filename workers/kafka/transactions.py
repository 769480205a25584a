"""The transactional producer, and whether it may begin another transaction.

librdkafka repeats a request whose connection broke, and the first copy may still reach the broker later. Such an EndTxn
commits the next transaction too early; such a TxnOffsetCommit moves its offsets back. A broker distinguishes the copy
from a current request only by the producer's epoch. So a producer that may have left a copy behind must not begin
another transaction: a new producer with the same transactional id, and therefore a higher epoch, replaces it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
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

AWAY = f"the brokers did not answer for longer than kafka.transaction_timeout_s. {NOTHING_LOST}"

MAY_BE_OLD = (
    "a connection to the brokers broke, and only one process of this group may work: a new epoch would fence a process "
    f"that has taken over meanwhile ({{doubt}}). A restart takes over in order. {NOTHING_LOST}"
)

HARMLESS = ("in state CONNECT", "/bootstrap: ")
"""Parts of reports of broken connections that carried no request of a transaction. librdkafka reports a host of
`kafka.bootstrap_servers` that is down again and again; this must not cost a new producer for each transaction."""


class Signs:
    """Reads in the log of one producer whether its last transaction left a request behind.

    librdkafka reports this nowhere else: a commit whose EndTxn was repeated succeeds, and no callback is called. The
    lines arrive while the producer is polled. Never raises, because a callback must not.
    """

    def __init__(self, *, shows_debug: bool = False) -> None:
        self._shows_debug = shows_debug
        self._log = structlog.get_logger("librdkafka")
        self.has_ended = True
        """Whether the broker has answered the EndTxn of the last transaction. Without that line, assume it has not."""
        self.doubt: str | None = None
        """Why a request may still be in flight; None if all were answered."""

    def begin(self) -> None:
        """Begin to look for the end of the next transaction."""
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
    """The transactional id of this worker, and its current producer. Owned by the Kafka thread.

    Guarantee: no request of an earlier transaction can take effect after `ready`; brokers refuse it by its epoch.
    `ready` may block.
    """

    def __init__(self, kafka: Kafka, worker_id: str, max_bytes: Mapping[str, int], *, is_single: bool = False) -> None:
        """`is_single`: other processes have the same transactional id, and fence this one. So it is never replaced."""
        self._kafka = kafka
        self._is_single = is_single
        self._worker_id = worker_id
        self._max_bytes = max_bytes
        try:
            self._signs, self.producer = self._in_new_epoch(START_S)
        except KafkaException as error:
            name = clients.transactional_id(kafka, worker_id)
            raise causes.failure(
                "kafka: transactions cannot be used",
                error.args[0],
                needs=f"WRITE on the transactional id {name}, or on the prefix {kafka.group}.",
            ) from error

    def ready(self, deadline: float) -> None:
        """Prepare `producer` for one more transaction: replace it if the last one may have left a request behind.

        A replacement blocks until `deadline`, a `time.monotonic()` value, at most. After a failure the next call tries
        to replace the same producer.

        Raises:
            Unavailable: the brokers gave no new epoch in time, or no token came. No transaction was begun; try again.
            Misconfigured: the settings no longer make a client, such as with a certificate that is missing.
            Fatal: the brokers refuse a new epoch, or the producer would have to be replaced and `is_single`.
        """
        self.producer.poll(0)  # Delivers the log of the last transaction.
        if self._signs.doubt is not None or not self._signs.has_ended:
            if self._is_single:
                raise Fatal(MAY_BE_OLD.format(doubt=self._doubt))
            self._replace(deadline)
        self._signs.begin()

    @property
    def _doubt(self) -> str:
        return self._signs.doubt or "no end of the last transaction was seen"

    def give_up(self, within_s: float) -> None:
        """Abort a transaction that may be open: its readers, and the next owner, wait for its timeout. Never raises."""
        with suppress(KafkaException):
            self.producer.abort_transaction(within_s)

    def _replace(self, deadline: float) -> None:
        log.info("a new producer for the next transaction", reason=self._doubt)
        telemetry.PRODUCERS_REPLACED.inc()
        old = [self.producer]
        try:
            self._signs, self.producer = self._in_new_epoch(max(0.1, deadline - time.monotonic()))
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            self._signs.doubt = f"no new epoch: {cause.str()}"
            if cause.retriable():
                raise Unavailable(f"{AWAY} ({cause.str()})") from error
            raise Fatal(f"kafka: no new epoch ({cause.str()})") from error
        _close(old)

    def _in_new_epoch(self, timeout_s: float) -> tuple[Signs, clients.Sender]:
        """Make the next producer. Until it has its epoch, the last producer and the doubt about it stay."""
        signs = Signs(shows_debug=clients.shows_debug(self._kafka))
        made = [clients.transactional_producer(self._kafka, self._worker_id, self._max_bytes, logger=signs)]
        try:
            made[0].init_transactions(timeout_s)
        except KafkaException:
            _close(made)
            raise
        return signs, made[0]


def _close(producers: list[clients.Sender]) -> None:
    """Drop the last reference in another thread, because a client that closes waits for its own threads."""
    threading.Thread(target=producers.clear, daemon=True, name="closing-producer").start()
