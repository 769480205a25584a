"""What is published while no broker answers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from tests.unit.moderation.test_pipeline import until
from workers.kafka import publishing
from workers.kafka.publishing import Publisher
from workers.settings import Kafka

WAITING = 50


def dropped() -> float:
    return REGISTRY.get_sample_value("guardline_gateway_published_total", {"result": "dropped"}) or 0


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_WAITING": WAITING, "SLOW_S": 0.2, "POLL_S": 0.01, "FLUSH_S": 0.1}.items():
        monkeypatch.setattr(publishing, name, value)


async def test_records_that_kafka_does_not_store_are_bounded_counted_and_logged_once_in_a_while() -> None:
    before = dropped()
    # Nobody listens there.
    publisher = Publisher(Kafka(bootstrap_servers="127.0.0.1:9"))
    with capture_logs() as lines:
        serving = asyncio.create_task(publisher.serve())
        publisher.publish("topic", b"key", b"value")
        await until(lambda: bool(lines))
        for _ in range(WAITING + 9):
            publisher.publish("topic", b"key", b"value")
        serving.cancel()
        now = time.monotonic()
        publisher._say(now)
        publisher._say(now + publishing.SAY_AGAIN_S)
    assert [(line["waiting"], line["lost"]) for line in lines] == [(1, 0), (WAITING, 10)]
    assert lines[0]["event"].startswith("Kafka does not store the decisions of the gateway (gateway.publish")
    assert "127.0.0.1:9" in lines[0]["reason"]
    assert REGISTRY.get_sample_value("guardline_gateway_unpublished_records") == WAITING
    assert dropped() - before == 10

    with capture_logs() as lines:
        await publisher.close()
    assert lines == [{"event": "records were not published before the end", "log_level": "warning", "records": WAITING}]
    assert dropped() - before == 10 + WAITING


async def test_records_that_are_lost_are_logged_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "MAX_WAITING", 0)
    publisher = Publisher(Kafka(bootstrap_servers="127.0.0.1:9"))
    publisher.publish("topic", b"key", b"value")
    publisher.publish("topic", b"key", b"value")
    lines: list[Any]
    with capture_logs() as lines:
        serving = asyncio.create_task(publisher.serve())
        await until(lambda: bool(lines))
        serving.cancel()
    assert (lines[0]["waiting"], lines[0]["lost"], lines[0]["reason"]) == (0, 2, "0 records wait")
    await publisher.close()
