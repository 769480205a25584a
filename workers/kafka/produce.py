"""Produces the lines of a file to the input topics of a worker, with keys that keep what belongs together in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple, TypeAlias, get_args

from confluent_kafka import KafkaException

from schemas.stream import StreamStep
from workers.core.decode import Decoded, decode
from workers.core.json_text import parse
from workers.errors import Fatal, Misconfigured, Skipped, Undecodable
from workers.kafka.route import Route, of_moderation
from workers.kafka.sending import Sending, topic_of
from workers.kafka.topics import require_inputs
from workers.settings import Settings

BEGINNING = 100
"""How many lines without a valid event are read before the input is refused."""

Destination: TypeAlias = tuple[str, bytes | None]
"""A topic and a key."""


class Kind(NamedTuple):
    """What the lines are.

    `destination` gives the place of a line among the input topics. It raises `Undecodable` if the worker makes a dead
    letter of the line, `Skipped` if the worker skips it, and `Misconfigured` if the line must not be sent at all. None:
    the lines are not checked, and each goes to the first topic without a key.
    """

    noun: str
    route: Route
    destination: Callable[[Sequence[str], bytes], Destination] | None


def messages(settings: Settings) -> Kind:
    """Give the events of the moderation worker.

    The topic is the first one whose name ends in the event's surface (chat, comments), or the first topic. The key is
    the event's `attributes.conversation_id`, or its author, or its id. With `events.mapping` no line is checked.
    """

    def destination(inputs: Sequence[str], value: bytes) -> Destination:
        if is_stream_event(value):
            raise Misconfigured("is a stream event: send it with `guardline produce --streams`")
        return _destination(inputs, decode(value, settings.events))

    return Kind("event", of_moderation(settings), destination if settings.events.mapping is None else None)


class Produced(NamedTuple):
    """The number of records sent, the number of those that are not valid events, and the first error among these.

    `is_stopped`: Ctrl-C ended it before the last line.
    """

    sent: int
    bad: int
    first: str
    is_stopped: bool


def produce(
    settings: Settings,
    kind: Kind,
    lines: Iterable[bytes],
    sent: Callable[[int], None],
    fill: Callable[[int], Mapping[str, str]] | None = None,
) -> Produced:
    """Produce each non-empty line as it is; return the counts.

    With `fill`, a line that is an object gets its missing fields from what `fill` gives for its number among the
    non-empty lines. So the rows of a file become events.

    A line that is not a valid event goes to the first topic without a key, and the worker makes a dead letter of it.
    Nothing is sent before the first valid event is found.

    Guarantee: when it returns, the brokers have accepted all lines. When it ends early, by Ctrl-C or because a line
    cannot be read or sent, they have accepted all lines before that one. `sent` gets the size of each line. Blocks.

    Raises:
        Unavailable: Kafka or an input topic is not available.
        Misconfigured: Kafka refuses this client, the beginning of the input holds no valid event, or a line must not be
            sent.
        Fatal: a record was refused, or Kafka stopped answering.
    """
    inputs = require_inputs(kind.route)
    sending = Sending(settings.kafka)
    bad = 0
    first = ""
    refusal: Misconfigured | Fatal | None = None
    is_stopped = False
    with sending:
        try:
            if (read := kind.destination) is not None:
                lines = with_a_valid_event(lines, lambda value: read(inputs, value), kind.noun, fill)
            for number, line in enumerate(lines, 1):
                sent(len(line))
                value = line.strip()
                if not value:
                    continue
                if fill is not None:
                    value = filled(value, fill(sending.count + 1))
                destination: Destination = (inputs[0], None)
                try:
                    if read is not None:
                        destination = read(inputs, value)
                except Undecodable as error:
                    bad, first = bad + 1, first or f"line {number}: {error.detail}"
                except Skipped:
                    pass  # It is sent as it is, and the worker skips it.
                except Misconfigured as error:
                    refusal = Misconfigured(f"line {number} {error}. {_before(sending.count)}")
                    break
                try:
                    sending.send(*destination, value)
                except KafkaException as error:
                    refusal = Fatal(f"line {number} cannot be sent: {error.args[0].str()}. {_before(sending.count)}")
                    break
                if sending.has_refusals:
                    break
        except KeyboardInterrupt:
            is_stopped = True
    sending.check(kind.route.setting_of(inputs[0]))
    if refusal is not None:
        raise refusal
    return Produced(sending.count, bad, first, is_stopped)


def _before(count: int) -> str:
    return f"The {count} records before it were sent"


def with_a_valid_event(
    lines: Iterable[bytes],
    read: Callable[[bytes], object],
    noun: str,
    fill: Callable[[int], Mapping[str, str]] | None = None,
) -> Iterator[bytes]:
    """Return the same lines, after one of the first `BEGINNING` was found to be an event. Lines may be empty.

    Raises:
        Misconfigured: none of them is, or one must not be sent.
    """
    source, held, first = iter(lines), list[bytes](), ""
    for line in islice(source, BEGINNING):
        held.append(line)
        value = line.strip()
        if not value:
            continue
        try:
            read(value if fill is None else filled(value, fill(1)))
            return chain(held, source)
        except Skipped:
            return chain(held, source)
        except Misconfigured as error:
            raise Misconfigured(f"nothing was sent: line {len(held)} {error}") from None
        except Undecodable as error:
            first = first or f"line {len(held)}: {error.detail}"
    if first:
        which = "the first line holds" if len(held) == 1 else f"the first {len(held)} lines hold"
        raise Misconfigured(f"nothing was sent: {which} no valid {noun}; {first}")
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


def is_stream_event(value: bytes) -> bool:
    """Say whether a line is a step of a stream. With a tenant and a text it could be read as a message, too."""
    if b'"stream_id"' not in value:
        return False
    try:
        row = parse(value)
    except Undecodable:
        return False
    return isinstance(row, dict) and "seq" in row and row.get("kind") in get_args(StreamStep)


def _destination(inputs: Sequence[str], decoded: Decoded) -> Destination:
    event = decoded.event
    conversation = event.get("attributes", {}).get("conversation_id")
    own_id = None if "event_id" in decoded.ignored_fields else event["event_id"]
    key = conversation or event.get("author_id") or own_id
    return topic_of(inputs, event["surface"]), None if key is None else str(key).encode()
