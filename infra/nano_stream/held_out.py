"""Makes the streams on which nano-stream is measured: of texts that it was not trained on, each with its onset."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from tokenizers import Tokenizer

from infra.nano_stream.streams import HARMFUL_SHARES, SAFE_SHARES, SEPARATORS, Pool, content, fixed
from infra.nano_stream.texts import Kind, Text
from schemas.taxonomy import Category, Severity

TOKENS = (20, 600)
"""The least and the most tokens of an answer."""
BEFORE = (10, 250)
"""The least and the most tokens before the onset."""


class Group(StrEnum):
    """What an answer consists of."""

    ORDINARY = "ordinary"
    """Everyday sentences, requests and comments of public data, and harmless answers."""
    AUTHORED = "authored"
    """Harmless authored texts, which their authors made hard on purpose: half of them are near to something harmful."""
    NEAR = "near"
    """Harmless texts of public data that resemble harmful ones, such as counter-speech in hate-speech data."""
    HARMFUL = "harmful"
    """Ordinary texts, then an Unsafe one, then ordinary texts again."""


_FILLERS = {
    Group.ORDINARY: (Kind.ORDINARY, Kind.RESPONSE),
    Group.AUTHORED: (Kind.AUTHORED,),
    Group.NEAR: (Kind.NEAR,),
    Group.HARMFUL: (Kind.ORDINARY, Kind.RESPONSE),
}


@dataclass(frozen=True)
class HeldOut:
    """A stream to measure on."""

    group: Group
    planted: Kind | None
    """The kind of the harmful text."""
    language: str
    ids: list[int]
    first: int
    """The position of the answer's first token."""
    text: str
    """The answer."""
    question: str
    severity: Severity
    onset: int | None
    """The position in the answer of the first token of the harmful text."""
    onset_chars: int | None


def held_out(texts: list[Text], group: Group, count: int, tokenizer: Tokenizer, seed: int) -> list[HeldOut]:
    """Make `count` streams of a group, the same ones each time."""
    rng = random.Random(f"{seed} {group}")  # noqa: S311 - sampling, not a secret
    safe = [each for each in texts if each.severity is Severity.SAFE]
    filler = Pool([each for each in safe if each.kind in _FILLERS[group]], SAFE_SHARES)
    asked = Pool(safe, SAFE_SHARES)
    harmful = Pool(
        [
            each
            for each in texts
            if each.severity is Severity.UNSAFE and each.category not in (None, Category.JAILBREAK)
        ],
        HARMFUL_SHARES,
    )
    languages = [each.language for each in safe if each.kind in _FILLERS[group]]
    out = []
    for _ in range(count):
        language = rng.choice(languages)
        tokens = rng.randint(*TOKENS)
        planted = harmful.draw(rng, language) if group is Group.HARMFUL else None
        before = rng.randint(*BEFORE) if planted else tokens
        question = asked.draw(rng, language).text[:200]
        answer, onset_chars = _filled("", before, filler, language, tokenizer, rng), None
        if planted is not None:
            answer += rng.choice(SEPARATORS)
            onset_chars = len(answer)
            answer = _filled(answer + planted.text, tokens, filler, language, tokenizer, rng)
        encoded = tokenizer.encode(answer, add_special_tokens=False)
        onset = None
        if onset_chars is not None:
            onset = next(number for number, (_, end) in enumerate(encoded.offsets) if end > onset_chars)
        head = [
            *fixed(tokenizer, "<|im_start|>user\n"),
            *content(tokenizer, question),
            *fixed(tokenizer, "<|im_end|>\n<|im_start|>assistant\n"),
        ]
        severity = planted.severity if planted else Severity.SAFE
        out.append(
            HeldOut(
                group,
                planted.kind if planted else None,
                language,
                head + encoded.ids,
                len(head),
                answer,
                question,
                severity,
                onset,
                onset_chars,
            )
        )
    return out


def _filled(answer: str, tokens: int, pool: Pool, language: str, tokenizer: Tokenizer, rng: random.Random) -> str:
    """Add texts until the answer has about so many tokens; the last text stays whole."""
    while not answer or len(tokenizer.encode(answer, add_special_tokens=False).ids) < tokens:
        answer += (rng.choice(SEPARATORS) if answer else "") + pool.draw(rng, language).text
    return answer
