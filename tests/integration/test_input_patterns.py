"""Input topics by a pattern: the topics that match are read, new ones too, and never the worker's own outputs."""

from __future__ import annotations

import json
import signal

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.site import Site, eventually

pytestmark = pytest.mark.timeout(120)


def create(site: Site, *names: str) -> AdminClient:
    client = AdminClient({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
    for made in client.create_topics([NewTopic(name, 2, 1) for name in names]).values():
        made.result(10)
    return client


def send(site: Site, name: str, count: int) -> None:
    """Send events to this topic."""
    before = site.environment["GUARDLINE_TOPICS__INPUTS"]
    site.environment["GUARDLINE_TOPICS__INPUTS"] = json.dumps([name])
    try:
        site.events(count, start=len(site.sent))
    finally:
        site.environment["GUARDLINE_TOPICS__INPUTS"] = before


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_topics_that_match_a_pattern_are_read_including_new_ones(site: Site, protocol: str) -> None:
    site.use(protocol)
    name = site.settings().kafka.group
    # The pattern matches the outputs, too.
    site.environment["GUARDLINE_TOPICS__INPUTS"] = json.dumps([rf"^{name}\..*"])
    site.create_topics()
    waiting = site.command("worker", "moderation", code=1, GUARDLINE_WORKER__START_WITHIN_S="0")
    assert f"topics.inputs: no topic in Kafka matches '^{name}\\\\..*' (output topics do not count)" in waiting.stderr
    client = create(site, f"{name}.first", f"elsewhere.{name}.no")
    worker = site.worker(GUARDLINE_WORKER__ID="w")
    eventually(lambda: worker.has_partitions, "partitions")
    send(site, f"{name}.first", 20)
    eventually(lambda: site.answered() == 20, "the topic that was there is read")
    create(site, f"{name}.second")
    send(site, f"{name}.second", 20)
    eventually(lambda: site.answered() == 40, "the new topic is read")
    assert "reading new topics that match topics.inputs" in worker.text
    assert not [line for line in worker.text.splitlines() if "partitions revoked" in line and ".first" in line]
    worker.send(signal.SIGKILL)
    worker.wait()
    again = site.worker(GUARDLINE_WORKER__ID="w")
    send(site, f"{name}.first", 10)
    send(site, f"{name}.second", 10)
    site.environment["GUARDLINE_TOPICS__INPUTS"] = json.dumps([f"{name}.first", f"{name}.second"])
    outcome = site.check()
    assert {topic for topic, _, _ in outcome.by_position} == {f"{name}.first", f"{name}.second"}
    assert "holds verdicts of this pipeline" not in again.text
    client.delete_topics([f"{name}.second"])[f"{name}.second"].result(10)
    assert again.wait(20) == 1
    assert f"{name}.second was deleted" in again.text
