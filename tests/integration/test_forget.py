"""`guardline forget` writes a request and says how far it has come; `guardline topics create` sets retention."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from confluent_kafka import Consumer, TopicPartition

from schemas.forget import Forget
from tests.site import Site
from workers.kafka.reader import read


def commit(site: Site, worker: str, topic: str, offset: int) -> None:
    """Commit offsets of all partitions as the group of this worker."""
    settings = site.settings()
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": f"{settings.kafka.group}.{worker}"}
    )
    try:
        partitions = range(settings.topics.partitions)
        consumer.commit(offsets=[TopicPartition(topic, number, offset) for number in partitions], asynchronous=False)
    finally:
        consumer.close()


def forget(site: Site, *flags: str, code: int = 0) -> dict[str, str]:
    """Run the command, and give the last column of its table by the first one."""
    run = site.command("forget", "--tenant", "acme", "--author", "u-17", *flags, code=code)
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in run.stdout.splitlines() if "│" in line]
    if code:
        assert "of review has not read the request after 0.6 s" in run.stderr
    return {row[0]: row[-1] for row in cells}


def test_a_request_is_written_and_the_command_says_what_has_acted_and_what_waits_for_its_retention(site: Site) -> None:
    settings = site.settings()
    topics = settings.topics
    site.create_topics(topics.forget)
    found = forget(site)
    (request,) = [
        Forget.model_validate_json(message.value() or b"")
        for message in read(settings.kafka, [topics.forget], from_beginning=True, follow=False)
        if message is not None and message.key() == b"acme|u-17"
    ]
    assert (request.tenant_id, request.author_id) == ("acme", "u-17")
    assert datetime.now(UTC) - datetime.fromisoformat(request.requested_at) < timedelta(minutes=5)
    assert {found["worker aggregates"], found["worker review"]} == {
        "the group has committed nothing: the worker has never run here"
    }
    # Seven days of retention, and seven of a segment.
    end = datetime.strptime(found[topics.inputs[0]], "until %Y-%m-%d %H:%M UTC at the latest").replace(tzinfo=UTC)
    assert timedelta(days=13.9) < end - datetime.now(UTC) < timedelta(days=14.1)
    assert found.keys() >= {*topics.inputs, topics.verdicts, topics.review, topics.dead_letters, topics.forget}
    assert topics.usage not in found

    commit(site, "review", topics.review, 1)
    commit(site, "aggregates", topics.forget, 100)
    found = forget(site, "--wait", "0.6", code=1)
    assert found["worker aggregates"] == "done"
    assert found["worker review"].startswith("waiting: ")
    commit(site, "review", topics.forget, 100)
    assert forget(site, "--wait", "60")["worker review"] == "done"


def test_existing_topics_get_the_retention_of_the_settings_only_if_asked_for(site: Site) -> None:
    site.create_topics()
    chat = site.settings().topics.inputs[0]
    site.environment["GUARDLINE_TOPICS__RETENTION"] = f'{{"{chat}": 24}}'
    said = f"differs: {chat} has retention.ms 604800000, and not 86400000: --alter changes it"
    for _ in range(2):
        lines = site.command("topics", "create").stdout.splitlines()
        assert [line for line in lines if line.startswith("differs")] == [said]
    assert (
        f"changed {chat}: retention.ms from 604800000 to 86400000" in site.command("topics", "create", "--alter").stdout
    )
    assert "differs" not in site.command("topics", "create").stdout
