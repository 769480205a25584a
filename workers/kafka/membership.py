"""The worker group seen from outside: whether the brokers let a worker join as it is set, and who its members are.

It never reads records and never commits an offset.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import structlog
from confluent_kafka import ConsumerGroupType, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._group import ConsumerGroupDescription
from confluent_kafka.admin._resource import ResourceType

from workers.errors import Misconfigured, Unavailable
from workers.kafka import causes, clients
from workers.kafka.clients import ANSWER_S
from workers.settings import Settings

log = structlog.get_logger(__name__)

TOO_OLD = (
    "kafka.group_protocol: the brokers do not serve the 'consumer' protocol, which came with Kafka 4.0; "
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
"""What a broker says to a member of the newer protocol that it does not let in."""

HEARTBEAT_API = 68
HEARTBEAT_VERSION = 1
"""librdkafka joins with this version of ConsumerGroupHeartbeat. Without it the consumer says nothing, for ever."""

VERSIONS_S = 2.0
"""How long the lines about a broker's versions may take after it has answered."""

REMOVE_S = 10.0
SETTLE_S = 5.0
SETTLE_POLL_S = 0.2
"""How long a member may take to leave, its partitions to find another owner, and between two looks at that."""


class Member(NamedTuple):
    """A member of the group. `name` is its `worker.id`, `is_static` whether the group knows it by that."""

    name: str
    is_static: bool
    host: str
    partitions: Sequence[str]


def check(settings: Settings) -> None:
    """Check what stands in the way of the 'consumer' protocol, and ask for the session that is wanted.

    Does nothing for 'classic'. What the brokers do not let a worker ask is left to the join. Blocks for a few seconds.

    Raises:
        Misconfigured: the brokers cannot serve it or do not allow it, or the group has members of the other protocol.
    """
    kafka = settings.kafka
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
    _ask_for_session(admin, settings)


class HeartbeatVersions:
    """Listens to what librdkafka learns of each broker: the highest version of the newer protocol's heartbeat.

    librdkafka has no call for it, and its `debug=feature` lines are the only way that TLS and SASL do not close.
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
        """Whether all brokers that answered know the protocol. True where no broker told its versions at all."""
        deadline = time.monotonic() + VERSIONS_S
        while not self._highest and time.monotonic() < deadline:
            if admin.poll(0.05) == 0 and self._has_heard:
                break
        return not self._has_heard or (bool(self._highest) and min(self._highest) >= HEARTBEAT_VERSION)


def members(settings: Settings) -> list[Member]:
    """Give the members of the group; none where there is no such group.

    Raises:
        Unavailable: Kafka does not answer.
        Misconfigured: it does not let us ask.
    """
    admin = clients.admin(settings.kafka)
    clients.present_topics(admin, settings.kafka)
    try:
        group = _describe(admin, settings.kafka.group)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return []
        sentence = f"kafka.group: the brokers do not say who is in {settings.kafka.group!r}"
        raise causes.failure(sentence, error.args[0]) from error
    return [
        Member(
            name=str(member.group_instance_id or member.client_id),
            is_static=bool(member.group_instance_id),
            host=str(member.host).lstrip("/"),
            partitions=sorted(f"{one.topic}/{one.partition}" for one in member.assignment.topic_partitions),
        )
        for member in group.members
    ]


def static_member(settings: Settings) -> Member:
    """Give the member of the group whose name is the settings' `worker.id`.

    Raises:
        Misconfigured: there is none, or the group knows no names.
    """
    kafka, name = settings.kafka, settings.worker.id
    if kafka.group_protocol != "classic":
        raise Misconfigured(
            "kafka.group_protocol: with 'consumer' the group knows no member by its worker.id, and the brokers put out "
            "one that does not return when its session is over"
        )
    present = members(settings)
    for member in present:
        if member.is_static and member.name == name:
            return member
    names = ", ".join(sorted(member.name for member in present if member.is_static))
    raise Misconfigured(
        f"worker.id: the group {kafka.group!r} has no member that was started with the id {name!r} "
        f"({f'those with an id: {names}' if names else 'none has one'}); a worker with a random id is put out when its "
        "session is over"
    )


def remove(settings: Settings, member: Member) -> list[Member]:
    """Put a static member out of the group, under the settings' `worker.id`; give the members that there are then.

    Joins in its place and leaves, which moves its partitions to the others at once. Commits nothing. A worker that
    still runs under that id joins again, or ends where its heartbeat came in between and was fenced. Blocks for
    `REMOVE_S` and `SETTLE_S` at most.

    Raises:
        Unavailable: the group did not let it join in that time.
    """
    assigned: list[bool] = []
    consumer = clients.consumer(settings, logger=clients.Discarded())
    consumer.subscribe(settings.topics.inputs, on_assign=lambda *_: assigned.append(True))
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
        left = members(settings)
        owned = {partition for one in left for partition in one.partitions}
        if not left or owned.issuperset(member.partitions) or time.monotonic() > deadline:
            return left
        time.sleep(SETTLE_POLL_S)


def _ask_for_session(admin: AdminClient, settings: Settings) -> None:
    """Ask the brokers for the session of this group: with this protocol it is theirs to set."""
    group, session_ms = settings.kafka.group, int(settings.kafka.session_timeout_s * 1000)
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
    """Give a resource's configuration; nothing where the brokers do not tell it to us."""
    resource = ConfigResource(kind, name)
    try:
        entries = admin.describe_configs([resource])[resource].result(ANSWER_S)
    except (KafkaException, TimeoutError):
        return {}
    return {key: entry.value for key, entry in entries.items() if entry.value is not None}


def _described(admin: AdminClient, group: str) -> ConsumerGroupDescription | None:
    try:
        return _describe(admin, group)
    except (KafkaException, TimeoutError):
        return None


def _describe(admin: AdminClient, group: str) -> ConsumerGroupDescription:
    future: Future[ConsumerGroupDescription] = admin.describe_consumer_groups([group])[group]
    return future.result(ANSWER_S)
