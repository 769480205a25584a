"""Makes streams: a user's turn and an answer of many texts, some of them harmful, as token ids with targets.

Targets are there only where the labels say something. The first third of a harmful text and what comes close behind it
have none, because nobody labelled from which word on a text is harmful.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from infra.nano_stream.texts import Kind, Text
from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES, SEVERITIES
from schemas.taxonomy import Category, Severity

SAFE_SHARES = {Kind.ORDINARY: 4.0, Kind.AUTHORED: 3.0, Kind.NEAR: 1.0, Kind.MANUAL: 1.0, Kind.RESPONSE: 1.0}
HARMFUL_SHARES = {Kind.AUTHORED: 4.0, Kind.DATA: 4.0, Kind.RESPONSE: 2.0}
_HARMLESS_STREAMS = 0.4
_HARMFUL_TEXTS = 0.3
"""The share of harmful texts in a stream that has any."""
_ONE_LANGUAGE = 0.75
SEPARATORS = (" ", " ", " ", "\n", "\n\n", "\n- ", "\n\n1. ")
_LEADS = ("Sure, here is how. ", "Of course! ", "Sure. ", "Here you go: ", "Okay. ", "Certainly. ", "First, ", "So: ")
_LEADING = 0.12
_QUESTION = re.compile(
    r"^(?:please )?(?:tell me )?how (?:do|can|could|would|should) (?:i|you|we|one) (.{10,}?)\??$", re.I
)
_HOW_TO = re.compile(r"^how to (.{10,}?)\??$", re.I)
_ORDER = re.compile(
    r"^(?:write|create|develop|give|make|draft|provide|teach|show|list) (?:me |us )?(?:a |an |the )?(.{12,}?)\.?$", re.I
)
_EARLIER, _EARLIER_TOKENS = 0.2, 60
"""The share of streams with an earlier question and answer, and the most tokens of each."""
_LOWER, _WITHOUT_END, _WITH_GAPS, _GAPS = 0.2, 0.25, 0.2, 0.1
"""The shares of texts in lower case, of those without the sign at their end, of those with gaps, and of words left out
in these."""
_THOUGHT = "<think>\n\n</think>\n\n"
_ONSET, _SURE = 0.35, 0.6
"""The fractions of a harmful text: before the first nothing is taught of it, from the second on with full weight."""
_TAIL_TOKENS, _SILENT_TOKENS = 3, 8
"""So many tokens behind a harmful text are taught as it, and so many are passed over altogether."""
_WEIGHTS = {Severity.SAFE: 1.0, Severity.CONTROVERSIAL: 3.0, Severity.UNSAFE: 6.0}


@dataclass
class Stream:
    """A stream as token ids, with its targets by position."""

    ids: list[int]
    prompt_end: int
    """The position of the `<|im_end|>` of the user's turn."""
    prompt_severity: int
    """The turn's number in SEVERITIES, or -1 where nobody labelled it."""
    prompt_category: int
    """The turn's number in PROMPT_CATEGORIES, or -1."""
    first: int
    """The position of the answer's first token."""
    severities: list[int] = field(default_factory=list)
    """For each token of the answer, its number in SEVERITIES."""
    weights: list[float] = field(default_factory=list)
    """For each token of the answer; 0 teaches nothing."""
    categories: list[int] = field(default_factory=list)
    """For each token of the answer, its number in ANSWER_CATEGORIES, or -1."""
    onset: int | None = None
    """The number of the answer's token with which its first Unsafe text begins."""
    ends: int | None = None
    """The number of the token behind that text."""


@dataclass(frozen=True)
class Span:
    """Where in an answer a text is, in characters."""

    start: int
    end: int
    text: Text


@dataclass(frozen=True)
class Asked:
    """The user's turn before an answer."""

    question: str
    labels: Text | None
    """A text with the labels of the question; None: nobody labelled it."""
    earlier: Sequence[str] = ()
    """An earlier question and the answer to it."""


class Pool:
    """Texts, to draw from by kind and by language."""

    def __init__(self, texts: list[Text], shares: dict[Kind, float]) -> None:
        self._by: dict[str | None, dict[Kind, list[Text]]] = defaultdict(lambda: defaultdict(list))
        for text in texts:
            if text.kind in shares:
                for language in (None, text.language):
                    self._by[language][text.kind].append(text)
        self._shares = shares

    def draw(self, rng: random.Random, language: str | None = None) -> Text:
        """Draw a text of a language; None: of any."""
        kinds = self._by[language if language in self._by else None]
        names = list(kinds)
        return rng.choice(kinds[rng.choices(names, [self._shares[kind] for kind in names])[0]])


class Streams:
    """Draws streams from texts."""

    def __init__(self, texts: list[Text], tokenizer: Tokenizer, rng: random.Random) -> None:
        harmful = [each for each in texts if each.severity is not Severity.SAFE]
        sayable = [each for each in harmful if each.category is not Category.JAILBREAK and each.category is not None]
        self._safe = Pool([each for each in texts if each.severity is Severity.SAFE], SAFE_SHARES)
        self._harmful = Pool(sayable, HARMFUL_SHARES)
        self._asked = Pool([each for each in harmful if each.kind is not Kind.RESPONSE], HARMFUL_SHARES)
        self._languages = [each.language for each in texts if each.kind is not Kind.MANUAL]
        self._tokenizer = tokenizer
        self._rng = rng

    def stream(self, tokens: int) -> Stream:
        """Draw a stream of about `tokens` tokens, never more."""
        rng = self._rng
        language = rng.choice(self._languages) if rng.random() < _ONE_LANGUAGE else None
        prompt: Text | None = self.prompt(language)
        question = prompt.text if prompt else ""
        is_harmless = rng.random() < _HARMLESS_STREAMS
        answer, spans, room = "", [], tokens * 5
        while len(answer) < room:
            is_harmful = not is_harmless and rng.random() < _HARMFUL_TEXTS
            text = (self._harmful if is_harmful else self._safe).draw(rng, language)
            if not answer and text.question and rng.random() < 0.7:
                # The question before a harmful answer is harmful too. Before a harmless one, it may be either.
                question, prompt = text.question, text if is_harmful else None
            answer += rng.choice(SEPARATORS) if answer else ""
            if text.language == "en" and rng.random() < _LEADING:
                answer += rng.choice(_LEADS)
            said = styled(as_said(text, rng), rng)
            spans.append(Span(len(answer), len(answer) + len(said), text))
            answer += said
        thought = _THOUGHT if rng.random() < 0.1 else ""
        earlier = [self.prompt(language).text, self._safe.draw(rng, language).text] if rng.random() < _EARLIER else []
        return make(self._tokenizer, Asked(question, prompt, earlier), answer, spans, thought, tokens)

    def prompt(self, language: str | None) -> Text:
        """Draw a user's turn: half of them are harmful."""
        return (self._asked if self._rng.random() < 0.5 else self._safe).draw(self._rng, language)


def as_said(text: Text, rng: random.Random) -> str:
    """Write a request as the answer to it, where its form is known."""
    if text.language != "en" or text.kind not in (Kind.DATA, Kind.AUTHORED, Kind.ORDINARY) or rng.random() < 0.4:
        return text.text
    if (found := _QUESTION.match(text.text) or _HOW_TO.match(text.text)) is not None:
        return rng.choice(("To {}, first ", "Here is how to {}. ", "You can {} like this: ")).format(found[1])
    if text.severity is not Severity.SAFE and (found := _ORDER.match(text.text)) is not None:
        return rng.choice(("Here is the {}: ", "Sure, here is a {}: ", "The {} goes like this: ")).format(found[1])
    return text.text


def styled(text: str, rng: random.Random) -> str:
    """Change the style of some texts, so that no author's style is a sign of harm."""
    if rng.random() < _LOWER:
        text = text.lower()
    if rng.random() < _WITHOUT_END:
        text = text.rstrip(".!?。！？…") or text
    if rng.random() < _WITH_GAPS and text.count(" ") > 3:
        text = " ".join(word for word in text.split(" ") if rng.random() > _GAPS) or text
    return text


def make(tokenizer: Tokenizer, asked: Asked, answer: str, spans: list[Span], thought: str, tokens: int) -> Stream:
    """Encode a stream, and give each token of the answer the targets of the text in which it ends."""
    ids: list[int] = []
    for role, text in zip(("user", "assistant"), asked.earlier, strict=False):
        ids += fixed(tokenizer, f"<|im_start|>{role}\n")
        ids += content(tokenizer, text)[: min(_EARLIER_TOKENS, tokens // 4)]
        ids += fixed(tokenizer, "<|im_end|>\n")
    ids += fixed(tokenizer, "<|im_start|>user\n")
    ids += content(tokenizer, asked.question[:600])[: max(tokens // 2, 24)]
    ids += fixed(tokenizer, "<|im_end|>")
    prompt, prompt_end = asked.labels, len(ids) - 1
    ids += fixed(tokenizer, f"\n<|im_start|>assistant\n{thought}")
    encoded = tokenizer.encode(answer, add_special_tokens=False)
    room = max(8, tokens - len(ids))
    out = Stream(
        ids=ids + encoded.ids[:room],
        prompt_end=prompt_end,
        prompt_severity=SEVERITIES.index(prompt.severity) if prompt else -1,
        prompt_category=PROMPT_CATEGORIES.index(prompt.category) if prompt and prompt.category else -1,
        first=len(ids),
    )
    number, behind, last = 0, 10_000, None
    for token, (_, until) in enumerate(encoded.offsets[:room]):
        while number + 1 < len(spans) and until > spans[number + 1].start:
            number += 1
        span = spans[number]
        severity, weight, category = Severity.SAFE, _WEIGHTS[Severity.SAFE], -1
        if span.start < until <= span.end and span.text.severity is not Severity.SAFE:
            share = (until - span.start) / (span.end - span.start)
            severity, behind, last = span.text.severity, 0, span.text
            weight = _WEIGHTS[severity] * min(1.0, max(0.0, (share - _ONSET) / (_SURE - _ONSET)))
            if severity is Severity.UNSAFE and out.onset is None:
                out.onset = token
            if severity is Severity.UNSAFE and until == span.end and out.ends is None:
                out.ends = token + 1
        else:
            behind += 1
            if behind <= _SILENT_TOKENS:
                is_tail = behind <= _TAIL_TOKENS and last is not None
                severity = last.severity if is_tail and last else Severity.SAFE
                weight = 0.5 * _WEIGHTS[severity] if is_tail else 0.0
        if severity is not Severity.SAFE and last is not None and last.category in ANSWER_CATEGORIES:
            category = ANSWER_CATEGORIES.index(last.category)
        out.severities.append(SEVERITIES.index(severity))
        out.weights.append(weight)
        out.categories.append(category)
    return out


def fixed(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode a part of the template, as `workers.live.chatml` does: with its control tokens."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def content(tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode a turn. Texts of the data that contain control tokens lose them."""
    ids: list[int] = tokenizer.encode(re.sub(r"<\|\w+\|>", " ", text), add_special_tokens=False).ids
    return ids
