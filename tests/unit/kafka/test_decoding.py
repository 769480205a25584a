"""Records become events, dead letters or skipped records."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Message
from structlog.testing import capture_logs

from tests.shown import shown
from workers import telemetry
from workers.core.records import Finished, Source, TopicPartition
from workers.kafka.decoding import Decoding
from workers.mapping.document import parse_yaml
from workers.mapping.mapping import Mapping
from workers.moderation.reading import EventReader
from workers.settings import Settings

CONTENT = "I will find you"
VALUE = f'{{"event_id": "1", "tenant_id": "t", "text": "{CONTENT}"}}'.encode()


def test_an_unforeseen_error_of_decoding_makes_a_dead_letter_and_one_log_line_without_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(self: Mapping, record: Any, *_: object) -> None:
        raise RuntimeError(f"cannot read {record.value!r}") from ValueError(CONTENT)

    decoding = Decoding("dead", EventReader(Settings(), Mapping(parse_yaml("tenant_id: {value: t}", "mapping.yaml"))))
    message = Message(topic="chat", partition=3, offset=42, key=b"k", value=VALUE, headers=[("x", b"1")])
    source = Source(TopicPartition("chat", 3), 1, 42)
    before = shown("guardline_dead_letters_total", reason="not_readable")
    with monkeypatch.context() as broken, capture_logs() as lines:
        broken.setattr(Mapping, "events", failing)
        first, second = (decoding(message, source) for _ in range(2))
    assert isinstance(first, Finished)
    assert first == second
    assert first.counted == (telemetry.DEAD_LETTERS.labels("not_readable"),)
    assert shown("guardline_dead_letters_total", reason="not_readable") == before, "the commit counts it"
    (letter,) = first.outputs
    assert (letter.key, letter.value) == (b"k", VALUE)
    assert letter.headers is not None
    assert letter.headers[:3] == [("x", b"1"), ("reason", b"not_readable"), ("detail", b"RuntimeError")]
    (line,) = lines
    assert (line["error"], line["topic"], line["partition"], line["offset"]) == ("RuntimeError", "chat", 3, 42)
    assert "in failing" in line["traceback"]
    assert CONTENT not in str(line)
    events = decoding(message, source)
    assert isinstance(events, list)
    assert events[0].body["text"] == CONTENT
