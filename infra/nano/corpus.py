"""Unlabelled texts for the teacher to judge: sentences and random words from freely licensed packages.

They add words of many languages that the labelled texts lack. A lexicon of abuse adds the rest.
"""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from infra.nano.data import SEED

_INVENTED = 4_000
_MOST_WORDS = 12_000
"""Words of a language, the most frequent ones: the others are names, slips and forms of these."""
_ABUSIVE_SHARE = 0.25
_SUBTITLES = ("ar", "de", "en", "es", "fr", "it", "nl", "pt", "ru")
_COMMON = ("ja", "ko", "pl", "tr")
_WITHOUT_SPACES = ("ja", "zh")
_LONGEST_SENTENCE = 300
_MOST_SENTENCES = 150
"""Of a language; drawn at random where there are more."""
_LEXICON = Path(__file__).parent / "lexicon.json"


@dataclass(frozen=True)
class Text:
    """A text of the corpus."""

    text: str
    lang: str
    is_abusive: bool
    """A word of the lexicon was put into it. The frequent words hold some as well: one other English text in twenty."""


def words() -> dict[str, tuple[list[str], list[float]]]:
    """Give the frequent words of each language, and how often each is drawn: by the root of its frequency."""
    out = {}
    for lang in _SUBTITLES:
        counts = json.loads(
            gzip.decompress((package_folder("spellchecker") / f"resources/{lang}.json.gz").read_bytes())
        )
        out[lang] = _most_frequent(counts)
    with (package_folder("jieba") / "dict.txt").open(encoding="utf-8") as lines:
        counts = {word: int(count) for word, count, _ in map(str.split, lines)}
    out["zh"] = _most_frequent(counts)
    for lang in _COMMON:
        listed = sorted(set(_mimesis(lang)["words"]))
        out[lang] = listed, [1.0] * len(listed)
    return out


def lexicon() -> dict[str, list[str]]:
    """Give words and phrases of abuse by language."""
    lists: dict[str, list[str]] = json.loads(_LEXICON.read_text(encoding="utf-8"))
    return lists


def corpus() -> list[Text]:
    """Make the corpus, the same each time: sentences as they are, and random words, some with abuse among them."""
    rng = random.Random(SEED)  # noqa: S311 - sampling, not a secret
    frequent, abuse = words(), lexicon()
    langs = sorted(frequent)
    out = [Text(sentence, lang, is_abusive=False) for lang in langs for sentence in _sentences(lang, rng)]
    for number in range(_INVENTED):
        lang = langs[number % len(langs)]
        drawn = rng.choices(*frequent[lang], k=rng.randint(2, 10))
        is_abusive = rng.random() < _ABUSIVE_SHARE
        if is_abusive:
            drawn.insert(rng.randrange(len(drawn) + 1), rng.choice(abuse[lang]))
        out.append(Text(("" if lang in _WITHOUT_SPACES else " ").join(drawn), lang, is_abusive))
    out += [Text(word, lang, is_abusive=True) for lang in sorted(abuse) for word in abuse[lang]]
    return out


def _most_frequent(counts: dict[str, int]) -> tuple[list[str], list[float]]:
    top = sorted(counts, key=lambda word: (-counts[word], word))[:_MOST_WORDS]
    return top, [counts[word] ** 0.5 for word in top]


def _sentences(lang: str, rng: random.Random) -> list[str]:
    if not (package_folder("mimesis") / f"datasets/{lang}/text.json").is_file():
        return []
    data = _mimesis(lang)
    listed = {line.strip() for name in ("text", "quotes", "questions") for line in data.get(name, [])}
    lines = sorted(line[:_LONGEST_SENTENCE] for line in listed if line)
    return rng.sample(lines, min(_MOST_SENTENCES, len(lines)))


def _mimesis(lang: str) -> dict[str, list[str]]:
    data: dict[str, list[str]] = json.loads(
        (package_folder("mimesis") / f"datasets/{lang}/text.json").read_text(encoding="utf-8")
    )
    return data


def package_folder(package: str) -> Path:
    """Find a package's files without importing it: its code is not needed, and jieba's import warns."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {package} is not installed: see requirements/train.txt")
    return Path(spec.origin).parent
