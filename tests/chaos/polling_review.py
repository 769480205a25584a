"""The review worker's own command, which reads its items only after its Kafka thread has polled: a long start.

Brokers remove a member that does not poll for `kafka.max_poll_interval_s`. The start ends if the thread does not poll,
or reads nothing, while the items are being read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from workers.cli import app as cli
from workers.errors import Fatal
from workers.kafka.loop import KafkaThread
from workers.review import worker
from workers.review.item import Item
from workers.review.reading import Work
from workers.review.rebuilding import rebuilt
from workers.settings import Settings

TURNS = 20
WITHIN_S = 60

threads: list[KafkaThread[Work]] = []


class Noted(KafkaThread[Work]):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        threads.append(self)


def rebuilt_late(settings: Settings) -> Iterable[Item]:
    (thread,) = threads
    first, end = thread.turns, time.monotonic() + WITHIN_S
    while thread.turns < first + TURNS or not thread.left:
        if time.monotonic() > end:
            raise Fatal("the Kafka thread does not poll while the items are read")
        time.sleep(0.01)
    return rebuilt(settings)


def main() -> None:
    setattr(worker, "KafkaThread", Noted)  # noqa: B010 - mypy refuses a plain assignment
    setattr(worker, "rebuilt", rebuilt_late)  # noqa: B010
    sys.argv = ["guardline", "worker", "review"]
    cli.main()


if __name__ == "__main__":
    main()
