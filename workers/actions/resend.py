"""Makes deliveries again that never arrived, for `guardline actions reconcile --resend`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from workers.actions.client import Client
from workers.actions.delivery import Answer, Call, Delivery, Meaning, Result
from workers.actions.format import Format
from workers.actions.letters import DELIVERED, Letters
from workers.errors import Unavailable
from workers.kafka.sending import Sending
from workers.settings import Settings
from workers.settings.action_sections import Endpoint

Send = Callable[[Call], Awaitable[Answer]]

ATTEMPTS = 3
WAIT_S = 1.0
"""Before another attempt; longer if the endpoint says so, up to `MAX_WAIT_S`."""
MAX_WAIT_S = 30.0


async def resend(
    settings: Settings, endpoint: Endpoint, form: Format, deliveries: Sequence[Delivery]
) -> list[Delivery]:
    """Make deliveries, in their order, and write a record for each that was accepted. Return those that were not.

    Guarantee: a delivery has its record in `topics.deliveries` only after the endpoint has accepted it. If the process
    ends in between, the next run makes the delivery again, with the same id.

    Raises:
        Misconfigured, Fatal: Kafka refuses the records.
    """
    letters = Letters(endpoint, settings.topics.deliveries)
    with Sending(settings.kafka) as sending:

        def note(delivery: Delivery) -> None:
            output = letters.record(delivery, DELIVERED, time.time(), is_repeat=True)
            sending.send(output.topic, output.key, output.value or b"", headers=dict(output.headers or ()))

        async with Client(endpoint, form.answer_bytes) as client:
            failed = await _make(form, client.send, deliveries, note)
    sending.check()
    return failed


async def _make(
    form: Format, send: Send, deliveries: Sequence[Delivery], note: Callable[[Delivery], None]
) -> list[Delivery]:
    failed: list[Delivery] = []
    waiting = list(deliveries)
    while waiting:
        again: list[Delivery] = []
        wait_s = WAIT_S
        for batch in _batches(waiting, form.max_batch):
            for delivery, result in zip(batch, await _attempt(form, send, batch), strict=True):
                delivery.reason, delivery.is_single = result.reason, result.is_single
                if result.meaning is Meaning.ACCEPTED:
                    note(delivery)
                elif result.meaning is Meaning.GONE or delivery.attempts >= ATTEMPTS:
                    failed.append(delivery)
                else:
                    again.append(delivery)
                    wait_s = max(wait_s, min(result.after_s or 0.0, MAX_WAIT_S))
        waiting = again
        if waiting:
            await asyncio.sleep(wait_s)
    return failed


async def _attempt(form: Format, send: Send, batch: Sequence[Delivery]) -> Sequence[Result]:
    now_s = time.time()
    for delivery in batch:
        delivery.attempts += 1
        delivery.last_attempt_ms = int(now_s * 1000)
        delivery.first_attempt_ms = delivery.first_attempt_ms or delivery.last_attempt_ms
    try:
        answer = await send(form.call(batch, now_s))
    except Unavailable as error:
        return [Result(Meaning.FAILED, str(error))] * len(batch)
    for delivery in batch:
        delivery.status = answer.status
    return form.read(batch, answer)


def _batches(deliveries: Sequence[Delivery], most: int) -> Iterator[list[Delivery]]:
    batch: list[Delivery] = []
    for delivery in deliveries:
        if delivery.is_single:
            yield [delivery]
            continue
        batch.append(delivery)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch
