"""Judges texts by the pipeline of the moderation worker, with requests in the place of records.

Texts of several requests share micro-batches. Deduplication, single flight, the tenant's policy and the metrics are
those of the worker. Redis remembers the assessments, and no events: a request has no id by which it could be repeated.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from schemas.event import EventDict, TurnDict
from workers.core.batcher import estimate_tokens
from workers.core.fields import clean, shortened
from workers.core.records import Event, Finished, Memory, Source, TopicPartition
from workers.gateway.problems import Problem

ORIGIN = TopicPartition("gateway", 0)
"""In the place of a record's partition. No verdict with it is published."""

RETRY_S = 5.0
"""`Retry-After` where the engine is unavailable."""

TOO_LONG = (
    "input: text {} is too long to be judged as a whole (events.max_text_chars, guard.max_windows), and nothing was "
    "found in what was read of it: send it in shorter texts"
)

Verdict = dict[str, Any]


class Text(Struct, frozen=True):
    """One text to judge."""

    text: str
    surface: str = "chat"
    role: str = "user"
    language: str | None = None
    context: tuple[TurnDict, ...] = ()


class Judging:
    """Judges the texts of requests.

    Guarantee: `judge` returns a verdict by the tenant's policy for every text, in order, or raises. A text that was not
    judged to its end is never allowed: see `judge`. A text whose request has ended is not sent to the engine.
    """

    def __init__(
        self,
        submit: Callable[[list[Event]], None],
        remember: Callable[[Iterable[Memory]], None],
        *,
        answer_s: float,
        max_text_chars: int,
    ) -> None:
        self._submit = submit
        self._remember = remember
        self._answer_s = answer_s
        self._max_text_chars = max_text_chars
        self._offsets = count()
        self._waiting: dict[int, asyncio.Future[Verdict]] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a request waits for a text."""
        return bool(self._waiting)

    def is_current(self, source: Source) -> bool:
        """Whether a request still waits for this text."""
        return source.offset in self._waiting

    def deliver(self, finished: list[Finished]) -> None:
        """Take texts that the pipeline has finished."""
        for one in finished:
            self._remember([replace(memory, has_verdict=False) for memory in one.memories])
            waiting = self._waiting.get(one.source.offset)
            if waiting is None or waiting.done():
                continue
            for counter in one.counted:
                counter.inc()
            waiting.set_result(orjson.loads(one.outputs[0].value or b""))

    async def judge(self, tenant: str, texts: Sequence[Text]) -> list[Verdict]:
        """Judge texts for a tenant. The verdicts are those of `schemas.verdict`, as plain dicts.

        If the engine judges some of the texts and not the others, the policy decides on the others by its
        `on_unavailable`.

        Raises:
            Problem: 503, if the engine is unavailable: it has judged none of the texts that are not empty, or
                `answer_s` have passed. 400, if the policy would allow a text of which a part was not judged.
        """
        texts = [_clean(text) for text in texts]
        loop = asyncio.get_running_loop()
        received_at_ms = int(time.time() * 1000)
        request = secrets.token_hex(8)
        events, offsets = [], []
        for place, text in enumerate(texts):
            offset = next(self._offsets)
            offsets.append(offset)
            self._waiting[offset] = loop.create_future()
            source = Source(ORIGIN, 0, offset, None, received_at_ms)
            read, cut = shortened(text.text, self._max_text_chars)
            body = _body(replace(text, text=read), tenant, f"{request}-{place}")
            events.append(Event(source, b"", body, estimate_tokens(len(read)), truncated_text_chars=cut))
        try:
            async with asyncio.timeout(self._answer_s):
                self._submit(events)
                verdicts = [await self._waiting[offset] for offset in offsets]
        except TimeoutError:
            raise unavailable() from None
        finally:
            for offset in offsets:
                self._waiting.pop(offset).cancel()
        judged = [verdict for verdict, text in zip(verdicts, texts, strict=True) if text.text]
        if judged and all(verdict["assessment"] is None for verdict in judged):
            raise unavailable()
        for place, verdict in enumerate(verdicts):
            if verdict["decision"] == "allow" and _is_in_part(verdict):
                raise Problem(400, TOO_LONG.format(place), code="text_too_long", param="input")
        return verdicts


def harm_of(assessment: Verdict | None) -> float:
    """Give the probability that a text is not safe; 0 without an assessment."""
    return 0.0 if assessment is None else min(1.0, max(0.0, 1 - assessment["scores"]["safe"]))


def _clean(text: Text) -> Text:
    """Replace halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    context = tuple([TurnDict(role=turn["role"], text=clean(turn["text"])) for turn in text.context])
    return replace(text, text=clean(text.text), context=context)


def _is_in_part(verdict: Verdict) -> bool:
    return bool(verdict["truncated_text_chars"] or (verdict["assessment"] or {}).get("truncated_windows"))


def _body(text: Text, tenant: str, event_id: str) -> EventDict:
    body: dict[str, Any] = {
        "event_id": event_id,
        "tenant_id": tenant,
        "surface": text.surface,
        "text": text.text,
        "role": text.role,
    }
    if text.language is not None:
        body["language"] = text.language
    if text.context:
        body["context"] = list(text.context)
    return body  # type: ignore[return-value]  # Keys are added one by one.


def unavailable() -> Problem:
    """Give the error of a request that the engine did not answer."""
    return Problem(
        503,
        "the engine did not answer in time, so nothing was judged: send the request again",
        code="engine_unavailable",
        retry_after_s=RETRY_S,
    )
