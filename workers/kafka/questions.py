"""Sends requests to the brokers for which the Kafka thread must not wait: one thread, one client, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from workers.errors import Misconfigured, Unavailable
from workers.kafka import clients
from workers.settings import Kafka

ANSWER_S = 5.0
"""How long a broker may take for one answer."""

Answer = TypeVar("Answer")


class Questions(threading.Thread):
    """Runs functions of an `AdminClient` in the order of the calls to `ask`.

    A daemon thread: a broker that does not answer does not delay the end of the process.
    """

    def __init__(self, kafka: Kafka) -> None:
        super().__init__(name="kafka-questions", daemon=True)
        self._kafka = kafka
        self._admin = clients.admin(kafka)
        self._asked: SimpleQueue[tuple[Callable[[AdminClient], Any], Future[Any]]] = SimpleQueue()
        self.start()

    def ask(self, question: Callable[[AdminClient], Answer]) -> Future[Answer]:
        """Return at once; the future gets the answer, or the error, later."""
        answer: Future[Answer] = Future()
        self._asked.put((question, answer))
        return answer

    def run(self) -> None:
        """Answer as long as the process runs."""
        while True:
            question, answer = self._asked.get()
            try:
                answer.set_result(question(self._admin))
            except Exception as error:
                answer.set_exception(error)
                if isinstance(error, KafkaException):
                    # A client that got an empty list of brokers never recovers (librdkafka's issue 5301): make one.
                    # That fails while a file that the settings name is replaced, and while no token comes. The next
                    # failure tries again.
                    with suppress(Misconfigured, Unavailable):
                        self._admin = clients.admin(self._kafka)
            self._admin.poll(0)  # Its reports about connections would pile up.


def answer_of(asked: Future[Answer]) -> Answer | None:
    """Return the answer of a question that is done; None if the brokers gave none. Raises what is a bug."""
    try:
        return asked.result()
    except KafkaException:
        return None
