"""Sends requests to forget an author, and finds out how far they have come.

Guarantee: a request that `send` returns was accepted by the brokers. Nothing here deletes data: the workers do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

from confluent_kafka import IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from pydantic import ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from schemas.forget import Forget
from workers.core.forgotten import Forgotten
from workers.core.frames import unframed
from workers.core.holdings import AGGREGATES, UNDELIVERED
from workers.core.records import TopicPartition
from workers.errors import Unavailable, Undecodable
from workers.kafka import causes, clients
from workers.kafka.clients import ANSWER_S
from workers.kafka.merge import Origin
from workers.kafka.reader import ends, read
from workers.kafka.route import of_moderation
from workers.kafka.sending import Sending
from workers.kafka.topic_settings import Keeping, keeping_of
from workers.kafka.topics import find
from workers.settings import Settings

READERS = ("aggregates", "review")
"""The workers that say how far they are. Each reads the requests in its group: `kafka.group`, a dot and its name."""

MOVING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
"""What brokers say of a group of which they have just become, or ceased to be, the coordinator."""

ATTEMPTS = Retrying(
    retry=retry_if_exception(lambda error: isinstance(error, KafkaException) and error.args[0].code() in MOVING),
    stop=stop_after_delay(ANSWER_S),
    wait=wait_fixed(0.1),
    reraise=True,
)

Position = tuple[TopicPartition, int]


class Progress(StrEnum):
    """How far a worker's group is."""

    DONE = "has read the request: it deletes the author's data when it has handled the records that it read earlier"
    WAITING = "waiting: the worker has not read the request yet"
    DOWN = "no worker runs, or it was down for long: a worker that starts reads all requests first"
    ABSENT = "nothing to do: the worker has never written anything"

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for."""
        return self in (Progress.DONE, Progress.ABSENT)


def send(settings: Settings, request: Forget) -> Position:
    """Write the request, and return its position. Blocks for `clients.DELIVERY_S` at most.

    Raises:
        Unavailable: Kafka or the topic is not available.
        Misconfigured: Kafka refuses.
        Fatal: the record was refused, or Kafka stopped answering.
    """
    topic = settings.topics.forget
    find([topic], clients.present_topics(clients.admin(settings.kafka), settings.kafka))
    accepted: list[Position] = []
    with Sending(settings.kafka, linger_ms=0) as sending:
        sending.send(
            topic,
            f"{request.tenant_id}|{request.author_id}".encode(),
            request.model_dump_json().encode(),
            lambda partition, offset: accepted.append((partition, offset)),
        )
    sending.check("topics.forget", topic)
    (position,) = accepted
    return position


def forgotten(settings: Settings) -> Forgotten:
    """Give the authors of all requests that the topic has: older records about them may still be read. Blocks.

    Raises:
        Unavailable: Kafka or the topic is not there.
    """
    requests = Requests(settings)
    requests.read()
    return requests.known


class Requests:
    """The requests to forget an author, each of which is read once. `known` has those that were read."""

    def __init__(self, settings: Settings) -> None:
        self.known = Forgotten()
        self._settings = settings
        self._next: dict[Origin, int] = {}

    def read(self, *, until: Callable[[], bool] | None = None) -> None:
        """Add the requests that were not read yet. With `until`, go on with new ones until it is true. Blocks.

        Raises:
            Unavailable: Kafka or the topic is not there.
        """
        topics, follow = [self._settings.topics.forget], until is not None
        try:
            for message in read(self._settings.kafka, topics, from_beginning=True, follow=follow, resume=self._next):
                if until is not None and until():
                    return
                if message is not None:
                    with suppress(ValidationError, Undecodable):
                        self.known.add(Forget.model_validate_json(unframed(message.value() or b"")))
                    self._next[str(message.topic()), message.partition() or 0] = (message.offset() or 0) + 1
        except Unavailable:
            self._next.clear()  # The topic may be made again, with other requests at these offsets.
            raise


class Watch:
    """Asks how far the groups are. Close it at the end."""

    def __init__(self, settings: Settings, position: Position) -> None:
        """Find the topics that are there.

        Raises:
            Unavailable: Kafka does not answer.
            Misconfigured: Kafka refuses.
        """
        self._origin, self._offset = position
        kafka, topics = settings.kafka, settings.topics
        self._admin = clients.admin(kafka)
        present = clients.present_topics(self._admin, kafka)
        others = [name for name in topics.all if name in present]
        self._partitions = [KafkaPartition(name, number) for name in others for number in present[name].partitions]
        own = f"{kafka.group}.{AGGREGATES}-"
        self._written = {
            "aggregates": [
                KafkaPartition(name, n) for name in present if name.startswith(own) for n in present[name].partitions
            ],
            "review": [one for one in self._partitions if one.topic == topics.review_state],
        }
        self._groups = {
            worker: clients.onlooker(kafka.model_copy(update={"group": f"{kafka.group}.{worker}"}))
            for worker in READERS
        }

    def look(self) -> dict[str, Progress]:
        """Give the progress of each worker.

        Raises:
            Unavailable: Kafka does not answer.
            Misconfigured: this user may not ask.
        """
        return {worker: self._progress(worker, client) for worker, client in self._groups.items()}

    def close(self) -> None:
        """Close the connections."""
        for client in self._groups.values():
            client.close()

    def _progress(self, worker: str, client: clients.Reader) -> Progress:
        try:
            found = ATTEMPTS(client.committed, self._partitions, ANSWER_S)
        except KafkaException as error:
            raise causes.failure(
                f"kafka: cannot ask what the group of the {worker} worker has committed",
                error.args[0],
                needs="DESCRIBE on that group and READ on the topics",
            ) from error
        committed = {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}
        if not committed:
            return Progress.DOWN if self._has_written(worker) else Progress.ABSENT
        return Progress.DONE if committed.get(self._origin, -1) > self._offset else Progress.WAITING

    def _has_written(self, worker: str) -> bool:
        """Whether the worker's own topics have had records: brokers delete the offsets of a group that is long down."""
        partitions = self._written[worker]
        found = ends(self._admin, partitions, IsolationLevel.READ_UNCOMMITTED) if partitions else {}
        return any(end > 0 for end in found.values())


def kept(settings: Settings) -> dict[str, tuple[str, Keeping]]:
    """Give the topics that exist, each with the setting that names it, and with how it keeps its records.

    Raises:
        Unavailable: Kafka does not answer.
        Misconfigured: Kafka refuses.
    """
    admin = clients.admin(settings.kafka)
    present = clients.present_topics(admin, settings.kafka)
    route = of_moderation(settings)
    setting_of = {topic: "inputs" for topic in sorted(present) if route.is_input(topic)}
    setting_of |= {topic: name for name, topic in settings.topics if isinstance(topic, str) and topic in present}
    undelivered = [endpoint.dead_letters for endpoint in settings.actions.endpoints]
    setting_of |= {topic: UNDELIVERED for topic in undelivered if topic in present}
    own = f"{settings.kafka.group}.{AGGREGATES}-"
    setting_of |= {topic: AGGREGATES for topic in present if topic.startswith(own)}
    return {topic: (setting_of[topic], keeping) for topic, keeping in keeping_of(admin, list(setting_of)).items()}
