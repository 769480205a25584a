"""Counts what a read_committed reader sees of the demo's records."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import orjson
from confluent_kafka import Message

from infra.demo.consequences import Seen
from infra.demo.platform import TOPIC, Platform
from workers.kafka.intake import headers_of
from workers.settings import Settings

Position = tuple[str, int, int]


class Tally:
    """The outcomes that a read_committed reader has seen so far."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seen = Seen(say)
        self.platform = Platform()
        self.outputs: Counter[Position] = Counter()
        self.to_review: set[Position] = set()
        self.reviewed: Counter[Position] = Counter()
        self.decisions: dict[str, Counter[str]] = defaultdict(Counter)
        self.by_text: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
        self.assessments: dict[str, dict[str, Any]] = {}
        self.samples: list[str] = []
        self.verdicts = self.dead_letters = self.duplicates = 0
        self.first_verdict_at: float | None = None

    def take(self, message: Message, settings: Settings, texts: dict[str, str]) -> None:
        """Count one verdict, review item or dead letter."""
        if message.topic() == settings.topics.dead_letters:
            headers = {name: value or b"" for name, value in headers_of(message)}
            self.outputs[
                (headers["source.topic"].decode(), int(headers["source.partition"]), int(headers["source.offset"]))
            ] += 1
            self.dead_letters += 1
            return
        verdict: dict[str, Any] = orjson.loads(message.value() or b"")
        if self.seen.take(str(message.topic()), verdict, settings):
            return
        source = verdict["source"]
        position = (source["topic"], source["partition"], source["offset"])
        if source["topic"] == TOPIC:
            if message.topic() == settings.topics.verdicts:
                self.platform.take(verdict)
            return
        if message.topic() == settings.topics.review:
            self.reviewed[position] += 1
            return
        self.outputs[position] += 1
        if verdict["decision"] == "review":
            self.to_review.add(position)
        self.verdicts += 1
        self.first_verdict_at = self.first_verdict_at or time.monotonic()
        self.duplicates += verdict["duplicate_of"] is not None
        self.decisions[verdict["tenant_id"]][verdict["decision"]] += 1
        opinion = verdict["assessment"]["severity"] if verdict["assessment"] else "no judgement"
        text = texts.get(verdict["event_id"].removesuffix("-again"), "")
        if verdict["assessment"]:
            self.assessments[text] = verdict["assessment"]
        self.by_text[(verdict["tenant_id"], text)].append((verdict["decision"], verdict["policy"]["version"]))
        self.samples = [
            *self.samples[-5:],
            f"{verdict['decision']:<6} {verdict['tenant_id']:<8} {opinion:<13} {text[:70]}",
        ]
