"""The aggregates worker against a real Kafka and a real Valkey."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from typer.testing import CliRunner

from tests.aggregates import (
    Verdicts,
    counted,
    create_topics,
    harmless,
    set_policy,
    signals,
    strikes,
    verdict,
    verdict_id,
    worker,
)
from tests.site import Process, Site, eventually
from workers.aggregates.folder import claim
from workers.cli import records
from workers.errors import Misconfigured, Unavailable
from workers.kafka.internal_topics import prepare
from workers.kafka.topic_settings import described
from workers.kafka.topics import create
from workers.settings import Settings

READ = "guardline_aggregates_verdicts_total"
AGAIN = 'guardline_aggregates_row_updates_total{result="repeated"}'


def stopped(process: Process) -> None:
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process.text
    assert process.end["state"] == "stopped"


@pytest.mark.parametrize("store", ["memory", "disk"])
def test_a_restart_restores_the_rows_and_reads_no_verdict_again(site: Site, store: str) -> None:
    """26 transactions of one verdict each: Faust commits one of them at a time, and then reads 16 again."""
    changes = {"GUARDLINE_AGGREGATES__FOLDER": f"{site.folder.name}/rows"} if store == "disk" else {}
    create_topics(site)
    set_policy(site)
    writer = Verdicts(site)
    first = worker(site, **changes)
    for number in range(26):
        writer.write([harmless(number, author_id="a1")], key="room-1")
    writer.write([verdict(100 + number) for number in range(5)], commit=False)
    writer.write([verdict(number) for number in range(30, 33)])
    writer.write([b"no verdict", None, {"verdict_id": 1}, harmless(40, duplicate_of=verdict_id(1))])
    eventually(lambda: counted(site) == {"a0": 3, "a1": 26}, "the committed verdicts are counted, and no aborted one")
    eventually(lambda: len(signals(site)) == 1, "a signal is raised")
    (raised,) = signals(site)
    assert (raised["threshold_name"], raised["state"], raised["value"]) == ("warn", "raised", 3)
    (line,) = [line for line in first.text.splitlines() if "signal raised" in line]
    assert json.loads(line)["threshold"] == "warn"
    assert "a0" not in line
    shown = CliRunner().invoke(records.app, ["signals"], env=site.environment)
    assert shown.stdout == "raised   acme  warn  a0  3 at least 3\n", shown.output
    assert set(raised["evidence"]) == {verdict_id(number) for number in (30, 31, 32)}
    eventually(lambda: strikes(site, "a0") == 3, "the strikes are in Redis")
    eventually(lambda: first.metric('guardline_aggregates_skipped_total{reason="junk"}') == 2, "two are no verdicts")
    assert first.metric('guardline_aggregates_skipped_total{reason="duplicate"}') == 1
    request_to_forget(site, "a1", datetime.now(UTC))
    eventually(lambda: counted(site) == {"a0": 3}, "the row of the author is deleted")
    stopped(first)

    corrected = verdict(51, supersedes=verdict_id(30), superseded_decision="block", decision="allow")
    long_ago = {"topic": "chat", "partition": 0, "offset": 1, "timestamp": 1_700_000_000_000}
    forgotten = verdict(53, author_id="a1", source=long_ago)
    writer.write([verdict(50), corrected, forgotten, verdict(52)], key="room-1")
    second = worker(site, **changes)
    eventually(lambda: counted(site).get("a0") == 5, "the new verdicts are counted")
    eventually(lambda: strikes(site, "a0") == 4, "two strikes came, and the correction took one back")
    assert second.metric(READ) == 4, "no verdict is read again"
    assert "a1" not in counted(site), "a request that was handled before the restart still counts"
    assert second.metric(AGAIN) == 0
    assert len(signals(site)) == 1, "the threshold stays in force"

    request_to_forget(site, "a0", datetime(2026, 11, 1, tzinfo=UTC))
    eventually(lambda: "a0" not in counted(site), "the row of the author is deleted")
    eventually(lambda: strikes(site, "a0") == 0, "the strikes of the author are deleted")
    assert counted(site, "tenant") == {"": 32}
    stopped(second)


def request_to_forget(site: Site, author: str, at: datetime) -> None:
    producer = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
    request = {"forget_id": "0" * 32, "tenant_id": "acme", "author_id": author, "requested_at": at.isoformat()}
    producer.produce(site.settings().topics.forget, orjson.dumps(request), key=f"acme|{author}")
    assert producer.flush(30) == 0


def test_topics_with_other_numbers_of_partitions_are_refused_with_a_sentence(site: Site) -> None:
    create_topics(site)
    settings = site.settings()
    verdicts = settings.topics.verdicts
    eventually(lambda: prepared(settings), "the topics are made, and all brokers know them")
    made = prepare(settings)
    assert made.partitions == 4
    assert prepare(settings) == made, "topics that are there stay"
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    kept = described(admin, [made.changelog])[made.changelog]
    assert (kept["cleanup.policy"], kept["max.compaction.lag.ms"]) == ("compact", "86400000"), "forgotten rows go"
    folder = Path(site.folder.name) / "rows"
    claim(folder, made, verdicts)
    claim(folder, prepare(settings), verdicts)
    for topic in (verdicts, made.updates, made.changelog):
        admin.create_partitions([NewPartitions(topic, 6)])[topic].result(30)
    eventually(lambda: prepared(settings), "all brokers know the new partitions")
    with pytest.raises(Misconfigured, match=r"has rows of 4 partitions, and .* has 6 now: .* Stop all aggregates"):
        claim(folder, prepare(settings), verdicts)
    admin.create_partitions([NewPartitions(made.updates, 9)])[made.updates].result(30)

    def sentence() -> str:
        with pytest.raises(Misconfigured) as caught:
            prepare(settings)
        return str(caught.value)

    assert f"{verdicts} has 6 partitions, {made.updates} has 9 and {made.changelog} has 6" in sentence()
    assert f"delete {made.updates} and {made.changelog} and the consumer group {made.group}" in sentence()

    admin.delete_topics([verdicts])[verdicts].result(30)
    create_topics_until_there(site)
    admin.delete_topics([made.updates, made.changelog])[made.updates].result(30)
    eventually(lambda: prepared(settings), "the topics are gone, and made again")
    again = prepare(settings)
    assert again.incarnation != made.incarnation
    assert again.partitions == made.partitions
    with pytest.raises(Misconfigured, match="has the rows of another changelog topic than"):
        claim(folder, again, verdicts)


def create_topics_until_there(site: Site) -> None:
    """The deletion of a topic takes a moment."""
    verdicts = site.settings().topics.verdicts
    eventually(lambda: verdicts in create(site.settings(), [verdicts])[0], "the verdict topic is made again")


def prepared(settings: Settings) -> bool:
    try:
        prepare(settings)
    except (Misconfigured, Unavailable):
        return False
    return True
