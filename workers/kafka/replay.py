"""Sends the messages of dead letters to their input topics again, each once, even if runs are repeated or killed.

A run commits each message in one transaction with a note in the topic of dead letters. A message with a note was sent.
All runs of a group share one transactional id. So a new run fences an older one, and aborts what a killed run had not
committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec import Struct

from workers.core.dead_letters import Letter, note_of, noted_offset, read_letter
from workers.core.records import Headers, Output, TopicPartition
from workers.errors import Fatal, Undecodable
from workers.kafka import clients
from workers.kafka.intake import headers_of
from workers.kafka.reader import read, wait_for_open_transactions
from workers.kafka.route import of_moderation
from workers.kafka.transactions import ProducerSession
from workers.settings import Kafka, Settings

log = structlog.get_logger(__name__)

TRANSACTION_RECORDS = 500
"""The most messages in one transaction."""

TRANSACTION_BYTES = 8_000_000

BATCH_BYTES = 16_384
"""A topic limits the size of a batch. A larger batch of messages that are small enough would be refused."""

REFUSALS = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD}
"""What Kafka says of a message whenever it is sent. The header that a replay adds can make a message too large."""

ATTEMPTS = 2
"""After a refusal librdkafka goes on with a gap in its sequence numbers, so one more transaction has to be aborted."""

ABORT_S = 1.0

RUN_ID = "dead-letters-replay"
"""Takes the place of a worker's id in the transactional id."""


class Stored(Struct, frozen=True):
    """A dead letter in its topic."""

    place: TopicPartition
    offset: int
    key: bytes | None
    """The key of its record."""
    value: bytes | None
    timestamp_ms: int
    letter: Letter
    identity: bytes
    """See `Letter.identity`."""
    is_sent: bool
    """Whether its message was sent again, for this dead letter or for another one of the same record."""


class Replayed(Struct):
    """How many of the wanted dead letters a run has sent, and why it has not sent the others."""

    sent: int = 0
    unwanted: int = 0
    """The condition of the run left them out."""
    sent_before: int = 0
    """An earlier run has sent their messages, or this run has, for another dead letter of the same record."""
    returned: int = 0
    """Their messages became dead letters again after an earlier run."""
    truncated: int = 0
    """They hold only the beginning of their message."""
    elsewhere: int = 0
    """Their topic is not one of the input topics, or the topic or its partition does not exist any more."""
    refused: int = 0
    """Kafka refused their messages."""


def stored_letters(settings: Settings) -> Iterator[Stored | None]:
    """Give the dead letters in the topic, in order within each partition, and None after an interval without one.

    Dead letters that workers write during the call may be left out. Blocks while the brokers are down.

    Raises:
        Unavailable, Misconfigured: see `workers.kafka.reader.read`.
    """
    # All notes are read first. A note comes after its dead letter, in the same partition.
    ends: dict[TopicPartition, int] = {}
    identities: dict[tuple[TopicPartition, int], bytes] = {}
    sent: set[bytes] = set()
    for message in _read(settings):
        if message is not None:
            place, offset = _place_of(message)
            ends[place] = offset
            headers = _headers_of(message)
            letter, noted = read_letter(headers), noted_offset(headers)
            if letter is not None:
                identities[(place, offset)] = letter.identity(message.value())
            elif noted is not None and (identity := identities.get((place, noted))) is not None:
                sent.add(identity)
    for message in _read(settings):
        if message is None:
            yield None
            continue
        place, offset = _place_of(message)
        letter = read_letter(_headers_of(message)) if offset <= ends.get(place, -1) else None
        if letter is not None:
            identity = letter.identity(message.value())
            _, timestamp_ms = message.timestamp()
            key = None if letter.is_keyless else message.key()
            yield Stored(place, offset, key, message.value(), timestamp_ms, letter, identity, identity in sent)


def planned(
    settings: Settings, is_wanted: Callable[[Stored], bool], counts: Replayed, *, returned_too: bool = False
) -> Iterator[Stored]:
    """Give the wanted dead letters whose messages a run sends, and count the others.

    `returned_too`: also messages that became dead letters again after an earlier run.
    """
    route = of_moderation(settings)
    present = clients.present_topics(clients.admin(settings.kafka), settings.kafka)
    places = {(name, n) for name, topic in present.items() if route.is_input(name) for n in topic.partitions}
    given: set[bytes] = set()
    for stored in stored_letters(settings):
        if stored is None:
            continue
        if not is_wanted(stored):
            counts.unwanted += 1
            continue
        letter = stored.letter
        if stored.is_sent or stored.identity in given:
            counts.sent_before += 1
        elif letter.is_truncated:
            counts.truncated += 1
        elif letter.origin not in places:
            counts.elsewhere += 1
        elif letter.first_position is not None and not returned_too:
            counts.returned += 1
        else:
            given.add(stored.identity)
            yield stored


def replay(
    settings: Settings,
    is_wanted: Callable[[Stored], bool],
    counts: Replayed,
    *,
    rate: float | None = None,
    returned_too: bool = False,
) -> None:
    """Send the messages of the wanted dead letters to their original partitions, at most `rate` a second.

    `counts` is updated after each commit. `returned_too`: see `planned`.

    Guarantee: all runs together send the message of a dead letter once, however they end. A message that Kafka refuses
    does not prevent that the others are sent. Blocks.

    Raises:
        Unavailable, Misconfigured: Kafka or a topic is not there, or this client may not use it.
        Fatal: a transaction failed, or another run may have fenced this one. The messages committed before are sent.
    """
    topics = settings.topics
    session = session_of(settings.kafka, RUN_ID, [*topics.inputs, topics.dead_letters])
    # The transaction of an earlier run has ended now. Its notes are visible once no open transaction hides them.
    wait_for_open_transactions(settings.kafka, topics.dead_letters)
    size = TRANSACTION_RECORDS if rate is None else max(1, min(TRANSACTION_RECORDS, int(rate)))
    started = time.monotonic()
    letters = planned(settings, is_wanted, counts, returned_too=returned_too)
    for batch in _batches(letters, size):
        _send(session, settings.kafka, batch, counts)
        if rate is not None:
            time.sleep(max(0.0, started + counts.sent / rate - time.monotonic()))


def session_of(kafka: Kafka, run_id: str, topics: Sequence[str]) -> ProducerSession:
    """Return the transactional producer of a run that writes these topics. It fences an earlier run with this id.

    Raises:
        Unavailable, Misconfigured: Kafka does not answer, or refuses transactions.
    """
    return ProducerSession(kafka, run_id, dict.fromkeys(topics, BATCH_BYTES))


def note(session: ProducerSession, kafka: Kafka, stored: Sequence[Stored], outputs: Sequence[Output]) -> None:
    """Note that these dead letters were delivered, and write these outputs, in one transaction. Blocks.

    Raises:
        Fatal: the transaction failed, or another run may have fenced this one.
    """
    if not stored:
        return
    deadline = time.monotonic() + kafka.transaction_timeout_s
    session.ready(deadline)
    producer = session.producer

    def ignored(_: KafkaError | None, __: Message) -> None:
        """The commit fails if a record of the transaction was refused."""

    try:
        producer.begin_transaction()
        for one in stored:
            _produce(producer, one.place, one.key, None, note_of(one.offset), ignored)
        for output in outputs:
            producer.produce(output.topic, output.value, output.key)
        producer.commit_transaction(max(0.1, deadline - time.monotonic()))
    except KafkaException as error:
        session.give_up(ABORT_S)
        raise _failure(error.args[0].str()) from error


def _batches(letters: Iterable[Stored], count: int) -> Iterator[list[Stored]]:
    batch: list[Stored] = []
    size = 0
    for stored in letters:
        batch.append(stored)
        size += len(stored.value or b"")
        if len(batch) >= count or size >= TRANSACTION_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _send(session: ProducerSession, kafka: Kafka, batch: list[Stored], counts: Replayed) -> None:
    """Send some messages, without those that Kafka refuses. Halves find them: Kafka may refuse several at once."""
    for _ in range(ATTEMPTS):
        cause = _commit(session, kafka, batch)
        if cause is None or cause.code() in REFUSALS:
            break
    if cause is None:
        counts.sent += len(batch)
        return
    if cause.code() not in REFUSALS:
        raise _failure(cause.str())
    if len(batch) == 1:
        counts.refused += 1
        log.warning("Kafka refused a message", position=batch[0].letter.position, reason=cause.str())
        return
    half = len(batch) // 2
    _send(session, kafka, batch[:half], counts)
    _send(session, kafka, batch[half:], counts)


def _commit(session: ProducerSession, kafka: Kafka, batch: list[Stored]) -> KafkaError | None:
    """Send some messages and their notes in one transaction. Give the cause if it was aborted: nothing was sent.

    The plan is older than the notes of a run that fenced this one. A new producer would not be fenced, and would send
    the messages of that run again. So a run ends where its producer has to be replaced.
    """
    planned_with = session.producer
    deadline = time.monotonic() + kafka.transaction_timeout_s
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)

    session.ready(deadline)
    producer = session.producer
    if producer is not planned_with:
        raise _failure("the connection broke, and another replay may have sent them meanwhile")
    try:
        producer.begin_transaction()
        for stored in batch:
            letter = stored.letter
            _produce(producer, stored.place, stored.key, None, note_of(stored.offset), delivered)
            _produce(producer, letter.origin, stored.key, stored.value, letter.headers_to_send(), delivered)
        producer.commit_transaction(max(0.1, deadline - time.monotonic()))
    except KafkaException as error:
        last: KafkaError = error.args[0]
        refusal = next((failure for failure in [*failures, last] if failure.code() in REFUSALS), None)
        if refusal is None and not last.txn_requires_abort():
            session.give_up(ABORT_S)
            raise _failure((failures or [last])[0].str()) from error
        if last is refusal:
            # The client tells the broker the end of a transaction only if it has sent a record, here at least the note.
            producer.flush(max(0.1, deadline - time.monotonic()))
        session.give_up(max(ABORT_S, deadline - time.monotonic()))
        return refusal or last
    except BaseException:
        session.give_up(ABORT_S)
        raise
    return None


def _failure(cause: str) -> Fatal:
    return Fatal(f"dead letters could not be sent again: {cause}. Run the command again to go on")


def _produce(
    producer: Producer,
    destination: TopicPartition,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    delivered: Callable[[KafkaError | None, Message], None],
) -> None:
    while True:
        try:
            producer.produce(
                destination.topic,
                value,
                key,
                partition=destination.partition,
                headers=[*headers],
                on_delivery=delivered,
            )
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _read(settings: Settings) -> Iterator[Message | None]:
    return read(settings.kafka, [settings.topics.dead_letters], from_beginning=True, follow=False)


def _place_of(message: Message) -> tuple[TopicPartition, int]:
    return TopicPartition(str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)


def _headers_of(message: Message) -> Headers:
    try:
        return headers_of(message)
    except Undecodable:
        return []
