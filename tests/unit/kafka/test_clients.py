"""How librdkafka's clients are set."""

from __future__ import annotations

import json
from typing import Literal

import pytest
from confluent_kafka import Consumer

from workers.errors import Misconfigured
from workers.kafka import clients
from workers.kafka.route import Route
from workers.settings import Kafka
from workers.settings.kafka_properties import why_refused

LIMITS = {"verdicts": 1_000_000, "review": 50_000}


def test_a_batch_is_no_larger_than_the_smallest_topic_takes() -> None:
    def batch_size(kafka: Kafka) -> object:
        return clients.transactional_producer_config(kafka, "w", LIMITS)["batch.size"]

    assert batch_size(Kafka()) == 50_000
    assert batch_size(Kafka(properties={"batch.size": 10_000})) == 10_000


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_what_the_worker_sets_whatever_kafka_properties_says_is_refused_there(
    protocol: Literal["classic", "consumer"],
) -> None:
    """Else a property that somebody set would have no effect, without a word."""

    def configs(properties: dict[str, str | int | float | bool]) -> list[dict[str, object]]:
        kafka = Kafka(group_protocol=protocol).model_copy(update={"properties": properties})
        return [
            clients.consumer_config(Route(kafka, "w", {}, {}, dead_letters="d", is_static=True)),
            clients.transactional_producer_config(kafka, "w", LIMITS),
        ]

    # The first two are combined with the worker's own; the last has an effect on the clients that are not the producer.
    excepted = {"batch.size", "debug", "socket.timeout.ms"}
    names = {name for config in configs({}) for name in config} - excepted
    silent = {
        name
        for name in names
        if why_refused(name) is None and any(config[name] != "mine" for config in configs({name: "mine"}))
    }
    assert not silent


def test_what_librdkafka_refuses_is_a_sentence() -> None:
    with pytest.raises(Misconfigured, match=r'^kafka\.properties: .*"no\.such"'):
        clients.admin(Kafka(properties={"no.such": 1}))


def test_no_worker_id_makes_the_statistics_unreadable() -> None:
    reports: list[str] = []
    consumer = Consumer(
        {
            "client.id": clients.client_id('a "quoted"\\\nid'),
            "group.id": "g",
            "statistics.interval.ms": 10,
            "stats_cb": reports.append,
        }
    )
    try:
        while not reports:
            consumer.poll(0.05)
    finally:
        consumer.close()
    assert json.loads(reports[0])["client_id"] == "a__quoted___id"
