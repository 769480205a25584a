"""Prompts and answers of guard-nano as token ids: fixed ids + content + fixed ids.

Training, measuring and serving must make the same ids; a border anywhere else tokenises unlike training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from schemas.taxonomy import Category, Severity

VOCABULARY = 48_000
CONTENT_TOKENS = 80
SEVERITIES = tuple(severity.value for severity in Severity)
CATEGORIES = tuple(category.value for category in Category)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = Path(__file__).parent / "chat_template.jinja"

# The split of Qwen's tokenizer, with combining marks kept in their word: Hindi and Thai fall apart without them.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PHRASE_REPEATS = 2_000
"""How often the answers are added to the tokenizer's texts: enough that each label becomes a token of its own."""


def template() -> jinja2.Template:
    """Give the chat template."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - it makes prompts, no HTML
    return environment.from_string(CHAT_TEMPLATE.read_text(encoding="utf-8"))


def answer(severity: str, categories: list[str], refusal: str | None = None) -> str:
    """Write an answer as Qwen3Guard-Gen does; `refusal` is Yes or No in response mode and None in prompt mode."""
    lines = f"Safety: {severity}\nCategories: {', '.join(categories) or 'None'}"
    return lines if refusal is None else f"{lines}\nRefusal: {refusal}"


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Train a byte-level BPE in which each label's first word is a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    fixed = template().render(messages=[{"role": "assistant", "content": "x"}], add_generation_prompt=True)
    phrases = [fixed.replace("<|im_start|>", "").replace("<|im_end|>", "")]
    phrases += [answer(severity, [category], "No") for severity in SEVERITIES for category in CATEGORIES]
    phrases += [answer("Safe", [], "Yes"), "USER: ASSISTANT:"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *(phrases * _PHRASE_REPEATS)], trainer)
    return tokenizer


def first_tokens(tokenizer: Tokenizer, words: tuple[str, ...]) -> list[int]:
    """Give the id of each word's first token behind a space.

    Raises SystemExit where two words share it: one forward pass could not tell them apart.
    """
    ids = [tokenizer.encode(f" {word}").ids[0] for word in words]
    if len(set(ids)) != len(ids):
        raise SystemExit(f"labels share a first token: {dict(zip(words, ids, strict=True))}")
    return ids


@dataclass(frozen=True)
class Labels:
    """The ids of the tokens that name each severity, each category, and `Yes` and `No`."""

    severities: list[int]
    categories: list[int]
    refusals: list[int]


def labels_of(tokenizer: Tokenizer) -> Labels:
    """Find the ids of the labels. Raises SystemExit where two labels of a kind share their first token."""
    first_tokens(tokenizer, (*CATEGORIES, "None"))
    return Labels(
        first_tokens(tokenizer, SEVERITIES), first_tokens(tokenizer, CATEGORIES), first_tokens(tokenizer, ("Yes", "No"))
    )


class Prompts:
    """The fixed ids around a content, found by rendering the chat template around a sentinel.

    `forced` are the ids of `Safety:`, with which every answer begins.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._around = {role: self._fixed(role) for role in ("user", "assistant")}
        self._names = [tokenizer.encode(f"{name}:").ids for name in ("USER", "ASSISTANT")]
        self._tail = tokenizer.encode("\n\n").ids
        self.forced = tokenizer.encode("Safety:").ids

    def _fixed(self, role: str) -> tuple[list[int], list[int]]:
        whole = template().render(messages=[{"role": role, "content": "\x00"}], add_generation_prompt=True)
        before, after = whole.split(" \x00\n\n")
        return self.tokenizer.encode(before).ids, self.tokenizer.encode(after).ids

    def around(self, content: list[int], role: str = "user") -> list[int]:
        """Put the fixed ids before and behind a content's ids."""
        before, after = self._around[role]
        return before + content + after

    def conversation(self, contents: list[list[int]]) -> list[int]:
        """Put the fixed ids around the contents of turns: a user's, an assistant's, and so on."""
        before, after = self._around["user"][0], self._around["user" if len(contents) % 2 else "assistant"][1]
        out = before + contents[0]
        for number, content in enumerate(contents[1:], 1):
            out += self._names[number % 2] + content
        return out + after

    def contents(self, texts: list[str], limit: int = CONTENT_TOKENS) -> list[list[int]]:
        """Encode texts as the template shows them: without white space at the ends, at most `limit` tokens."""
        encoded = self.tokenizer.encode_batch([f" {text.strip()}\n\n" for text in texts])
        return [e.ids if len(e.ids) <= limit else e.ids[:limit] + self._tail for e in encoded]


def batches_by_length(lengths: list[int], tokens: int) -> list[list[int]]:
    """Group indices of like length so that a padded batch holds at most `tokens` positions, shortest first."""
    out: list[list[int]] = []
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > tokens:
            out.append(batch)
            batch = []
        batch.append(index)
    return [*out, batch] if batch else out
