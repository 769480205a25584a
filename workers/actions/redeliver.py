"""Makes deliveries again: those of dead letters, and those that never arrived. Calls an endpoint for a test."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import cast

from msgspec import Struct

from workers.actions.authors import is_forgotten
from workers.actions.client import Client
from workers.actions.delivery import Answer, Delivery
from workers.actions.format import Format
from workers.actions.formats import format_of
from workers.actions.letters import AUTHOR, DELIVERED, FORGOTTEN, HAPPENED, Letters
from workers.actions.secrets import Secrets
from workers.actions.sender import Calls, Ended, Sender
from workers.actions.webhook import Webhook
from workers.core.decide import compact
from workers.core.forgotten import Forgotten
from workers.core.marks import written_time
from workers.core.records import Source, TopicPartition
from workers.errors import Misconfigured
from workers.kafka.forgetting import forgotten
from workers.kafka.reader import wait_for_open_transactions
from workers.kafka.replay import Stored, note, session_of, stored_letters
from workers.kafka.sending import Sending
from workers.settings import Retry, Settings
from workers.settings.action_sections import Endpoint, Kind

CHUNK = 100
"""How many deliveries are made before Kafka notes them. A run that is killed in between makes as many twice."""

LOOK_S = 0.02
"""How often a run looks whether its deliveries have ended."""

RETRY = Retry(first_s=0.5, max_s=5, give_up_after_s=30)
"""A person waits for the command, and can repeat it."""

TEST_SOURCE = Source(TopicPartition("", 0), 0, 0)


class Redelivered(Struct):
    """How many of the wanted dead letters a run has delivered, and why it has not delivered the others."""

    delivered: int = 0
    failed: int = 0
    """The endpoint refused them again, or did not answer. They stay dead letters."""
    unwanted: int = 0
    delivered_before: int = 0
    not_deliveries: int = 0
    """They are records that no delivery could be made of, or hold only the beginning of one."""
    forgotten: int = 0
    """Their authors were forgotten: they are not made, and later runs leave them out."""
    is_stopped: bool = False
    """Whether the endpoint failed, so that the run ended before the last dead letter."""
    reason: str = ""
    """The last failure."""


async def redeliver(
    settings: Settings, endpoint: Endpoint, is_wanted: Callable[[Stored], bool], counts: Redelivered
) -> None:
    """Make the deliveries of the wanted dead letters again, in the order of each key. `counts` is updated.

    Guarantee: each is made at least once and with its own id, and is noted in Kafka after the endpoint has accepted it.
    Later runs leave it out. A run stops when the endpoint fails, or wants no calls for a longer time.

    Raises:
        Unavailable, Misconfigured: Kafka or a topic is not there, or a file of the endpoint cannot be used.
        Fatal: a transaction failed, or another run has fenced this one.
    """
    endpoint = endpoint.model_copy(update={"retry": RETRY})
    form = format_of(endpoint, Secrets(endpoint), settings.events.carry_attributes)
    known = await asyncio.to_thread(forgotten, settings)
    letters = Letters(endpoint, settings.topics.deliveries)
    topics = settings.topics.model_copy(update={"dead_letters": endpoint.dead_letters})
    session = session_of(
        settings.kafka, f"actions.{endpoint.name}.redeliver", [endpoint.dead_letters, topics.deliveries]
    )
    await asyncio.to_thread(wait_for_open_transactions, settings.kafka, endpoint.dead_letters)
    stored = _wanted(settings.model_copy(update={"topics": topics}), is_wanted, counts)
    async with Client(endpoint, form.answer_bytes) as client:
        while chunk := await asyncio.to_thread(lambda: dict(islice(stored, CHUNK))):
            done: list[tuple[Delivery, str]] = []

            def ended(delivery: Delivery, reason: str | None, done: list[tuple[Delivery, str]] = done) -> None:
                if reason is None or reason == FORGOTTEN:
                    done.append((delivery, reason or DELIVERED))
                else:
                    counts.failed += 1
                    counts.reason = delivery.reason

            deliveries = [delivery for _, delivery in chunk.values()]
            counts.is_stopped = await _make(endpoint, form, client, deliveries, ended, known)
            now_s = time.time()
            outputs = [letters.record(one, outcome, now_s, is_repeat=True) for one, outcome in done]
            letters_done = [chunk[(one.source.origin, one.source.offset)][0] for one, _ in done]
            await asyncio.to_thread(note, session, settings.kafka, letters_done, outputs)
            counts.delivered += sum(outcome == DELIVERED for _, outcome in done)
            counts.forgotten += sum(outcome == FORGOTTEN for _, outcome in done)
            if counts.is_stopped:
                reasons = (one.reason for one in deliveries if one.reason)
                counts.reason = counts.reason or next(reasons, "the endpoint fails")
                return


async def resend(
    settings: Settings, endpoint: Endpoint, form: Format, deliveries: Sequence[Delivery]
) -> list[Delivery]:
    """Make deliveries that never arrived, in the order of each key. Return those that were not accepted.

    Guarantee: a delivery has its record in `topics.deliveries` only after the endpoint has accepted it, or if its
    author was forgotten. If the process ends in between, the next run makes the delivery again, with the same id.

    Raises:
        Unavailable, Misconfigured, Fatal: Kafka is not available, or refuses the records.
    """
    endpoint = endpoint.model_copy(update={"retry": RETRY})
    letters = Letters(endpoint, settings.topics.deliveries)
    known = await asyncio.to_thread(forgotten, settings)
    left = {(one.source.origin, one.source.offset): one for one in deliveries}
    with Sending(settings.kafka) as sending:

        def ended(delivery: Delivery, reason: str | None) -> None:
            if reason is None or reason == FORGOTTEN:
                del left[(delivery.source.origin, delivery.source.offset)]
                output = letters.record(delivery, reason or DELIVERED, time.time(), is_repeat=True)
                sending.send(output.topic, output.key, output.value or b"")

        async with Client(endpoint, form.answer_bytes) as client:
            await _make(endpoint, form, client, deliveries, ended, known)
    sending.check("topics.deliveries", settings.topics.deliveries)
    return list(left.values())


async def _make(
    endpoint: Endpoint, form: Format, client: Calls, deliveries: Sequence[Delivery], ended: Ended, known: Forgotten
) -> bool:
    """Make deliveries until each has ended, or the endpoint fails. Return whether it fails."""
    failures: list[BaseException] = []
    sender = Sender(
        endpoint,
        form,
        client,
        ended=ended,
        is_current=lambda _: True,
        is_forgotten=partial(is_forgotten, known),
        gone=lambda: None,  # The summary of the command says it.
        fail=failures.append,
    )
    try:
        sender.submit(deliveries)
        while not failures and sender.waiting and not (sender.is_idle and sender.is_held(RETRY.max_s)):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        if failures:
            raise failures[0]
        return bool(sender.waiting) or sender.is_held(RETRY.max_s)
    finally:
        await sender.close()


Place = tuple[TopicPartition, int]


def _wanted(
    settings: Settings, is_wanted: Callable[[Stored], bool], counts: Redelivered
) -> Iterator[tuple[Place, tuple[Stored, Delivery]]]:
    """Give the wanted dead letters that were not delivered before, each with its place and its delivery."""
    given: set[tuple[Kind, str]] = set()
    for stored in stored_letters(settings):
        if stored is None:
            continue
        delivery = delivery_of(stored)
        if delivery is None:
            counts.not_deliveries += 1
        elif not is_wanted(stored):
            counts.unwanted += 1
        elif stored.is_sent or (delivery.kind, delivery.id) in given:
            counts.delivered_before += 1
        else:
            given.add((delivery.kind, delivery.id))
            yield (stored.place, stored.offset), (stored, delivery)


def delivery_of(stored: Stored) -> Delivery | None:
    """Return the delivery that a dead letter holds, or None if it holds none. Its source is the dead letter's place."""
    own = {name: (value or b"").decode("utf-8", "replace") for name, value in stored.letter.own}
    happened_ms = own.get(HAPPENED, "0")
    if stored.letter.is_truncated or stored.value is None or not {"webhook-id", "kind", "tenant.id"} <= own.keys():
        return None
    if not happened_ms.isdecimal():
        return None
    source = Source(stored.place, 0, stored.offset)
    kind = cast(Kind, own["kind"])
    return Delivery(
        source,
        stored.key or b"",
        own["webhook-id"],
        kind,
        own["tenant.id"],
        stored.value,
        stored.timestamp_ms,
        own.get(AUTHOR),
        int(happened_ms),
    )


async def send_test(endpoint: Endpoint) -> tuple[Answer, float]:
    """Make one signed call that a receiver can tell from all others; return the answer, and its time in seconds.

    Raises:
        Misconfigured: the endpoint has another format than `webhook`, or a file of it cannot be used.
        Unavailable: there is no answer.
    """
    form = format_of(endpoint, Secrets(endpoint))
    if not isinstance(form, Webhook):
        raise Misconfigured(f"{endpoint.name}: only an endpoint with the format webhook can be called for a test")
    now_s = time.time()
    body = compact(
        {
            "type": "guardline.test",
            "timestamp": written_time(now_s).decode(),
            "data": {"endpoint": endpoint.name},
        }
    )
    delivery = Delivery(TEST_SOURCE, b"", f"test-{secrets.token_hex(8)}", "verdict", "", body, int(now_s * 1000))
    began = time.monotonic()
    async with Client(endpoint, form.answer_bytes) as client:
        answer = await client.send(form.call([delivery], now_s))
    return answer, time.monotonic() - began
