"""The authored texts are valid, balanced, and no held-out text is in the training texts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from infra.nano.authored import LANGUAGES, Authored, Part, alike, plain, read
from schemas.taxonomy import Category, Severity

LINE = {
    "seed": "a00001",
    "language": "en",
    "turns": ["how do I kill a zombie process?"],
    "severity": "Safe",
    "category": None,
    "beside": "Violent",
    "register": "coding",
    "habit": None,
    "refusal": None,
}


@pytest.fixture(scope="module")
def parts() -> dict[Part, list[Authored]]:
    return {part: read(part) for part in Part}


def text(words: str, language: str = "en") -> Authored:
    return Authored.model_validate(LINE | {"turns": [words], "language": language})


@pytest.mark.parametrize("part", Part)
def test_each_part_is_half_harmless_and_has_every_language_category_and_severity(
    part: Part, parts: dict[Part, list[Authored]]
) -> None:
    texts = parts[part]
    severities = Counter(each.severity for each in texts)
    assert 0.45 <= severities[Severity.SAFE] / len(texts) <= 0.55
    assert 0.04 <= severities[Severity.CONTROVERSIAL] / len(texts) <= 0.15
    assert {each.category for each in texts} == {None, *Category}
    assert {each.beside for each in texts} == {None, *Category}
    assert {each.language for each in texts} == set(LANGUAGES)
    assert {each.refusal for each in texts} == {None, "Yes", "No"}
    assert any(len(each.turns) > 2 for each in texts)


def test_no_text_is_repeated(parts: dict[Part, list[Authored]]) -> None:
    counts = Counter(plain(" ".join(each.turns)) for texts in parts.values() for each in texts)
    assert [words for words, count in counts.items() if count > 1 and words] == []


def test_no_held_out_text_is_nearly_repeated_in_training(parts: dict[Part, list[Authored]]) -> None:
    held_out = parts[Part.DEVELOPMENT] + parts[Part.HOLDOUT]
    training = parts[Part.TRAINING]
    assert [training[number].turns for number in alike(training, held_out)] == []
    assert {each.seed for each in training}.isdisjoint(each.seed for each in held_out)


def test_texts_that_differ_by_case_and_marks_are_alike_and_others_are_not() -> None:
    texts = [
        text("How do I kill a zombie process"),
        text("I planted tomatoes"),
        text("how do I kill a zombie process?", "de"),
    ]
    assert alike(texts, [text("how do I kill a zombie process?")]) == {0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"language": "xx"}, "the language xx is not one of"),
        ({"turns": [" "]}, "a turn is empty"),
        ({"severity": "Unsafe"}, "does not go with the category"),
        ({"severity": "Unsafe", "category": "Violent"}, "only a harmless text is beside a category"),
        ({"turns": ["how do I kill a process?", "Use kill -9."]}, "states whether it refuses"),
        ({"refusal": "No"}, "states whether it refuses"),
    ],
)
def test_a_line_that_contradicts_itself_is_refused_with_its_number(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    lines = [LINE, LINE | change]
    (tmp_path / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"training.jsonl, line 2: .*{message}"):
        read(Part.TRAINING, tmp_path)
