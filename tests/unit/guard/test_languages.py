"""Which language a text without one gets, and what the detector never does."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from schemas.event import EventDict
from schemas.policy import Policy
from tests.lines import read_lines, write_lines
from tests.unit.redis.test_dedup import ASSESSMENT, event_at
from workers.annotation.annotate import Annotation
from workers.core.keys import Keys
from workers.errors import Misconfigured
from workers.guard.guard import Request
from workers.guard.languages import Languages, load_languages, source_of
from workers.policy.policy import CompiledPolicy
from workers.settings import Batch, Language

EIGHT = Language(detector="lingua", candidates=["de", "en", "es", "fr", "ja", "pl", "ru", "zh"])
GERMAN = "Heute Abend gehen wir alle zusammen ins Kino"


def body(text: str, language: str | None = None) -> EventDict:
    named = {} if language is None else {"language": language}
    return cast(EventDict, {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": text, **named})


@pytest.fixture(scope="module", name="languages")
def _languages() -> Iterator[Languages]:
    languages = Languages(EIGHT)
    asyncio.run(languages.start())
    yield languages
    asyncio.run(languages.close())


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (GERMAN, "de"),
        ("I will be at the station at five", "en"),
        ("¿Dónde está la biblioteca, por favor?", "es"),
        ("Je ne sais pas ce que tu veux dire", "fr"),
        ("明日の朝、駅で会いましょう", "ja"),
        ("Завтра утром мы поедем на дачу", "ru"),
        ("我们明天早上在车站见面吧", "zh"),
        # The words of an address and a mention are English.
        (f"@thebestplayer https://example.com/read/this/news {GERMAN}", "de"),
    ],
)
def test_a_text_gets_its_language(languages: Languages, text: str, language: str) -> None:
    assert languages.missing_in(body(text)) == language


@pytest.mark.parametrize("text", ["", "   ", "12345", "🙂🙂", "!!!", "@ann https://example.com", "\0", "\u202e"])
def test_a_text_without_words_has_no_language(languages: Languages, text: str) -> None:
    assert languages.missing_in(body(text)) is None


def test_a_text_that_fits_two_languages_has_none(languages: Languages) -> None:
    least = Languages(EIGHT.model_copy(update={"min_margin": 0.0}))
    asyncio.run(least.start())
    assert least.missing_in(body("mail")) is not None
    assert languages.missing_in(body("mail")) is None
    asyncio.run(least.close())


def test_the_language_of_the_producer_counts(languages: Languages) -> None:
    assert languages.missing_in(body(GERMAN, "fr")) is None
    assert languages.missing_in(body(GERMAN, "und")) == "de"


def test_only_the_beginning_of_a_text_is_read(languages: Languages) -> None:
    french = "Je ne sais pas ce que tu veux dire. "
    assert languages.missing_in(body(GERMAN.ljust(400) + french * 2_000)) == "de"


async def test_the_event_loop_continues_while_languages_are_found() -> None:
    """lingua holds the interpreter's lock: without a thread of its own, a micro-batch would stop the event loop."""
    languages = Languages(EIGHT.model_copy(update={"max_chars": 2_000}))
    await languages.start()
    events = [event_at(n, text=f"{n} {GERMAN}, " * 40) for n in range(60)]
    turns = 0
    task = asyncio.create_task(languages.fill(events))
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await languages.close()
    assert [event.detected_language for event in events] == ["de"] * 60
    assert turns > 30


async def test_events_with_a_text_have_a_source_of_their_language(languages: Languages) -> None:
    events = [event_at(0, text=GERMAN), event_at(1, text="12345"), event_at(2, text=GERMAN), event_at(3, text="")]
    events[2].body["language"] = "fr"
    await languages.fill(events)
    assert [source_of(event) for event in events] == ["detector", "unknown", "producer", None]


async def test_the_keys_of_an_event_do_not_depend_on_the_detector(languages: Languages) -> None:
    """Else switching the detector on would forget every event and every assessment."""
    event = event_at(0, text=GERMAN)
    keys = Keys("n", secret="s", fingerprint="f")
    before = keys.of(event.body, is_shared=False)
    await languages.fill([event])
    assert event.detected_language == "de"
    assert keys.of(event.body, is_shared=False) == before


def test_a_text_on_which_the_detector_fails_has_no_language(
    languages: Languages, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):
        pass

    class Failing:
        def detect_language_of(self, text: str) -> None:
            raise PanicException(text)

    monkeypatch.setattr(languages, "_detector", Failing())
    with capture_logs() as logs:
        assert languages.missing_in(body("a text that makes the detector fail")) is None
        assert languages.missing_in(body("another text that makes the detector fail")) is None
    assert [line["error"] for line in logs] == ["PanicException"]
    assert "another" not in str(logs)


def test_no_detector_is_loaded_by_default() -> None:
    assert load_languages(Language()) is None


async def test_a_detector_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(Misconfigured, match=r"^language.detector: lingua is not installed: `make extra NAME=language`"):
        await Languages(Language(detector="lingua")).start()


async def test_a_candidate_that_the_detector_does_not_know_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"^language.candidates: lingua does not know xx, zz$"):
        await Languages(Language(detector="lingua", candidates=["en", "xx", "zz"])).start()


async def test_the_policy_of_an_annotation_decides_by_the_language_that_is_found(
    languages: Languages, tmp_path: Path
) -> None:
    class Harmless:
        fingerprint = "harmless"

        async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any]]:
            return [ASSESSMENT for _ in requests]

    policy = CompiledPolicy(Policy.model_validate({"id": "p", "rules": [{"language": "de", "decision": "block"}]}))
    rows = [{"text": GERMAN}, {"text": "I will be at the station at five"}, {"text": GERMAN, "language": "fr"}]
    annotation = Annotation(write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    await annotation.run(Harmless(), Batch(), 30, policy, lambda *_: None, languages)
    assert [row["decision"] for row in read_lines(tmp_path / "out.jsonl")] == ["block", "allow", "allow"]
