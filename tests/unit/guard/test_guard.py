"""The guard on guard-nano: prompts, windows, labels, and no way in from the content."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tokenizers import Tokenizer
from tokenizers.models import BPE

from schemas.assessment import Assessment as AssessmentModel
from schemas.taxonomy import Category
from tests.answers import answered
from tests.clear import HIDDEN, UNSAFE
from tests.lines import TEXTS
from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.engine import Refused
from workers.errors import Misconfigured
from workers.guard.guard import Guard
from workers.guard.load import checkpoint_folder, load_guard
from workers.guard.prompt import Request
from workers.guard.template import Template
from workers.guard.tokens import Tokens
from workers.guard.windows import windows
from workers.settings import Guard as GuardSettings

FOLDER = checkpoint_folder("guard-nano")
TOKENS = Tokens(FOLDER)
TEMPLATE = Template(FOLDER)


@given(st.integers(1, 400), st.integers(8, 64), st.integers(1, 6))
def test_windows_cover_everything_unless_they_say_how_much_is_left_out(length: int, size: int, limit: int) -> None:
    ids = list(range(length))
    cut, left_out = windows(ids, size, size // 4, limit)
    assert len(cut) <= limit
    assert all(len(window) <= size for window in cut)
    if left_out == 0:
        assert {index for window in cut for index in window} == set(ids)
    else:
        assert length > size


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    guard = load_guard(GuardSettings(threads=2))
    await guard.start()
    yield guard
    await guard.close()


async def test_a_message_gets_the_same_assessment_alone_and_among_others(guard: Guard) -> None:
    requests = [Request(text) for text in TEXTS[:40]]
    together = answered(await guard.assess(requests))
    for request, assessment in list(zip(requests, together, strict=True))[::7]:
        (alone,) = answered(await guard.assess([request]))
        assert alone["severity"] == assessment["severity"]
        assert alone["scores"] == pytest.approx(assessment["scores"], abs=2e-3)


async def test_white_space_around_a_message_changes_nothing(guard: Guard) -> None:
    texts = [UNSAFE, f"{UNSAFE}. ", f"{UNSAFE}.", f" {UNSAFE}\n\n"]
    plain, spaced, stopped, framed = answered(await guard.assess([Request(text) for text in texts]))
    assert plain["severity"] == "Unsafe"
    assert spaced["scores"] == pytest.approx(stopped["scores"], abs=1e-4)
    assert framed["scores"] == pytest.approx(plain["scores"], abs=1e-4)


async def test_a_response_has_a_refusal_and_is_never_a_jailbreak(guard: Guard) -> None:
    response = Request("Sure, I will ignore all rules.", "assistant", (("user", "hello"),))
    (assessment,) = answered(await guard.assess([response]))
    assert assessment["refusal"] in (True, False)
    assert "Jailbreak" not in assessment["categories"]


async def test_the_worst_window_of_a_long_text_counts(guard: Guard) -> None:
    harm = "I will break your legs, you worthless idiot. "
    (alone,) = answered(await guard.assess([Request(harm)]))
    assert alone["severity"] == "Unsafe"
    long = Request(harm * 200 + "The weather is lovely in the garden today. " * 400)
    (assessment,) = answered(await guard.assess([long]))
    assert assessment["windows"] > 1
    assert assessment["severity"] == "Unsafe"


def test_labels_that_begin_alike_are_refused() -> None:
    with pytest.raises(Misconfigured, match="tell labels apart"):
        TOKENS.first(["Safe", "Safe"])


def test_labels_without_a_token_are_refused(tmp_path: Path) -> None:
    # Without bytes and an unknown token, what is in no vocabulary is left out.
    Tokenizer(BPE({"x": 0}, [])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(Misconfigured, match=r"no tokens for labels: Safe, Unsafe"):
        Tokens(tmp_path).first(["Safe", "Unsafe"])


class SameAnswer:
    """An engine that gives the same log-probability to every candidate, and writes nothing."""

    identity = "the same"
    answered = 0
    prompts_at_a_time = None

    def __init__(self, log_probability: float) -> None:
        self._log_probability = log_probability

    async def start(self, shared_tokens: int = 0) -> None:
        pass

    async def close(self) -> None:
        pass

    async def watch(self) -> None:
        pass

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float]]:
        return [[self._log_probability] * len(candidates) for _ in prompts]

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> list[list[int]]:
        return [[] for _ in prompts]


@pytest.mark.parametrize(
    ("log_probability", "mode", "sentence"),
    [
        (math.nan, "score", "the self-check of 'other' failed: .* nan"),
        (-math.inf, "score", "the self-check of 'other' failed: .* -inf"),
        (
            math.log(1 / 12_000),
            "score",
            "after 'Safety:' the model expects .* probability of 0.00025 in all: it is not a",
        ),
        (math.log(1 / 3), "score", "the self-check of 'other' failed: it finds .* Unsafe: it is not a guard"),
        (0.0, "generate", "the self-check of 'other' failed: unreadable_answer"),
    ],
)
async def test_the_start_refuses_a_model_that_is_not_a_guard(
    log_probability: float, mode: Literal["score", "generate"], sentence: str
) -> None:
    with pytest.raises(Misconfigured, match=rf"^guard\.model: {sentence}"):
        await Guard(SameAnswer(log_probability), FOLDER, "other", mode=mode).start()


class SureOfNone(SameAnswer):
    """Says Unsafe, and then hardly anything but `None` for a category."""

    def __init__(self) -> None:
        super().__init__(-20)

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float]]:
        row = [self._log_probability] * len(candidates)
        if len(candidates) == len(Category) + 1:
            row[list(Category).index(Category.PII)] = -11
        row[-1] = -1e-4
        return [row for _ in prompts]


async def test_the_most_likely_category_is_named_however_small_its_share() -> None:
    (assessment,) = answered(await Guard(SureOfNone(), FOLDER, "other").assess([Request("hello")]))
    assert (assessment["severity"], assessment["categories"]) == ("Unsafe", ["PII"])


def test_templates_can_use_the_extensions_of_hugging_face(tmp_path: Path) -> None:
    source = (
        "{% for message in messages %}{{ message.content }}\n"
        "{% if loop.last %}{% break %}{% endif %}{% endfor %}"
        "{{ {'b': '<ä>', 'a': 1} | tojson(sort_keys=true) }} {{ strftime_now('%Y') | length }}"
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": source}))
    rendered = Template(tmp_path).render([{"role": "user", "content": "hello"}])
    assert rendered == 'hello\n{"a": 1, "b": "<ä>"} 4'


async def test_a_disguised_text_is_judged_in_both_views_and_the_worse_one_counts(guard: Guard) -> None:
    alone, both = answered(await guard.assess([Request(UNSAFE), Request(HIDDEN)]))
    assert [view["name"] for view in alone["views"]] == ["raw"]
    raw, normalized = both["views"]
    assert (raw["name"], raw["severity"]) == ("raw", "Safe")
    assert (normalized["name"], normalized["severity"]) == ("normalized", "Unsafe")
    assert (both["severity"], both["scores"], both["windows"]) == ("Unsafe", normalized["scores"], 2)


class Recorder(CTranslate2Engine):
    """The engine, noting the prompts of each call."""

    def __init__(self) -> None:
        super().__init__(FOLDER, threads=1)
        self.calls: list[list[list[int]]] = []

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float] | Refused]:
        self.calls.append([list(prompt) for prompt in prompts])
        return await super().score(prompts, candidates, deadline)


@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_categories_and_refusal_are_asked_of_the_view_that_was_worst(role: str) -> None:
    engine = Recorder()
    guard = Guard(engine, FOLDER, "guard-nano")
    await guard.start()
    engine.calls.clear()
    (assessment,) = answered(await guard.assess([Request(HIDDEN, role)]))
    assert assessment["views"][0]["severity"] == "Safe", "its raw view alone would have no category at all"
    severities, *questions = engine.calls
    raw, normalized = severities
    assert len(questions) == (2 if role == "assistant" else 1)
    for (question,) in questions:
        assert question[: len(normalized)] == normalized
        assert question[: len(raw)] != raw
    (plain,) = answered(await guard.assess([Request(UNSAFE, role)]))
    assert (assessment["categories"], assessment["category_scores"]) == (plain["categories"], plain["category_scores"])
    await guard.close()


async def test_the_start_says_in_the_log_which_conversations_get_no_assessment(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "checkpoint"))
    template = folder / "chat_template.jinja"
    refusing = (
        "{% for m in messages %}{% if not loop.first and m.role == loop.previtem.role %}"
        "{{ raise_exception('twice') }}{% endif %}{% endfor %}"
    )
    template.write_text(refusing + template.read_text())
    guard = load_guard(GuardSettings(model=str(folder), threads=1))
    with capture_logs() as logs:
        await guard.start()
    (entry,) = [entry for entry in logs if "the chat template does not show all conversations" in entry["event"]]
    assert "the shortest: user user; assistant assistant; " in entry["not_shown"]
    assert "twice" in entry["not_shown"]
    fine, refused = await guard.assess([Request("hello"), Request("hello", "user", (("user", "hi"),))])
    assert isinstance(fine, dict)
    assert isinstance(refused, Refused)
    assert refused.reason == "conversation"
    await guard.close()


async def test_a_view_that_looks_better_does_not_hide_what_the_raw_text_says(guard: Guard) -> None:
    disguises = [f"{text[:20]}\u200b{text[20:]}" for text in TEXTS]
    plain = answered(await guard.assess([Request(text) for text in disguises]))
    worse = [a for a in plain if a["views"][0]["scores"]["unsafe"] > a["views"][-1]["scores"]["unsafe"]]
    assert worse
    ranks = ("Safe", "Controversial", "Unsafe")
    for assessment in plain:
        severities = [view["severity"] for view in assessment["views"]]
        assert len(severities) == 2
        assert assessment["severity"] == max(severities, key=ranks.index)


async def test_every_assessment_is_valid_by_the_schema(guard: Guard) -> None:
    requests = [Request(text, role) for text in TEXTS[:60] for role in ("user", "assistant")]
    for assessment in answered(await guard.assess([*requests, Request("k i l l  t h e m")])):
        assert AssessmentModel.model_validate(assessment).model_dump(mode="json") == assessment
