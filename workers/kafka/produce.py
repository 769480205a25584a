"""Produces events from JSON lines to the input topics, with keys that keep a conversation in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

from confluent_kafka import KafkaException

from workers.core.decode import Decoded, decode
from workers.core.json_text import parse
from workers.errors import Fatal, Misconfigured, Skipped, Undecodable
from workers.kafka.route import of_moderation
from workers.kafka.sending import Sending, topic_of
from workers.kafka.topics import require_inputs
from workers.settings import Events, Settings

BEGINNING = 100
"""How many lines without a valid event are read before the input is refused."""


class Produced(NamedTuple):
    """The number of records sent, the number of those that are not valid events, and the first error among these.

    `is_stopped`: Ctrl-C ended it before the last line.
    """

    sent: int
    bad: int
    first: str
    is_stopped: bool


def produce(
    settings: Settings, lines: Iterable[bytes], sent: Callable[[int], None], fill: Mapping[str, str] | None = None
) -> Produced:
    """Produce each non-empty line as it is; return the counts.

    With `fill`, a line that is an object gets the missing fields from it, and `row-N` as its `event_id`, where N is its
    number among the non-empty lines. So the rows of a file become events.

    The topic is the first one whose name ends in the event's surface (chat, comments), or the first topic. The key is
    the event's `attributes.conversation_id`, or its author, or its id. A line that is not a valid event goes to the
    first topic without a key, and the worker makes a dead letter of it. Nothing is sent before the first
    valid event is found. With `events.mapping` no line is checked, and each goes to the first topic without a key.

    Guarantee: when it returns, the brokers have accepted all lines. When it ends early, by Ctrl-C or because a line
    cannot be read or sent, they have accepted all lines before that one. `sent` gets the size of each line. Blocks.

    Raises:
        Unavailable: Kafka or an input topic is not available.
        Misconfigured: Kafka refuses this client, or the beginning of the input holds no valid event.
        Fatal: a record was refused, or Kafka stopped answering.
    """
    inputs = require_inputs(of_moderation(settings))
    sending = Sending(settings.kafka)
    bad = 0
    first = refused = ""
    is_stopped = False
    with sending:
        try:
            if settings.events.mapping is None:
                lines = with_a_valid_event(lines, settings.events, fill)
            for number, line in enumerate(lines, 1):
                sent(len(line))
                value = line.strip()
                if not value:
                    continue
                if fill is not None:
                    value = filled(value, {"event_id": f"row-{sending.count + 1}", **fill})
                destination: tuple[str, bytes | None] = (inputs[0], None)
                try:
                    if settings.events.mapping is None:
                        destination = _destination(inputs, decode(value, settings.events))
                except Undecodable as error:
                    bad, first = bad + 1, first or f"line {number}: {error.detail}"
                except Skipped:
                    pass  # It is sent as it is, and the worker skips it.
                try:
                    sending.send(*destination, value)
                except KafkaException as error:
                    refused = f"line {number} cannot be sent: {error.args[0].str()}"
                    break
                if sending.has_refusals:
                    break
        except KeyboardInterrupt:
            is_stopped = True
    sending.check()
    if refused:
        raise Fatal(f"{refused}. The {sending.count} records before it were sent")
    return Produced(sending.count, bad, first, is_stopped)


def with_a_valid_event(lines: Iterable[bytes], events: Events, fill: Mapping[str, str] | None) -> Iterator[bytes]:
    """Return the same lines, after one of the first `BEGINNING` was found to be an event. Lines may be empty.

    Raises:
        Misconfigured: none of them is.
    """
    source, held, first = iter(lines), list[bytes](), ""
    for line in islice(source, BEGINNING):
        held.append(line)
        value = line.strip()
        if not value:
            continue
        try:
            decode(value if fill is None else filled(value, {"event_id": "row", **fill}), events)
            return chain(held, source)
        except Skipped:
            return chain(held, source)
        except Undecodable as error:
            first = first or f"line {len(held)}: {error.detail}"
    if first:
        which = "the first line holds" if len(held) == 1 else f"the first {len(held)} lines hold"
        raise Misconfigured(f"nothing was sent: {which} no valid event; {first}")
    return chain(held, source)


def filled(value: bytes, fill: Mapping[str, str]) -> bytes:
    """Return an object with its missing fields filled; null and an empty string count as missing."""
    try:
        row = parse(value)
    except Undecodable:
        return value
    if not isinstance(row, dict):
        return value
    row |= {name: default for name, default in fill.items() if row.get(name) in (None, "")}
    # It writes halves of surrogate pairs and NaN as they were, and the worker reads them.
    return json.dumps(row).encode()


def _destination(inputs: Sequence[str], decoded: Decoded) -> tuple[str, bytes | None]:
    event = decoded.event
    conversation = event.get("attributes", {}).get("conversation_id")
    own_id = None if "event_id" in decoded.ignored_fields else event["event_id"]
    key = conversation or event.get("author_id") or own_id
    return topic_of(inputs, event["surface"]), None if key is None else str(key).encode()
