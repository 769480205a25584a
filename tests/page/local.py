"""The review worker without Kafka, for tests of its API and its page: a command is committed as soon as it is sent.

Everything else is the worker's own: the items, the rules, the service, the application.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from tests import reviewing
from tests.reviewing import review_item, verdict_id
from workers.core.records import Finished, Output, Record, Source, TopicPartition
from workers.errors import Unavailable
from workers.review.application import application
from workers.review.desk import Desk
from workers.review.people import Tokens
from workers.review.processing import Processor
from workers.review.reading import Reading
from workers.review.service import Service
from workers.review.terms import TenantRules, Terms
from workers.review.ticking import Ticking
from workers.settings import Review, Topics
from workers.settings.coop_sections import CoopCallbacks
from workers.settings.review_sections import ReviewToken

MINUTE_MS = 60_000
PEOPLE: dict[str, dict[str, Any]] = {
    **reviewing.PEOPLE,
    "mara": {"role": "reviewer"},
    "jonas": {"role": "reviewer"},
    "sena": {"role": "senior"},
    "otto": {"role": "auditor"},
    "bot": {"role": "service"},
}


def token_of(name: str) -> str:
    """Give the token of a person."""
    return f"{name}-" + "0123456789abcdef" * 2


def by(name: str, key: str | None = None) -> dict[str, str]:
    """Give the headers of a person's request. `key`: its Idempotency-Key."""
    own = {} if key is None else {"Idempotency-Key": key}
    return {"Authorization": f"Bearer {token_of(name)}", **own}


class LocalDesk:
    """One review desk in memory.

    `ahead_ms` moves its clock. Kafka refuses to store anything while `is_down`, and never answers while `is_silent`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        undo_s: float = 30,
        lease_s: float = 120,
        four_eyes: tuple[str, ...] = (),
        coop: CoopCallbacks | None = None,
        max_bytes: dict[str, int] | None = None,
        **settings: Any,
    ) -> None:
        tokens = []
        for name, about in PEOPLE.items():
            (folder / name).write_text(token_of(name))
            tokens.append(ReviewToken.model_validate({"name": name, "file": folder / name, **about}))
        self.settings = Review(tokens=tokens, undo_s=undo_s, lease_s=lease_s, coop=coop or CoopCallbacks(), **settings)
        self.topics = Topics()
        self.ahead_ms = 0
        self.is_down = self.is_silent = False
        self.outputs: list[Output] = []
        self._offset = 0
        self._reading = Reading(self.topics)
        self._four_eyes = frozenset(four_eyes)
        self.desk = Desk()
        self._finished: list[Finished] = []
        self._processor = Processor(
            self.desk,
            self.topics,
            terms=Terms(
                int(lease_s * 1000), int(undo_s * 1000), 3_600_000, 3_600_000, max_leases=self.settings.max_leases
            ),
            rules_of=lambda tenant: TenantRules(30 * MINUTE_MS, None, self._four_eyes),
            pipeline="test",
            now_ms=self.now_ms,
            deliver=self._finished.extend,
            max_bytes=max_bytes,
        )
        self._ticking = Ticking(self.desk, self._send, self.topics, self.now_ms)
        self.service = Service(self.desk, self._processor, self._send, self.settings, self.topics, self.now_ms)

    def now_ms(self) -> int:
        """Give the time of this desk."""
        return int(time.time() * 1000) + self.ahead_ms

    def app(self) -> FastAPI:
        """Make the application."""
        return application(self.service, Tokens(self.settings.tokens), self.settings, self.now_ms)

    def add(self, number: int, **changes: Any) -> str:
        """Let an item arrive, and give its id. Of two in one millisecond, the lower number is the older item."""
        item = review_item(number, self.now_ms() - 5 * MINUTE_MS + number, **changes)
        self._take(self.topics.review, json.dumps(item).encode(), b"room")
        return verdict_id(number)

    async def tick(self) -> None:
        """Let everything take effect whose time has come."""
        await self._ticking.tick()

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """The superseding verdicts that were written."""
        return [json.loads(one.value or b"") for one in self.outputs if one.topic == self.topics.verdicts]

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve the application on a free port. Gives its address."""
        config = uvicorn.Config(self.app(), port=0, lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)

    async def _send(self, output: Output) -> None:
        if self.is_down:
            raise Unavailable("kafka: nothing is stored")
        if self.is_silent:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        self._take(output.topic, output.value, output.key)

    def _take(self, topic: str, value: bytes | None, key: bytes) -> None:
        self._offset += 1
        source = Source(TopicPartition(topic, 0), 1, self._offset, None, self.now_ms())
        self._processor.submit(self._reading(Record(value, key, topic=topic), source))
        finished, self._finished[:] = list(self._finished), []
        self.outputs += [output for one in finished for output in one.outputs]
        self._processor.committed(finished)
