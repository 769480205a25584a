"""A server of Redis is killed under a worker: behind Sentinels, and in a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.devstack.stack import Stack
from tests.redis_servers import QUICK_MS, Servers, cluster, sentinels
from tests.site import Outcome, Site, eventually


@pytest.fixture(params=["sentinels", "cluster"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """Give servers of which the one with the policies may be killed: another one takes its place."""
    are_sentinels = request.param == "sentinels"
    with sentinels(QUICK_MS) if are_sentinels else cluster(QUICK_MS, with_replica_of=b"n:{policies}") as servers:
        yield servers


@pytest.fixture
def place(stack: Stack, servers: Servers) -> Iterator[Site]:
    site = Site(stack.kafka, servers.url)
    site.create_topics()
    try:
        yield site
    finally:
        site.close()


def put_in_force(place: Site, decision: str, folder: Path) -> None:
    """Set a policy of acme with `guardline policy`, which reaches Redis as workers do."""
    file = folder / "policy.yaml"
    file.write_text(f"{{safe: {decision}, controversial: {decision}, unsafe: {decision}}}")
    place.command("policy", "set", "acme", file)


def decision_of(outcome: Outcome, event_id: str) -> str:
    documents = [document for found in outcome.by_position.values() for document in found]
    return next(str(document["decision"]) for document in documents if document["event_id"] == event_id)


def repeats(outcome: Outcome) -> int:
    return sum(document["duplicate_of"] is not None for found in outcome.by_position.values() for document in found)


def test_a_killed_server_of_redis_costs_no_verdict_and_seconds_of_deduplication(
    place: Site, servers: Servers, tmp_path: Path
) -> None:
    put_in_force(place, "block", tmp_path)
    worker = place.worker()
    eventually(lambda: worker.has_partitions, "partitions")
    place.events(200)
    outcome = place.check()
    assert {document["decision"] for found in outcome.by_position.values() for document in found} == {"block"}
    assert repeats(outcome) == 0
    place.events(200)
    eventually(lambda: repeats(place.check()) == 200, "repeats are recognised")
    servers.kill(servers.primary)
    place.events(200, start=200)
    place.check()
    eventually(lambda: "redis does not answer" in worker.text, "the worker noticed the outage")
    place.events(200, start=400)
    place.check()
    eventually(lambda: worker.metric("guardline_redis_up") == 1, "another server took its place")
    # The entries of before are there, and those of the outage were written later.
    known = repeats(place.check())
    place.events(600)
    assert repeats(place.check()) - known == 600
    put_in_force(place, "allow", tmp_path)
    numbers = iter(range(1_000, 2_000))

    def is_in_force() -> bool:
        number = next(numbers)
        place.events(1, start=number)
        return decision_of(place.check(), f"e{number}") == "allow"

    eventually(is_in_force, "a change of the policy is in force")
    assert worker.popen.poll() is None
    assert "Traceback" not in worker.text
