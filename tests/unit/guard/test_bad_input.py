"""Texts that nobody should send: each gets its own assessment, and none changes its neighbours'."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.assessment import Assessment
from tests.answers import answered
from tests.clear import SAFE, UNSAFE
from workers.guard.guard import Guard, Refused, Request
from workers.guard.load import load_guard
from workers.settings import Guard as GuardSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGE = {
    "empty": "",
    "one space": " ",
    "a million of one letter": "a" * 1_000_000,
    "a million of spaces": " " * 1_000_000,
    "a hundred thousand newlines": "\n" * 100_000,
    "only emoji": "😀👍🏽👨‍👩‍👧" * 20,
    "only combining marks": "\u0301\u0316\u0336" * 3_000,
    "a letter under a thousand marks": "a" + "\u0301\u0316" * 500,
    "mixed scripts": "hello привет 你好 مرحبا नमस्ते สวัสดี γειά",
    "right-to-left overrides": "\u202e\u202ello\u2066 w\u202c\u2069orld\u202e",
    "NUL bytes": "\x00hel\x00lo\x00",
    "only invisible characters": "\u200b\u200d\ufeff\u2060" * 10,
    "private use and unassigned": "\ue000\U000f0000\U0010ffff\u0378",
    "a long word of signs": "@$!|01" * 2_000,
}
NEIGHBOURS = [Request(SAFE), Request(UNSAFE)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guard() -> AsyncIterator[Guard]:
    guard = load_guard(GuardSettings(threads=1))
    await guard.start()
    yield guard
    await guard.close()


@pytest.mark.parametrize("name", STRANGE)
@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_a_strange_text_is_judged_and_does_not_affect_the_others(guard: Guard, name: str, role: str) -> None:
    text = STRANGE[name]
    strange = Request(text, role, (("user", text[:5_000]),))
    before, assessment, after = answered(await guard.assess([NEIGHBOURS[0], strange, NEIGHBOURS[1]]))
    assert Assessment.model_validate(assessment).model_dump(mode="json") == assessment
    assert (before["severity"], after["severity"]) == ("Safe", "Unsafe")
    assert (assessment["refusal"] is None) == (role == "user")
    assert assessment["windows"] <= 16


async def test_an_assessment_counts_the_windows_that_a_megabyte_leaves_out(guard: Guard) -> None:
    (assessment,) = answered(await guard.assess([Request("word " * 200_000)]))
    assert assessment["windows"] == 8
    assert assessment["truncated_windows"] > 50


@pytest.mark.parametrize(
    "request_", [Request("half \ud83d of it"), Request("x", "user", (("user", "\udc00"),)), Request("\ud800" * 5_000)]
)
async def test_half_a_surrogate_pair_is_refused_and_the_others_are_judged(guard: Guard, request_: Request) -> None:
    before, refused, after = await guard.assess([NEIGHBOURS[0], request_, NEIGHBOURS[1]])
    assert isinstance(refused, Refused)
    assert str(refused).startswith("not_unicode: a text holds half of a surrogate pair")
    assert [before, after] == await guard.assess(NEIGHBOURS)
