"""The newer group protocol: a worker that cannot use it says why at start, instead of staying silent."""

from __future__ import annotations

import signal

import pytest
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.brokers import broker, rewritten
from tests.site import Site, eventually
from tests.stack import Stack
from workers.core.ledger import Ledger
from workers.errors import Fatal, Misconfigured
from workers.kafka import clients, membership
from workers.kafka.intake import Intake
from workers.kafka.route import of_moderation
from workers.settings import Settings

pytestmark = pytest.mark.timeout(240)

NEWER = {"GUARDLINE_KAFKA__GROUP_PROTOCOL": "consumer"}
HEARTBEAT_V1, HEARTBEAT_V0 = bytes([0, 68, 0, 0, 0, 1]), bytes([0, 68, 0, 0, 0, 0])
"""ConsumerGroupHeartbeat in a broker's list of APIs: its key, the lowest and the highest version."""


def why_the_join_fails(settings: Settings) -> str:
    """Join without the check at start; return the sentence for the broker's refusal."""
    intake = Intake(of_moderation(settings), settings.topics.inputs, Ledger(), lambda: None)
    refusals: list[Fatal] = []

    def is_refused() -> bool:
        try:
            intake.poll(1, 0.1)
        except Fatal as error:
            refusals.append(error)
        return bool(refusals)

    try:
        eventually(is_refused, "the broker refuses")
    finally:
        intake.consumer.close()
    return str(refusals[0])


def test_a_group_with_members_of_the_other_protocol_is_refused(site: Site) -> None:
    """Also if the check at start saw no member yet. The broker refuses after a rebalance."""
    site.create_topics()
    first = site.worker()
    eventually(lambda: first.has_partitions, "partitions")
    second = site.worker()
    eventually(lambda: second.has_partitions, "partitions")
    assert membership.HAS_CLASSIC_MEMBERS in site.command("worker", "moderation", code=2, **NEWER).stderr
    assert why_the_join_fails(site.settings(**NEWER)) == membership.HAS_CLASSIC_MEMBERS
    for worker in (first, second):
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0, worker.text
    newer = site.worker(**NEWER)
    eventually(lambda: newer.has_partitions, "the group is empty, and takes a member of the newer protocol")


def test_brokers_that_switched_it_off_are_named(stack: Stack) -> None:
    with broker("group.coordinator.rebalance.protocols=classic") as address:
        site = Site(address, stack.redis)
        try:
            site.create_topics()
            assert membership.SWITCHED_OFF in site.command("worker", "moderation", code=2, **NEWER).stderr
            assert why_the_join_fails(site.settings(**NEWER)) == membership.SWITCHED_OFF
        finally:
            site.close()


def test_brokers_that_are_too_old_are_named(site: Site) -> None:
    """With such brokers a consumer reports nothing: no error, no log line, no partitions."""
    brokers = site.settings().kafka.bootstrap_servers
    with rewritten(brokers, HEARTBEAT_V1, HEARTBEAT_V0) as address, pytest.raises(Misconfigured) as refusal:
        membership.check(site.settings(GUARDLINE_KAFKA__BOOTSTRAP_SERVERS=address, **NEWER).kafka)
    assert str(refusal.value) == membership.TOO_OLD
    membership.check(site.settings(**NEWER).kafka)


def test_brokers_that_keep_a_longer_session_are_named_and_the_worker_works(stack: Stack) -> None:
    with broker("group.consumer.session.timeout.ms=45000", "group.consumer.min.session.timeout.ms=45000") as address:
        site = Site(address, stack.redis)
        try:
            site.create_topics()
            worker = site.worker(**NEWER)
            site.events(50)
            site.check()
            (line,) = [line for line in worker.text.splitlines() if "brokers keep their own value" in line]
            assert '"kept": "45000"' in line
            assert "group.consumer.min.session.timeout.ms" in line
        finally:
            site.close()


def test_the_group_gets_the_requested_session_timeout(site: Site) -> None:
    """The embedded brokers use sessions of 5 s."""
    site.create_topics()
    worker = site.worker(GUARDLINE_KAFKA__SESSION_TIMEOUT_S="3", **NEWER)
    eventually(lambda: worker.has_partitions, "partitions")
    assert "brokers keep their own value" not in worker.text
    settings = site.settings()
    group = ConfigResource(ResourceType.GROUP, settings.kafka.group)
    admin = clients.admin(settings.kafka)
    found = admin.describe_configs([group])[group].result(10)
    assert found["consumer.session.timeout.ms"].value == "3000"
    assert found["consumer.heartbeat.interval.ms"].value == "600"


def test_only_a_static_member_can_be_removed(site: Site) -> None:
    site.create_topics()
    worker = site.worker()
    eventually(lambda: worker.has_partitions, "partitions")
    said = site.command("worker", "remove", "--id", "nobody", code=2).stderr
    assert "no member that was started with the id 'nobody' (no member has one)" in said
    said = site.command("worker", "remove", "--id", "nobody", code=2, **NEWER).stderr
    assert "kafka.group_protocol" in said
