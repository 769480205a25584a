"""Makes the topics that a worker needs, and checks that they are there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._metadata import TopicMetadata
from confluent_kafka.cimpl import NewTopic

from workers.errors import Misconfigured, Unavailable
from workers.kafka import causes, clients, rights
from workers.kafka.clients import ANSWER_S
from workers.kafka.input_topics import matching
from workers.kafka.route import Route
from workers.kafka.topic_settings import DEFAULT_BYTES, described, limit_of, wanted_of
from workers.settings import Settings, Topics


def create(settings: Settings, names: Sequence[str] | None = None) -> tuple[list[str], dict[str, int | None]]:
    """Create these topics, by default all; return the names of those made, and the partitions of each that was there.

    The number of partitions is None if this user may not see it.

    Raises:
        Unavailable: Kafka does not answer.
        Misconfigured: it refuses.
    """
    topics = settings.topics
    admin = clients.admin(settings.kafka)
    before = clients.present_topics(admin, settings.kafka)
    all_names = settings.all_topics if names is None else names
    later = [name for name in all_names if topics.holds_review_items(name)]
    first = [name for name in all_names if name not in later]
    made, present = _create(admin, settings, first, DEFAULT_BYTES, before)
    if not later:
        return made, present
    item_bytes = _item_bytes(admin, topics) if topics.review in {*made, *before} else DEFAULT_BYTES
    made_later, present_later = _create(admin, settings, later, item_bytes, before)
    return made + made_later, present | present_later


def _item_bytes(admin: clients.Admin, topics: Topics) -> int:
    """Ask how large a review item may be. Without an answer assume Kafka's default: the review worker checks it."""
    with suppress(Misconfigured, Unavailable):
        return limit_of(described(admin, [topics.review])[topics.review])
    return DEFAULT_BYTES


def _create(
    admin: clients.Admin,
    settings: Settings,
    names: Sequence[str],
    item_bytes: int,
    before: Mapping[str, TopicMetadata],
) -> tuple[list[str], dict[str, int | None]]:
    topics = settings.topics
    made: list[str] = []
    present: dict[str, int | None] = {}
    where = f"kafka.bootstrap_servers {settings.kafka.bootstrap_servers!r}"
    wanted = [
        NewTopic(
            name,
            num_partitions=topics.partitions,
            replication_factor=topics.replication,
            config=wanted_of(settings, name, item_bytes),
        )
        for name in names
    ]
    for name, future in (admin.create_topics(wanted, operation_timeout=2 * ANSWER_S) if wanted else {}).items():
        try:
            future.result(3 * ANSWER_S)
            made.append(name)
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                present[name] = len(before[name].partitions) if name in before else None
                continue
            is_short = cause.code() == KafkaError.INVALID_REPLICATION_FACTOR
            raise causes.failure(
                f"topics{'.replication' if is_short else ''}: cannot create {name} at {where}",
                cause,
                needs=f"CREATE on {name} or on the cluster",
            ) from error
        except TimeoutError as error:
            raise Unavailable(f"topics: cannot create {name}: no answer in time from {where}") from error
    return made, present


class Checked(NamedTuple):
    """The input topics that are there, and how large a record each output topic takes, in bytes."""

    inputs: list[str]
    max_bytes: dict[str, int]


def check(route: Route, answer_s: float = ANSWER_S) -> Checked:
    """Check that all topics of the route exist; return the names of the inputs and the limits of the outputs.

    Blocks for little more than `answer_s` where no broker answers.

    Raises:
        Unavailable: Kafka does not answer, or a topic is not there.
        Misconfigured: Kafka refuses.
    """
    kafka = route.kafka
    admin = clients.admin(kafka)
    present = clients.present_topics(admin, kafka, answer_s)
    find([*{**route.inputs, **route.outputs}], present)
    inputs = _without_unreadable(admin, route, matching(route, present))
    rights.check(admin, route.reading(inputs), ANSWER_S)
    outputs = described(admin, route.outputs, f" from kafka.bootstrap_servers {kafka.bootstrap_servers!r}")
    limits = {name: min(clients.client_limit(kafka), limit_of(found)) for name, found in outputs.items()}
    return Checked(inputs, limits)


def _without_unreadable(admin: clients.Admin, route: Route, inputs: list[str]) -> list[str]:
    """Leave out topics that only a pattern names, and that this user may not read. `NewTopics` warns of them.

    Raises:
        Unavailable: no topic is left.
    """
    hidden = rights.unreadable(admin, [name for name in inputs if name not in route.inputs], ANSWER_S)
    if hidden.issuperset(inputs):
        raise Unavailable(
            f"topics.inputs: this user may not read {', '.join(sorted(hidden))}, and no other topic matches. The ACLs "
            "have to give this user READ: docs/operations.md, Permissions"
        )
    return [name for name in inputs if name not in hidden]


def require_inputs(route: Route) -> list[str]:
    """Give the input topics.

    Raises:
        Unavailable: Kafka does not answer, or a topic is not there: somebody may be about to create it.
        Misconfigured: Kafka refuses.
    """
    present = clients.present_topics(clients.admin(route.kafka), route.kafka)
    find([*route.inputs], present)
    return matching(route, present)


def find(names: Sequence[str], present: Collection[str]) -> None:
    """Check that the topics are among those that are present.

    Raises:
        Unavailable: naming those that are not.
    """
    missing = [name for name in names if name not in present]
    if missing:
        raise Unavailable(
            f"topics: {', '.join(missing)} not found, or this user may not see them: create them with "
            "`guardline topics create`, or give the user the rights of docs/operations.md, Permissions"
        )
