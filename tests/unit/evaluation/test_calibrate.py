"""Temperatures: found where they are known, left alone where nothing is, and fitted to the answers of the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.taxonomy import Category, Severity
from tests.answers import answered
from tests.lines import TEXTS, write_lines
from tests.unit.evaluation.test_score import evaluate
from workers.annotation.json_lines import JsonLines
from workers.evaluation.calibrate import Answers, ListeningEngine, answers_of, fit
from workers.guard.guard import Guard, Request
from workers.guard.load import checkpoint_folder, load_engine, load_guard, make_guard
from workers.settings import Guard as GuardSettings


def drawn(temperature: float, seed: int, count: int = 4_000) -> Answers:
    """Answers of a model that is too sure or not sure enough by just this temperature."""
    random = np.random.default_rng(seed)
    rows = random.normal(0, 3, (count, 3))
    shares = np.exp(rows / temperature)
    shares /= shares.sum(axis=1, keepdims=True)
    chosen = (shares.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    return Answers(rows, np.eye(3)[chosen])


@given(st.floats(0.3, 6), st.integers(0, 1_000))
def test_the_temperature_of_known_answers_is_found(temperature: float, seed: int) -> None:
    found = fit(drawn(temperature, seed))
    assert found is not None
    assert found.temperature == pytest.approx(temperature, rel=0.15)
    if abs(np.log(temperature)) > 0.4:
        assert found.loss_after < found.loss_before


def test_nothing_is_fitted_to_few_or_equal_answers() -> None:
    assert fit(drawn(2.0, 1, count=99)) is None
    rows = drawn(2.0, 1).rows
    assert fit(Answers(rows, np.tile([1.0, 0.0, 0.0], (len(rows), 1)))) is None


def test_the_loss_counts_every_category_that_the_gold_names() -> None:
    rows = np.log(np.array([[0.5, 0.3, 0.2]]))
    assert Answers(rows, np.array([[1.0, 1.0, 0.0]])).loss(1.0) == pytest.approx(-np.log(0.8))


async def test_each_answer_belongs_to_its_own_text(tmp_path: Path) -> None:
    settings = GuardSettings(threads=1)
    folder = checkpoint_folder("guard-nano")
    texts = [f"{text} {n}" for n, text in enumerate(TEXTS[:40])]
    file = write_lines(
        tmp_path / "gold.jsonl",
        [{"text": text, "gold": {"severity": "Unsafe", "categories": ["Violent"]}} for text in texts]
        + [{"text": "", "gold": {"severity": "Safe"}}]
        + [{"text": "sure", "role": "assistant", "gold": {"severity": "Safe", "refusal": False}}],
    )
    guard: Guard = make_guard(settings, ListeningEngine(load_engine(settings, folder)), folder)
    await guard.start()
    try:
        found = await answers_of(guard, JsonLines(file).rows(are_whole=True), at_once=16)
        alone = [(answered(await guard.assess([Request(text)])))[0] for text in texts]
    finally:
        await guard.close()
    plain = [assessment for assessment in alone if assessment["windows"] == 1]
    assert len(found["severity"].rows) == len(plain) + 1
    shares = np.exp(found["severity"].rows)
    shares /= shares.sum(axis=1, keepdims=True)
    for row, assessment in zip(shares, plain, strict=False):
        assert list(row) == pytest.approx(list(assessment["scores"].values()), abs=2e-3)
    harmful = [assessment for assessment in plain if assessment["severity"] != Severity.SAFE]
    assert found["categories"].rows.shape == (len(harmful), len(Category) + 1)
    assert found["refusal"].right.tolist() == [[0, 1]]


async def surety(settings: GuardSettings, texts: list[str]) -> float:
    """Give the mean share of the likeliest severity."""
    guard = load_guard(settings)
    await guard.start()
    try:
        judged = answered(await guard.assess([Request(text) for text in texts]))
    finally:
        await guard.close()
    return float(np.mean([max(assessment["scores"].values()) for assessment in judged]))


async def test_the_guard_follows_the_calibration_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint_folder("guard-nano"), folder)
    (folder / "calibration.json").unlink(missing_ok=True)
    settings = GuardSettings(model=str(folder), threads=1)
    before = await surety(settings, TEXTS[:20])
    severities = ["Safe", "Unsafe", "Controversial"]
    gold = [{"text": text, "gold": {"severity": severities[n % 3]}} for n, text in enumerate(TEXTS[:150])]
    monkeypatch.setenv("GUARDLINE_GUARD__MODEL", str(folder))
    monkeypatch.setenv("GUARDLINE_GUARD__MODE", "generate")
    printed = evaluate("calibrate", write_lines(tmp_path / "gold.jsonl", gold))
    assert "too few answers" in printed
    assert "guard-nano judges" not in printed
    temperatures = json.loads((folder / "calibration.json").read_text())
    assert list(temperatures) == ["severity", "categories", "refusal", "fitted"]
    assert list(temperatures["fitted"]) == ["severity"]
    # The labels are not the texts' own: the less sure, the less wrong.
    assert temperatures["severity"] > 1.5
    assert temperatures["categories"] == temperatures["refusal"] == 1
    assert await surety(settings, TEXTS[:20]) < before - 0.1


def test_nothing_is_written_if_nothing_can_be_fitted(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "gold.jsonl", [{"text": "a", "gold": {"severity": "Safe"}}])
    said = evaluate("calibrate", file, "--out", tmp_path / "c.json", code=2)
    assert "no temperature can be fitted" in said
    assert "guard-nano judges: it is for trying things out" in said
    assert not (tmp_path / "c.json").exists()


def test_a_line_without_gold_is_named(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "gold.jsonl", [{"text": "a", "gold": {"severity": "Safe"}}, {"text": "b"}])
    said = evaluate("calibrate", file, "--out", tmp_path / "c.json", code=2)
    assert f"{file}, line 2: has no field 'gold'" in said.replace("\n", "")
    assert "guard-nano judges" not in said
