"""The consumer group from outside: whether the brokers let a worker join with its settings, and who its members are.

It never reads records and never commits an offset.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import structlog
from confluent_kafka import ConsumerGroupType, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._group import ConsumerGroupDescription
from confluent_kafka.admin._resource import ResourceType

from workers.core.records import TopicPartition
from workers.errors import Misconfigured, Unavailable
from workers.kafka import causes, clients
from workers.kafka.clients import ANSWER_S
from workers.kafka.route import Route
from workers.kafka.topics import find, require_inputs
from workers.settings import Kafka

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

TOO_OLD = (
    "kafka.group_protocol: the brokers do not support the 'consumer' protocol, which needs Kafka 4.0; "
    "set kafka.group_protocol to 'classic'"
)

SWITCHED_OFF = (
    "kafka.group_protocol: the brokers do not allow the 'consumer' protocol "
    "(group.coordinator.rebalance.protocols or group.version there); set kafka.group_protocol to 'classic'"
)

HAS_CLASSIC_MEMBERS = (
    "kafka.group_protocol: the group still has members of the classic protocol: stop all workers once, and start them "
    "with 'consumer'"
)

REFUSALS = {
    KafkaError.GROUP_ID_NOT_FOUND: HAS_CLASSIC_MEMBERS,
    KafkaError.UNSUPPORTED_VERSION: SWITCHED_OFF,
}
"""The errors with which a broker refuses a member of the newer protocol."""

HEARTBEAT_API = 68
HEARTBEAT_VERSION = 1
"""librdkafka joins with this version of ConsumerGroupHeartbeat. Without it the consumer never reports anything."""

VERSIONS_S = 2.0
"""How long the lines about a broker's versions may take after it has answered."""

REMOVE_S = 10.0
SETTLE_S = 5.0
SETTLE_POLL_S = 0.2
"""How long a member may take to leave, how long its partitions may take to get another owner, and the time between two
checks of that."""


class Member(NamedTuple):
    """A member of the group. `name` is its `worker.id`; `is_static` says whether the group recognises it by that."""

    name: str
    is_static: bool
    host: str
    partitions: Sequence[str]


def check(kafka: Kafka) -> None:
    """Check that the worker can use the 'consumer' protocol, and request the session timeout of the settings.

    Does nothing for 'classic'. If the brokers do not permit a check, the join reports the error. Blocks for a few
    seconds.

    Raises:
        Misconfigured: the brokers do not support or allow it, or the group has members of the other protocol.
    """
    if kafka.group_protocol == "classic":
        return
    versions = HeartbeatVersions()
    admin = clients.admin(kafka, logger=versions, debug="feature")
    clients.present_topics(admin, kafka)
    if not versions.are_enough(admin):
        raise Misconfigured(TOO_OLD)
    try:
        (broker, *_) = admin.list_topics(timeout=ANSWER_S).brokers
    except KafkaException as error:
        raise causes.failure("kafka.bootstrap_servers: the brokers do not name themselves", error.args[0]) from error
    allowed = _config(admin, ResourceType.BROKER, str(broker)).get("group.coordinator.rebalance.protocols")
    if allowed is not None and "consumer" not in allowed.split(","):
        raise Misconfigured(SWITCHED_OFF)
    group = _described(admin, kafka.group)
    if group is not None and group.members and group.type == ConsumerGroupType.CLASSIC:
        raise Misconfigured(HAS_CLASSIC_MEMBERS)
    _ask_for_session(admin, kafka)


class HeartbeatVersions:
    """Reads in librdkafka's log the highest version of the newer protocol's heartbeat that each broker supports.

    librdkafka has no call for it. Its `debug=feature` lines are the only source that also works with TLS and SASL.
    """

    _LINE = re.compile(r"ApiKey \S+ \((\d+)\) Versions (\d+)\.\.(\d+)")

    def __init__(self) -> None:
        self._has_heard = False
        self._highest: set[int] = set()

    def log(self, _: int, __: str, *values: Any) -> None:
        """Take one line of librdkafka's log."""
        found = self._LINE.search(str(values[-1]))
        if found is not None:
            self._has_heard = True
            if int(found[1]) == HEARTBEAT_API:
                self._highest.add(int(found[3]))

    def are_enough(self, admin: AdminClient) -> bool:
        """Whether all brokers that answered support the protocol. True if no broker reported its versions at all."""
        deadline = time.monotonic() + VERSIONS_S
        while not self._highest and time.monotonic() < deadline:
            if admin.poll(0.05) == 0 and self._has_heard:
                break
        return not self._has_heard or (bool(self._highest) and min(self._highest) >= HEARTBEAT_VERSION)


def members(kafka: Kafka, admin: clients.Admin | None = None) -> list[Member]:
    """Return the members of the group; an empty list if there is no such group. `admin`: the client that asks.

    Raises:
        Unavailable: Kafka does not answer.
        Misconfigured: Kafka does not permit the request.
    """
    admin = clients.admin(kafka) if admin is None else admin
    clients.present_topics(admin, kafka)
    name = kafka.group
    sentence = f"kafka.group: the brokers do not say who is in {name!r}"
    try:
        group = admin.describe_consumer_groups([name])[name].result(ANSWER_S)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return []
        raise causes.failure(sentence, error.args[0], needs="DESCRIBE or READ on the group") from error
    except TimeoutError as error:
        raise Unavailable(f"{sentence}: no answer in time") from error
    return [
        Member(
            name=str(member.group_instance_id or member.client_id),
            is_static=bool(member.group_instance_id),
            host=str(member.host).lstrip("/"),
            partitions=sorted(f"{one.topic}/{one.partition}" for one in member.assignment.topic_partitions),
        )
        for member in group.members
    ]


def static_member(route: Route) -> Member:
    """Return the member of the group whose name is the route's `worker_id`.

    Raises:
        Misconfigured: there is none, or the group has no static members.
    """
    kafka, name = route.kafka, route.worker_id
    if kafka.group_protocol != "classic":
        raise Misconfigured(
            "kafka.group_protocol: with 'consumer' the group does not know members by their worker.id; the brokers "
            "remove a member that does not return when its session is over"
        )
    present = members(kafka)
    for member in present:
        if member.is_static and member.name == name:
            return member
    names = ", ".join(sorted(member.name for member in present if member.is_static))
    raise Misconfigured(
        f"worker.id: the group {kafka.group!r} has no member that was started with the id {name!r} "
        f"({f'members with an id: {names}' if names else 'no member has one'}); the brokers remove a worker with a "
        "random id when its session is over"
    )


def remove(route: Route, member: Member) -> list[Member]:
    """Remove the static member with the route's `worker_id` from the group; return the members that remain.

    Joins in its place and leaves, which moves its partitions to the others at once. Commits nothing. A worker that
    still runs with that id joins again, or ends if its heartbeat was fenced in between. Blocks for `REMOVE_S` and
    `SETTLE_S` at most.

    Raises:
        Unavailable: the group did not let this process join in that time.
    """
    assigned: list[bool] = []
    consumer = clients.consumer(route)
    consumer.subscribe(require_inputs(route), on_assign=lambda *_: assigned.append(True))
    deadline = time.monotonic() + REMOVE_S
    try:
        while not assigned and time.monotonic() < deadline:
            consumer.poll(0.05)
        if not assigned:
            raise Unavailable(f"kafka.group: the group did not answer within {REMOVE_S:.0f} s: try again")
        clients.leave_by_name(consumer, deadline)
    finally:
        consumer.close()
    deadline = time.monotonic() + SETTLE_S
    while True:
        left = members(route.kafka)
        owned = {partition for one in left for partition in one.partitions}
        if not left or owned.issuperset(member.partitions) or time.monotonic() > deadline:
            return left
        time.sleep(SETTLE_POLL_S)


def _ask_for_session(admin: AdminClient, kafka: Kafka) -> None:
    """Request the session timeout for this group from the brokers, which set it with this protocol."""
    group, session_ms = kafka.group, int(kafka.session_timeout_s * 1000)
    for name, wanted in (
        ("consumer.session.timeout.ms", session_ms),
        ("consumer.heartbeat.interval.ms", min(session_ms // 5, clients.HEARTBEAT_MS)),
    ):
        before = _config(admin, ResourceType.GROUP, group).get(name)
        if before == str(wanted):
            continue
        entry = ConfigEntry(name, str(wanted), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
        try:
            admin.incremental_alter_configs([resource])[resource].result(ANSWER_S)
            log.info("set for the group, as kafka.session_timeout_s says", setting=name, value=wanted, before=before)
        except (KafkaException, TimeoutError) as error:
            log.warning(
                "kafka.session_timeout_s: the brokers keep their own value for this group",
                setting=name,
                wanted=wanted,
                kept=before,
                because=error.args[0].str() if isinstance(error, KafkaException) else "no answer in time",
            )


def _config(admin: AdminClient, kind: ResourceType, name: str) -> dict[str, str]:
    """Return a resource's configuration; empty if the brokers refuse to return it.

    Raises:
        Unavailable: they do not answer.
    """
    resource = ConfigResource(kind, name)
    entries = _told(admin.describe_configs([resource])[resource], f"the settings of {kind.name.lower()} {name!r}")
    return {key: entry.value for key, entry in (entries or {}).items() if entry.value is not None}


def _described(admin: AdminClient, group: str) -> ConsumerGroupDescription | None:
    """Give the group; None where the brokers do not tell it to us. Raises as `_config`."""
    return _told(admin.describe_consumer_groups([group])[group], f"who is in the group {group!r}")


def _told(answer: Future[Answer], what: str) -> Answer | None:
    """Give an answer, None where the brokers refuse it.

    Raises:
        Unavailable: they do not answer, or not yet.
    """
    try:
        return answer.result(ANSWER_S)
    except KafkaException as error:
        cause: KafkaError = error.args[0]
        if cause.code() == KafkaError.GROUP_ID_NOT_FOUND or isinstance(causes.failure(what, cause), Misconfigured):
            return None
        raise causes.failure(f"kafka.bootstrap_servers: the brokers do not say {what}", cause) from error
    except TimeoutError as error:
        raise Unavailable(f"kafka.bootstrap_servers: the brokers do not say {what}: no answer in time") from error


def committed(route: Route, topics: Sequence[str]) -> dict[TopicPartition, int]:
    """Return the committed offset of each partition of the topics for which the route's group has one.

    Blocks, also while a transaction with offsets of the group is open.

    Raises:
        Unavailable: Kafka or a topic is not available.
        Misconfigured: Kafka does not permit the request.
    """
    onlooker = clients.onlooker(route.kafka)
    try:
        present = clients.present_topics(onlooker, route.kafka)
        find(topics, present)
        wanted = [KafkaPartition(topic, number) for topic in topics for number in present[topic].partitions]
        answers = onlooker.committed(wanted, ANSWER_S)
    except KafkaException as error:
        sentence = f"kafka.group: the brokers do not say what {route.group!r} has committed"
        raise causes.failure(sentence, error.args[0], needs="DESCRIBE or READ on the group") from error
    finally:
        onlooker.close()
    return {TopicPartition(one.topic, one.partition): one.offset for one in answers if one.offset >= 0}
