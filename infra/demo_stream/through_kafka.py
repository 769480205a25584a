"""The second part of the demo: many streams through Kafka, two workers, and one of them is killed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import Message

from infra.demo_stream.conversations import CONVERSATIONS
from workers.settings import Settings

COPIES = 12
"""How many streams have the same conversation: all of them must be cut at the same place."""

TENANT = "demo"
Position = tuple[str, int, int]


def records(copies: int = COPIES) -> list[tuple[str, bytes]]:
    """Give (key, value) of all events: the streams take turns, and each has its own pieces of its text."""
    chance = random.Random(7)  # noqa: S311 - it divides texts
    streams = [
        (f"{conversation.name}-{copy}", _steps(conversation.question, conversation.answer, chance))
        for copy in range(copies)
        for conversation in CONVERSATIONS
    ]
    out: list[tuple[str, bytes]] = []
    for seq in range(max(len(steps) for _, steps in streams)):
        for stream_id, steps in streams:
            if seq < len(steps):
                event = {"stream_id": stream_id, "tenant_id": TENANT, "seq": seq, **steps[seq]}
                out.append((stream_id, orjson.dumps(event)))
    return out


def _steps(question: str, answer: str, chance: random.Random) -> list[dict[str, str]]:
    deltas: list[str] = []
    at = 0
    while at < len(answer):
        size = chance.randint(4, 24)
        deltas.append(answer[at : at + size])
        at += size
    return [
        {"kind": "open"},
        {"kind": "user", "text": question},
        *({"kind": "delta", "text": delta} for delta in deltas),
        {"kind": "close"},
    ]


@dataclass
class Tally:
    """What a read_committed reader has seen."""

    verdicts: Counter[Position] = field(default_factory=Counter)
    cuts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The intervention of each stream that was cut."""
    doubled_cuts: int = 0

    def take(self, message: Message, settings: Settings) -> None:
        """Count a stream verdict or an intervention."""
        found: dict[str, Any] = orjson.loads(message.value() or b"")
        if message.topic() == settings.topics.interventions:
            self.doubled_cuts += found["stream_id"] in self.cuts
            self.cuts[found["stream_id"]] = found
            return
        source = found["source"]
        self.verdicts[(source["topic"], source["partition"], source["offset"])] += 1

    @property
    def doubled(self) -> int:
        """How many verdicts and interventions are surplus."""
        return self.verdicts.total() - len(self.verdicts) + self.doubled_cuts
