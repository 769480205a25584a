"""The whole review desk in one process: the API, the service and the processor, with a queue in the place of Kafka."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

from fastapi import FastAPI

from tests.reviewing import PEOPLE, now_ms, review_item
from tests.unit.review.given import TENANT, TERMS
from workers.core.records import Finished, Output, Record, Source, TopicPartition
from workers.review.api import create_app
from workers.review.desk import Desk
from workers.review.people import Tokens
from workers.review.processing import Processor
from workers.review.reading import Reading, Work
from workers.review.rules import TenantRules, Terms
from workers.review.service import Service
from workers.settings import Review, ReviewToken, Topics

MAX_BODY_BYTES = 4_000_000
"""Above the largest request that a test of the contract generates: 413 is no answer to a broken one."""


class Running:
    """A desk whose commands are committed at once, or never while `is_down`."""

    def __init__(
        self, folder: Path, *, terms: Terms = TERMS, tenant: TenantRules = TENANT, review: Review | None = None
    ) -> None:
        self.topics = Topics()
        self.tokens = {name: secrets.token_hex(32) for name in PEOPLE}
        for name, token in self.tokens.items():
            (folder / name).write_text(token)
        self.review = review or Review(
            tokens=[ReviewToken(name=name, file=folder / name, **about) for name, about in PEOPLE.items()],
            answer_s=3,
        )
        self.now = now_ms
        self.is_down = False
        self.outputs: list[Output] = []
        self.desk = Desk()
        self.processor = Processor(
            self.desk,
            self.topics,
            terms=terms,
            rules_of=lambda _: tenant,
            pipeline="test",
            now_ms=lambda: self.now(),
            deliver=self._commit,
        )
        self.service = Service(self.desk, self.processor, self._send, self.review, self.topics, lambda: self.now())
        self.app: FastAPI = create_app(self.service, Tokens(self.review.tokens), max_body_bytes=MAX_BODY_BYTES)
        self._offset = 0

    def arrive(self, *numbers: int, **changes: object) -> None:
        for number in numbers:
            document = review_item(number, self.now(), **changes)
            self._offset += 1
            source = Source(TopicPartition(self.topics.review, 0), 1, self._offset, None, self.now())
            item = Reading(self.topics)(_record(document, self.topics.review), source)
            self.processor.submit(item)

    async def _send(self, output: Output) -> None:
        if self.is_down:
            await asyncio.sleep(10)
        self._offset += 1
        source = Source(TopicPartition(self.topics.review_commands, 0), 1, self._offset, None, self.now())
        works: list[Work] = Reading(self.topics)(Record(output.value, output.key, [], output.topic), source)
        asyncio.get_running_loop().call_soon(self.processor.submit, works)

    def _commit(self, finished: list[Finished]) -> None:
        self.outputs += [output for record in finished for output in record.outputs]
        self.processor.committed(finished)

    def headers(self, name: str, key: str | None = None) -> dict[str, str]:
        own = {} if key is None else {"Idempotency-Key": key}
        return {"Authorization": f"Bearer {self.tokens[name]}", **own}


def _record(document: dict[str, object], topic: str) -> Record:
    return Record(json.dumps(document).encode(), b"room", [], topic)
