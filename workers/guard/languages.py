"""Finds the language of texts whose producers name none, so that policies by language apply to them.

It must never delay the event loop by more than one short text: lingua holds the interpreter's lock while it reads one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import structlog

from schemas.event import EventDict
from workers.core.records import Event
from workers.errors import Misconfigured, to_install
from workers.settings import Language

if TYPE_CHECKING:
    from lingua import LanguageDetector

log = structlog.get_logger(__name__)

UNDETERMINED = "und"
"""A producer's way to say that it does not know the language (BCP 47)."""

REMEMBERED = 8_192
"""Texts whose language is remembered. Much of a chat is said again and again: `lol`, `gg`, a spammer's line."""

_NO_LANGUAGE = re.compile(r"https?://\S+|www\.\S+|[@#]\S+|:\w+:")
"""Addresses, mentions, tags and the names of emojis: they would count as words of some language."""

_CUT_FACTOR = 4
"""Addresses and the like are removed from the first `_CUT_FACTOR` × `max_chars` characters. The rest is not read."""


class Languages:
    """A detector, and the thread in which it runs.

    Guarantee: equal texts have equal languages, as long as the settings and the version of the detector are the same.
    """

    def __init__(self, settings: Language) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "language")
        self._has_failed = False
        self._detector: LanguageDetector
        self._remembered = lru_cache(REMEMBERED)(self._found)

    async def start(self) -> None:
        """Load the models.

        Raises:
            Misconfigured: lingua is not installed, or does not know one of the candidates.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    async def close(self) -> None:
        """End the thread. A text that is being read does not delay it."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def missing_in(self, body: EventDict) -> str | None:
        """Give the language that an event lacks, as two letters of ISO 639-1.

        None if its producer names one, if it has no text, or if its language is not known. Blocks for about 0.1 ms
        (docs/language.md has the figures), and not at all for a text that is remembered.
        """
        if not _has_none(body):
            return None
        text = body["text"]
        limit = self._settings.max_chars
        cut = _NO_LANGUAGE.sub(" ", text[: _CUT_FACTOR * limit]).strip()[:limit]
        return self._remembered(cut) if cut else None

    async def fill(self, events: Sequence[Event]) -> None:
        """Set `detected_language` of the events that have a text and no language of their own.

        The event loop continues meanwhile: the detector runs in its thread and yields after each text.
        """
        without = [event for event in events if _has_none(event.body) and not event.is_empty]
        if without:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._fill, without)

    def _fill(self, events: Sequence[Event]) -> None:
        for event in events:
            event.detected_language = self.missing_in(event.body)
            # Gives the lock to the event loop. Without this line the loop waited 59 ms for it, with it 5 ms (p99 on two
            # busy cores, 256 short texts a micro-batch).
            time.sleep(0)

    def _load(self) -> None:
        try:
            from lingua import IsoCode639_1, LanguageDetectorBuilder
        except ImportError:
            raise Misconfigured(f"language.detector: lingua is not installed: {to_install('language')}") from None
        builder = LanguageDetectorBuilder.from_all_languages()
        if candidates := self._settings.candidates:
            codes = [getattr(IsoCode639_1, name.upper(), None) for name in candidates]
            if unknown := [name for name, code in zip(candidates, codes, strict=True) if code is None]:
                raise Misconfigured(f"language.candidates: lingua does not know {', '.join(unknown)}")
            builder = LanguageDetectorBuilder.from_iso_codes_639_1(*[code for code in codes if code is not None])
        if not self._settings.high_accuracy:
            builder = builder.with_low_accuracy_mode()
        if self._settings.min_margin:
            builder = builder.with_minimum_relative_distance(self._settings.min_margin)
        self._detector = builder.with_preloaded_language_models().build()

    def _found(self, text: str) -> str | None:
        try:
            language = self._detector.detect_language_of(text)
        except BaseException as error:
            # A panic of lingua's Rust code is no `Exception`. One text must not end the worker.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if not self._has_failed:
                self._has_failed = True
                log.error("the language detector failed on a text; its language is unknown", error=type(error).__name__)
            return None
        return None if language is None else language.iso_code_639_1.name.lower()


def source_of(event: Event) -> str | None:
    """Say who named the language of an event after `fill`; None for an event without text."""
    if event.is_empty:
        return None
    if event.detected_language is not None:
        return "detector"
    return "unknown" if _has_none(event.body) else "producer"


def _has_none(body: EventDict) -> bool:
    return body.get("language") in (None, UNDETERMINED)


def load_languages(settings: Language) -> Languages | None:
    """Give the detector of the settings, if there is one. It loads nothing before its `start`."""
    return None if settings.detector == "none" else Languages(settings)
