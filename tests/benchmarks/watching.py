"""What a group does over time: its offsets, its workers and their memory, sampled a few times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from tests.benchmarks.keda import Partition
from tests.site import Site
from workers.kafka.clients import RECOVERY

EVERY_S = 0.25
ANSWER_S = 2.0


@dataclass(frozen=True)
class Sample:
    """One look. `memory_mb` has the resident memory of each worker that runs, by its name."""

    at_s: float
    committed: Mapping[Partition, int]
    ends: Mapping[Partition, int]
    workers: int
    memory_mb: Mapping[str, float]

    @property
    def lag(self) -> int:
        """Records behind the group's offsets, in all partitions. A partition without an offset counts as a whole."""
        return sum(end - max(0, self.committed.get(one, 0)) for one, end in self.ends.items())

    @property
    def done(self) -> int:
        """Records before the group's offsets."""
        return sum(max(0, offset) for offset in self.committed.values())


class Watch(threading.Thread):
    """Takes samples until `stop`. While the brokers do not answer there are none."""

    def __init__(self, site: Site, running: Callable[[], Mapping[str, int]], began: float) -> None:
        """`running` returns the process ids of the workers by their names; `began` is the time 0 of the samples."""
        super().__init__(name="watch", daemon=True)
        kafka, topics = site.settings().kafka, site.settings().topics
        client: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0, **RECOVERY}
        self._client = client
        self._admin = AdminClient(client)
        # Not read_committed: then it would wait for offsets in doubt. KEDA does not wait for them either.
        self._group = Consumer({**client, "group.id": kafka.group, "isolation.level": "read_uncommitted"})
        self._partitions = [
            TopicPartition(topic, number) for topic in topics.inputs for number in range(topics.partitions)
        ]
        self._running = running
        self._began = began
        self._is_over = False
        self.samples: list[Sample] = []

    @property
    def last(self) -> Sample | None:
        """The last sample, if there is one."""
        return self.samples[-1] if self.samples else None

    def run(self) -> None:
        """Sample."""
        while not self._is_over:
            began = time.monotonic()
            try:
                self.samples.append(self._look())
            except (KafkaException, TimeoutError):
                # The brokers are away: the next look comes soon. After a restart of a broker, librdkafka 2.16 asks with
                # the leader epochs that it knew before, and is refused each time (FENCED_LEADER_EPOCH).
                self._admin = AdminClient(self._client)
            time.sleep(max(0.05, began + EVERY_S - time.monotonic()))
        self._group.close()

    def stop(self) -> None:
        """End."""
        self._is_over = True
        self.join()

    def _look(self) -> Sample:
        committed = self._group.committed(self._partitions, ANSWER_S)
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's own
        ends = self._admin.list_offsets(dict.fromkeys(self._partitions, latest), request_timeout=ANSWER_S)
        now = time.monotonic()
        running = dict(self._running())
        return Sample(
            round(now - self._began, 2),
            {(one.topic, one.partition): max(-1, one.offset) for one in committed if one.error is None},
            {(one.topic, one.partition): end.result(ANSWER_S).offset for one, end in ends.items()},
            len(running),
            {name: size for name, pid in running.items() if (size := _resident_mb(pid)) is not None},
        )


def _resident_mb(pid: int) -> float | None:
    try:
        # 0: it has ended, and nobody has waited for it yet.
        return round(psutil.Process(pid).memory_info().rss / 1e6, 1) or None
    except psutil.NoSuchProcess:
        return None
