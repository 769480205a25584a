"""A site's streams workers, the records of streams, and what a read_committed reader sees of their outcomes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from confluent_kafka import Message, Producer

from tests.checkpoints.stream import write_stream
from tests.command import GUARDLINE
from tests.site import Process, Site
from workers.guard.stream_convert import convert_stream
from workers.kafka.reader import read
from workers.kafka.topics import create

Position = tuple[int, int]
"""The partition and the offset of a record of the input topic."""

TOPICS = ("streams", "stream_verdicts", "interventions", "stream_sessions", "dead_letters")


@cache
def checkpoint(folder: Path) -> Path:
    """Make the small checkpoint with random weights, for onnxruntime."""
    source = write_stream(folder / "hf", window=256)
    convert_stream(source, folder / "onnx", "float32")
    return folder / "onnx"


def step(kind: str, seq: int, stream_id: str, content: str | list[int] | None = None, **changes: Any) -> dict[str, Any]:
    """Give the value of a record."""
    own = {} if content is None else {"text" if isinstance(content, str) else "token_ids": content}
    return {"kind": kind, "stream_id": stream_id, "tenant_id": "acme", "seq": seq, **own, **changes}


class Answers:
    """The streams of a site."""

    def __init__(self, site: Site, model: Path, **settings: str) -> None:
        self.site = site
        site.environment |= {
            "GUARDLINE_STREAMS__MODEL": str(model),
            "GUARDLINE_STREAMS__THREADS": "1",
            **{f"GUARDLINE_STREAMS__{name.upper()}": value for name, value in settings.items()},
        }
        self.topics = site.settings().topics
        self.sent: list[Position] = []
        self._producer = Producer(
            {"bootstrap.servers": site.settings().kafka.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5}
        )

    def create_topics(self) -> None:
        create(self.site.settings(), [getattr(self.topics, name) for name in TOPICS])

    def worker(self, name: str, **changes: str) -> Process:
        return self.site.worker(GUARDLINE, "worker", "streams", "--id", name, **changes)

    def send(self, values: Iterable[dict[str, Any] | bytes], key: bytes | None = None) -> list[Position]:
        """Send records with the key `stream_id`, or with this one. Returns their positions."""
        positions: dict[int, Position] = {}
        for number, value in enumerate(values):
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            own = value["stream_id"].encode() if key is None and not isinstance(value, bytes) else key

            def delivered(error: object, message: Message, number: int = number) -> None:
                assert error is None, error
                positions[number] = (int(message.partition() or 0), int(message.offset() or 0))

            self._producer.produce(self.topics.streams, raw, own, on_delivery=delivered)
            self._producer.poll(0)
        assert self._producer.flush(30) == 0
        found = [positions[number] for number in sorted(positions)]
        self.sent += found
        return found

    def records(self, topic: str) -> list[Any]:
        found = read(self.site.settings().kafka, [topic], from_beginning=True, follow=False)
        return [message for message in found if message is not None]

    def documents(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(message.value()) for message in self.records(topic)]

    def answered(self, topic: str = "") -> int:
        """Count the verdicts, which costs less than to read them."""
        return len(self.records(topic or self.topics.stream_verdicts))

    def verdicts(self, topic: str = "") -> dict[Position, dict[str, Any]]:
        """Give the verdicts by the position of their records. No position may have two."""
        found = self.documents(topic or self.topics.stream_verdicts)
        positions = [(one["source"]["partition"], one["source"]["offset"]) for one in found]
        doubled = [position for position, count in Counter(positions).items() if count > 1]
        assert not doubled, f"two verdicts of one record: {doubled}"
        return dict(zip(positions, found, strict=True))

    def states(self) -> dict[str, str]:
        """Give the newest states of the streams whose sessions have not ended."""
        newest: dict[bytes, dict[str, Any] | None] = {}
        for message in self.records(self.topics.stream_sessions):
            newest[message.key()] = None if message.value() is None else json.loads(message.value())
        return {one["stream_id"]: one["state"] for one in newest.values() if one is not None}
