"""Compares what an endpoint was to get with what became of it, by the topics alone. It reads, and changes nothing.

The worker commits a delivery's record together with the offset of its verdict. So a verdict below the committed offset
without such a record never arrived: the group's offsets were moved, expired, or an operator skipped records.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum

import msgspec

from workers.actions.delivery import Delivery
from workers.actions.format import Format
from workers.actions.letters import DELIVERED, FORGOTTEN
from workers.actions.reading import NOT_JSON, Reading
from workers.actions.route import route_of
from workers.core.frames import unframed
from workers.core.records import Finished, Headers, Record, Source, TopicPartition
from workers.errors import Undecodable
from workers.kafka.intake import headers_of
from workers.kafka.membership import committed
from workers.kafka.reader import CLOCKS_MS, read, wait_for_open_transactions
from workers.settings import Settings
from workers.settings.action_sections import Endpoint


class State(StrEnum):
    """What became of a delivery."""

    DELIVERED = "delivered"
    PENDING = "pending"
    """The worker has not committed it: it waits, is tried again, or the worker does not run."""
    GIVEN_UP = "given up"
    """It is in the endpoint's topic of dead letters."""
    FORGOTTEN = "forgotten"
    """Its author was forgotten before it was delivered."""
    MISSING = "missing"
    """Nothing is known of it, although the worker has passed it."""


STATES = {DELIVERED: State.DELIVERED, FORGOTTEN: State.FORGOTTEN}
"""The states after which nothing has to arrive, by the outcome of the record."""


class Compared(msgspec.Struct):
    """What became of the deliveries of one endpoint. `others` are those that have to arrive, the oldest first."""

    endpoint: str
    counts: dict[State, int]
    others: list[tuple[State, Delivery]]
    unreadable: int = 0
    """Records of the inputs that are no verdict, signal or review item: each is a dead letter."""

    @property
    def missing(self) -> list[Delivery]:
        """The deliveries that never arrived and that nobody will make."""
        return [delivery for state, delivery in self.others if state is State.MISSING]


class _Ended(msgspec.Struct):
    """The fields of a record of deliveries that count here."""

    id: str
    kind: str
    endpoint: str
    outcome: str


def compare(
    settings: Settings, endpoint: Endpoint, form: Format, *, since_ms: int | None, until_ms: int | None
) -> Compared:
    """Compare the records of a time window, by Kafka's timestamps in milliseconds since 1970. Blocks for Kafka.

    Guarantee: a delivery counts as missing only if its record was below the committed offset of the endpoint's group
    when the comparison began.

    Raises:
        Unavailable, Misconfigured: Kafka or a topic is not available, or this user may not read.
    """
    route = route_of(endpoint, settings)
    # In this order: what is committed after this line may look pending, and never missing.
    positions = committed(route, [*route.inputs])
    wait_for_open_transactions(settings.kafka, settings.topics.deliveries)
    outcomes = _outcomes(settings, endpoint.name, since_ms)
    found = Compared(endpoint.name, dict.fromkeys(State, 0), [])
    reading = Reading(endpoint, settings.topics, form)
    for record, source in records(settings, [*route.inputs], since_ms, until_ms):
        try:
            read_ = reading(record, source)
        except Undecodable:
            found.unreadable += 1
            continue
        for delivery in () if isinstance(read_, Finished) else read_:
            outcome = outcomes.get((delivery.kind, delivery.id))
            if outcome is not None:
                state = STATES.get(outcome, State.GIVEN_UP)
            else:
                state = State.PENDING if source.offset >= positions.get(source.origin, 0) else State.MISSING
            found.counts[state] += 1
            if state not in STATES.values():
                found.others.append((state, delivery))
    return found


def _outcomes(settings: Settings, endpoint: str, since_ms: int | None) -> dict[tuple[str, str], str]:
    """Return the outcome of each delivery by its kind and its id. One that was made again later counts as delivered."""
    outcomes: dict[tuple[str, str], str] = {}
    decoder = msgspec.json.Decoder(_Ended)
    # A delivery ends after its verdict was written, but perhaps by another clock.
    earliest_ms = None if since_ms is None else since_ms - CLOCKS_MS
    for record, _ in records(settings, [settings.topics.deliveries], earliest_ms, None):
        try:
            ended = decoder.decode(unframed(record.value or b""))
        except NOT_JSON:
            continue  # Of another program.
        of = (ended.kind, ended.id)
        if ended.endpoint == endpoint and outcomes.get(of) != DELIVERED:
            outcomes[of] = ended.outcome
    return outcomes


def records(
    settings: Settings, topics: list[str], since_ms: int | None, until_ms: int | None
) -> Iterator[tuple[Record, Source]]:
    """Give the committed records of a time window, with their positions, in the order of their timestamps. Blocks.

    Raises:
        Unavailable, Misconfigured: see `workers.kafka.reader.read`.
    """
    for message in read(settings.kafka, topics, from_beginning=True, follow=False, since_ms=since_ms):
        if message is None:
            continue
        timestamp_ms = message.timestamp()[1]
        if (since_ms is not None and timestamp_ms < since_ms) or (until_ms is not None and timestamp_ms >= until_ms):
            continue
        topic, partition, offset = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
        headers: Headers = []
        with suppress(Undecodable):  # The value decides.
            headers = headers_of(message)
        source = Source(TopicPartition(topic, partition), 0, offset, timestamp_ms)
        yield Record(message.value(), message.key(), headers, topic), source
