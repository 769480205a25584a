"""One platform in the demo: what Discord's gateway sends, read through the mapping that is shipped for it."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import yaml
from confluent_kafka import Producer

from infra.devstack import children
from workers.core.records import Record
from workers.errors import Skipped
from workers.kafka import topics
from workers.mapping.document import parse_yaml
from workers.mapping.examples import read
from workers.mapping.mapping import Mapping
from workers.settings import Settings

TOPIC = "discord.gateway"
NAME = "discord"


class Platform:
    """A worker of its own group, whose mapping turns the platform's records into events.

    Attributes:
        texts: the text of each event that the records hold, by its id.
        skipped: how many records hold none.
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.skipped = 0
        self._records = read(f"{NAME}.jsonl").encode().splitlines()
        settings = Settings()
        mapping = Mapping(parse_yaml(read(f"{NAME}.yaml"), NAME))
        for value in self._records:
            try:
                events = mapping.events(Record(value, topic=TOPIC), settings.events)
            except Skipped:
                self.skipped += 1
            else:
                self.texts |= {one.event["event_id"]: one.event["text"] for one in events}
        self._verdicts: dict[str, dict[str, Any]] = {}
        self._seen = Counter[str]()

    def start(self, settings: Settings, folder: Path, command: list[str]) -> subprocess.Popen[bytes]:
        """Create the topic, produce the records, and start the worker. Gives its process."""
        inputs = settings.topics.model_copy(update={"inputs": [TOPIC]})
        topics.create(settings.model_copy(update={"topics": inputs}))
        producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 2})
        for value in self._records:
            producer.produce(TOPIC, value, orjson.loads(value)["d"]["channel_id"].encode())
        producer.flush(10)
        mapping, config = folder / f"{NAME}.yaml", folder / "config.yaml"
        mapping.write_text(read(mapping.name), encoding="utf-8")
        config.write_text(
            yaml.safe_dump(
                {
                    "kafka": {"group": f"demo-{NAME}"},
                    "topics": {"inputs": [TOPIC]},
                    "events": {"mapping": str(mapping)},
                }
            ),
            encoding="utf-8",
        )
        return children.spawn(["env", f"GUARDLINE_CONFIG={config}", *command], folder / f"worker-{NAME}.log")

    def take(self, verdict: dict[str, Any]) -> None:
        """Count a verdict on one of the platform's records."""
        self._verdicts[verdict["event_id"]] = verdict
        self._seen[verdict["event_id"]] += 1

    @property
    def is_answered(self) -> bool:
        """Whether each event has a verdict."""
        return self._verdicts.keys() >= self.texts.keys()

    @property
    def lost(self) -> int:
        """How many events have no verdict."""
        return len(self.texts.keys() - self._verdicts.keys())

    @property
    def doubled(self) -> int:
        """How many verdicts are surplus."""
        return self._seen.total() - len(self._seen)

    def lines(self) -> list[str]:
        """Say what became of each message."""
        return [
            f"{self._verdicts[event_id]['decision'] if event_id in self._verdicts else '?':<6} {text!r}"
            for event_id, text in self.texts.items()
        ]
