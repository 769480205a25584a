"""Reads the authored texts: short texts in many languages that this project's authors wrote and labelled.

There are three parts. Models learn from `training`, are chosen by `development`, and the chosen one is measured on
`holdout`. Other authors wrote the last two. A seed, one idea with its renderings in several languages, is in one part.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.taxonomy import Category, Severity

FOLDER = Path(__file__).parent / "authored"
LANGUAGES = (
    *("ar", "ar-Latn", "bn", "cs", "de", "el", "en", "es", "fa", "fr", "he", "hi", "hi-Latn", "id", "it", "ja", "ko"),
    *("nl", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh"),
)
"""ar-Latn and hi-Latn are Arabic and Hindi in Latin letters."""
ALIKE = 0.6
"""From this share of common character n-grams on, two texts count as nearly the same."""
_WITHOUT_SPACES = ("ja", "ko", "th", "zh")


class Part(StrEnum):
    """What the texts of a file are for."""

    TRAINING = "training"
    DEVELOPMENT = "development"
    HOLDOUT = "holdout"


class Authored(BaseModel):
    """One text with its labels: a line of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: str = Field(pattern=r"^[a-z]\d{5}$")
    """The author's letter and the number of the idea. Renderings of one idea share it."""
    language: str
    turns: tuple[str, ...] = Field(min_length=1)
    """A user's message, an assistant's, and so on. The labels are those of the last one."""
    severity: Severity
    category: Category | None
    beside: Category | None
    """The kind of harm that a harmless text is near to: it shares its words, its form or its topic."""
    capability: str = Field(alias="register")
    """What the text shows: `insult`, `counter` (counter-speech), `verbs` (harmless uses of violent ones) and others."""
    habit: str | None
    """A habit of writing, for example typos."""
    refusal: Literal["Yes", "No"] | None
    """Whether an assistant's message refuses."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Authored:
        if self.language not in LANGUAGES:
            raise ValueError(f"the language {self.language} is not one of {', '.join(LANGUAGES)}")
        if not all(turn.strip() for turn in self.turns):
            raise ValueError("a turn is empty")
        if (self.category is None) != (self.severity is Severity.SAFE):
            raise ValueError(f"the severity {self.severity} does not go with the category {self.category}")
        if self.beside is not None and self.severity is not Severity.SAFE:
            raise ValueError("only a harmless text is beside a category")
        if (self.refusal is not None) != self.is_response:
            raise ValueError("an assistant's message, and no other, states whether it refuses")
        return self

    @property
    def is_response(self) -> bool:
        """Whether the last turn is the assistant's."""
        return len(self.turns) % 2 == 0

    @property
    def text(self) -> str:
        """The turn that the labels are about."""
        return self.turns[-1]


def read(part: Part, folder: Path = FOLDER) -> list[Authored]:
    """Read a part. Raises ValueError with the file and the line of a text that breaks the format."""
    path = folder / f"{part}.jsonl"
    out = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            out.append(Authored.model_validate_json(line))
        except ValidationError as error:
            raise ValueError(f"{path.name}, line {number}: {error.errors()[0]['msg']}") from error
    return out


def plain(text: str) -> str:
    """Give a text's letters and digits alone, in lower case: what repeated texts have in common."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def alike(texts: list[Authored], others: list[Authored]) -> set[int]:
    """Give the numbers of those `texts` that nearly repeat one of `others` in the same language."""
    numbers: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    sizes = []
    for number, each in enumerate(texts):
        language = _base(each.language)
        grams = _grams(each.text, language)
        sizes.append(len(grams))
        for gram in grams:
            numbers[language][gram].append(number)
    out: set[int] = set()
    for other in others:
        language = _base(other.language)
        grams = _grams(other.text, language)
        common = Counter(number for gram in grams for number in numbers[language].get(gram, ()))
        out.update(
            number
            for number, count in common.items()
            if count >= ALIKE * (len(grams) + sizes[number] - count) and len(texts[number].turns) == len(other.turns)
        )
    return out


def _base(language: str) -> str:
    return language.split("-", maxsplit=1)[0]


@cache
def _grams(text: str, language: str) -> frozenset[str]:
    size = 2 if language in _WITHOUT_SPACES else 4
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
    spaced = f" {words} "
    return frozenset(spaced[at : at + size] for at in range(max(1, len(spaced) - size + 1)))
