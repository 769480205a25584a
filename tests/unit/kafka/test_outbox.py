"""How the producer is set."""

from __future__ import annotations

from workers.kafka.outbox import producer_config
from workers.settings import Kafka


def test_a_batch_is_no_larger_than_the_smallest_topic_takes() -> None:
    limits = {"verdicts": 1_000_000, "review": 50_000}
    assert producer_config(Kafka(), "w", limits)["batch.size"] == 50_000
    assert producer_config(Kafka(properties={"batch.size": 10_000}), "w", limits)["batch.size"] == 10_000
