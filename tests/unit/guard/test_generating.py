"""The model card's way, and that it says what the one-pass way says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from schemas.assessment import Assessment
from tests.answers import answered
from tests.clear import UNSAFE
from tests.lines import TEXTS
from workers.guard.generating import Answer, parse
from workers.guard.guard import Guard, Refused, Request
from workers.guard.load import load_guard
from workers.settings import Guard as GuardSettings


@pytest.mark.parametrize(
    ("text", "role", "answer"),
    [
        ("Safety: Safe\nCategories: None", "user", Answer(0, [], None)),
        ("Safety: Unsafe\nCategories: Violent, PII", "user", Answer(2, ["Violent", "PII"], None)),
        ("Safety: Controversial\nCategories: None\n", "user", Answer(1, [], None)),
        ("Safety: Unsafe\nCategories: Non-violent Illegal Acts", "user", Answer(2, ["Non-violent Illegal Acts"], None)),
        ("Safety: Unsafe\nCategories: Jailbreak, Spam, PII, PII", "user", Answer(2, ["Jailbreak", "PII"], None)),
        ("Safety: Unsafe\nCategories: Jailbreak\nRefusal: No", "assistant", Answer(2, [], False)),
        ("Safety: Safe\nCategories: None\nRefusal: Yes", "assistant", Answer(0, [], True)),
        ("\n\nSafety: Safe \nCategories: Violent\n", "user", Answer(0, [], None)),
    ],
)
def test_an_answer_is_read(text: str, role: str, answer: Answer) -> None:
    assert parse(text, role) == answer


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("", "user"),
        ("I cannot help with that.", "user"),
        ("Safety: Safer\nCategories: None", "user"),
        ("Safety:Safe", "user"),
        ("It says Safety: Safe", "user"),
        ("Safety: Safe\nCategories: None", "assistant"),
    ],
)
def test_an_invalid_answer_is_never_safe(text: str, role: str) -> None:
    refused = parse(text, role)
    assert isinstance(refused, Refused)
    assert refused.reason == "unreadable_answer"


@pytest.fixture
async def guards() -> AsyncIterator[tuple[Guard, Guard]]:
    made = (load_guard(GuardSettings(threads=2)), load_guard(GuardSettings(threads=2, mode="generate")))
    for guard in made:
        await guard.start()
    yield made
    for guard in made:
        await guard.close()


async def test_both_modes_give_the_same_labels(guards: tuple[Guard, Guard]) -> None:
    requests = [Request(text) for text in TEXTS]
    scored, written = [answered(await guard.assess(requests)) for guard in guards]
    different = [
        (a["scores"], b["severity"]) for a, b in zip(scored, written, strict=True) if a["severity"] != b["severity"]
    ]
    assert different == []
    first = [(a["categories"][:1], b["categories"][:1]) for a, b in zip(scored, written, strict=True)]
    assert sum(one == other for one, other in first) >= 0.97 * len(first)


async def test_a_generated_answer_becomes_a_valid_assessment(guards: tuple[Guard, Guard]) -> None:
    _, generating = guards
    requests = [Request(TEXTS[0]), Request(TEXTS[1], "assistant"), Request("ｋｉｌｌ yourself")]
    for assessment in answered(await generating.assess(requests)):
        assert Assessment.model_validate(assessment).model_dump(mode="json") == assessment
        assert sorted(assessment["scores"].values()) == [0, 0, 1]


async def test_an_assessment_counts_every_token_that_the_model_read_and_wrote(
    guards: tuple[Guard, Guard], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [
        Request(TEXTS[0]),
        Request(UNSAFE),
        Request(TEXTS[1], "assistant"),
        Request("ｋｉｌｌ yourself"),
    ]
    for guard in guards:
        counted = 0

        def counting(call: Callable[..., Awaitable[Sequence[Any]]], *, writes: bool) -> Any:
            async def call_and_count(prompts: Sequence[Sequence[int]], *others: Any) -> Sequence[Any]:
                nonlocal counted
                answers = await call(prompts, *others)
                counted += sum(map(len, prompts)) + writes * sum(map(len, answers))
                return answers

            return call_and_count

        engine = guard._engine
        monkeypatch.setattr(engine, "score", counting(engine.score, writes=False))
        monkeypatch.setattr(engine, "complete", counting(engine.complete, writes=True))
        assert sum([assessment["tokens"] for assessment in answered(await guard.assess(requests))]) == counted > 0


async def test_the_two_modes_never_share_a_cached_assessment(guards: tuple[Guard, Guard]) -> None:
    assert guards[0].fingerprint != guards[1].fingerprint
