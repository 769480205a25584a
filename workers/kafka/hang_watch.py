"""Detects a Kafka thread that hangs in a call. Runs in the event loop and must never wait for that thread."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from workers.core.records import NOTHING_LOST
from workers.errors import Fatal
from workers.kafka.loop import KafkaThread
from workers.settings import Kafka

WATCH_S = 1.0
"""How often the event loop checks that the Kafka thread's loop still runs."""

HANGS = "a call to Kafka has not returned for {seconds:.0f} s. " + NOTHING_LOST


async def watch(thread: KafkaThread[Any], kafka: Kafka) -> None:
    """Watch until cancelled. Counts its own ticks instead of reading a clock, so a frozen process is not a hang.

    Raises:
        Fatal: the thread hangs. librdkafka does not keep every timeout that it is given.
    """
    # A commit and its abort may take the transaction's timeout each, and a revoke in the same turn the same again.
    limit = math.ceil((4 * kafka.transaction_timeout_s + 5) / WATCH_S)
    turns, ticks = thread.turns, 0
    while ticks < limit:
        await asyncio.sleep(WATCH_S)
        turns, ticks = thread.turns, ticks + 1 if turns == thread.turns else 0
    raise Fatal(HANGS.format(seconds=limit * WATCH_S))
