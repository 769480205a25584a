"""What is read in the statistics of librdkafka."""

from __future__ import annotations

import json
from typing import Any

from workers.core.lag import End
from workers.core.records import TopicPartition
from workers.kafka.statistics import read


def report(*sources: str, **partitions: dict[str, int]) -> str:
    brokers = {f"b{number}": {"source": source} for number, source in enumerate(sources)}
    document: dict[str, Any] = {"brokers": brokers}
    if partitions:
        document["topics"] = {"t": {"partitions": {name.lstrip("p"): one for name, one in partitions.items()}}}
    return json.dumps(document)


def test_a_client_that_knows_only_coordinators_is_stranded() -> None:
    stranded = [read(report(*sources)) for sources in [(), ("logical",), ("learned", "logical"), ("configured",)]]
    assert [one is not None and one.is_stranded for one in stranded] == [True, True, False, False]


def test_the_ends_of_fetched_partitions_are_read() -> None:
    unknown = {"lo_offset": -1001, "ls_offset": -1001, "next_offset": -1001, "fetchq_cnt": 0}
    found = read(
        report(
            "learned",
            p0={"lo_offset": 2, "ls_offset": 90, "next_offset": 50, "fetchq_cnt": 8},
            p1={"lo_offset": -1001, "ls_offset": 7, "next_offset": 7, "fetchq_cnt": 0},
            p2=unknown,
            p3={**unknown, "next_offset": 5},  # Paused before its first fetch.
        )
    )
    assert found is not None
    assert found.ends == {
        TopicPartition("t", 0): End(2, 90, 42),
        TopicPartition("t", 1): End(0, 7, 7),
        TopicPartition("t", 3): End(0, 5, 5),
    }


def test_a_report_that_is_not_json_is_ignored() -> None:
    assert read('{"client_id": "a"b"}') is None
