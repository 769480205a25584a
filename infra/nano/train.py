"""Trains guard-nano: `python -m infra.nano.train --data TEXTS.jsonl.gz --out FOLDER`. Seeded; see CARD.md.

Only the answer's tokens carry loss, and only there are logits computed: the vocabulary is most of so small a model.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.metrics import f1_score, roc_auc_score
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import Qwen3Config, Qwen3ForCausalLM

SEED = 17
VOCABULARY = 12_000
CONTENT_TOKENS = 80
SEVERITIES = ("Safe", "Controversial", "Unsafe")
CATEGORIES = (
    "Violent",
    "Non-violent Illegal Acts",
    "Sexual Content or Sexual Acts",
    "PII",
    "Suicide & Self-Harm",
    "Unethical Acts",
    "Politically Sensitive Topics",
    "Copyright Violation",
    "Jailbreak",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HERE = Path(__file__).parent


def template() -> jinja2.Template:
    """Give the chat template."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - it makes prompts, no HTML
    return environment.from_string((HERE / "chat_template.jinja").read_text())


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Train a byte-level BPE whose labels are words of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
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
    tokenizer.train_from_iterator([*texts, *(phrases * 2_000)], trainer)
    return tokenizer


def answer(severity: str, categories: list[str], refusal: str | None = None) -> str:
    """Write Qwen3Guard-Gen's answer."""
    lines = f"Safety: {severity}\nCategories: {', '.join(categories) or 'None'}"
    return lines if refusal is None else f"{lines}\nRefusal: {refusal}"


def first_tokens(tokenizer: Tokenizer, words: tuple[str, ...]) -> list[int]:
    """Give the first token of each word behind a space, all distinct."""
    ids = [tokenizer.encode(f" {word}").ids[0] for word in words]
    if len(set(ids)) != len(ids):
        raise SystemExit(f"labels share a first token: {dict(zip(words, ids, strict=True))}")
    return ids


def read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read the rows; hold 5 % of each source out."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rng = random.Random(SEED)  # noqa: S311 - a split, not a secret
    by_source = defaultdict(list)
    for row in rows:
        by_source[row["source"]].append(row)
    train, validation = [], []
    for source in sorted(by_source):
        group = by_source[source]
        rng.shuffle(group)
        cut = len(group) // 20
        validation += group[:cut]
        train += group[cut:]
    rng.shuffle(train)
    return train, validation


class Examples:
    """Token ids of prompts and answers."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.template = template()
        self.pieces = {role: self._pieces(role) for role in ("user", "assistant")}

    def _pieces(self, role: str) -> tuple[list[int], list[int]]:
        whole = self.template.render(messages=[{"role": role, "content": "\x00"}], add_generation_prompt=True)
        before, after = whole.split(" \x00\n\n")
        return self.tokenizer.encode(before).ids, self.tokenizer.encode(after).ids

    def prompt(self, content: list[int], role: str) -> list[int]:
        """Join fixed ids and content."""
        before, after = self.pieces[role]
        return before + content + after

    def contents(self, texts: list[str]) -> list[list[int]]:
        """Encode contents with the white space that belongs to them, cut to the training length at the front."""
        tail = self.tokenizer.encode("\n\n").ids
        encoded = self.tokenizer.encode_batch([f" {text}\n\n" for text in texts])
        return [e.ids if len(e.ids) <= CONTENT_TOKENS else e.ids[:CONTENT_TOKENS] + tail for e in encoded]


def batches(lengths: list[int], tokens: int, rng: random.Random) -> list[list[int]]:
    """Bucket by length, shuffle the buckets."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i] + rng.random() * 6))
    out: list[list[int]] = []
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[index] > tokens:
            out.append(batch)
            batch = []
        batch.append(index)
    out.append(batch)
    rng.shuffle(out)
    return out


def train(args: argparse.Namespace) -> None:
    """Train, measure, write."""
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    rng = random.Random(SEED)  # noqa: S311
    rows, validation = read(args.data)
    tokenizer = make_tokenizer([row["text"][:1000] for row in rows])
    first_tokens(tokenizer, (*CATEGORIES, "None"))
    first_tokens(tokenizer, ("Yes", "No"))
    severity_ids = first_tokens(tokenizer, SEVERITIES)
    examples = Examples(tokenizer)
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 8 // 3 // 32 * 32,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rope_theta=10_000.0,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        attention_dropout=0.1,
    )
    model = Qwen3ForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(rows)} texts, {len(validation)} held out")

    contents = examples.contents([row["text"] for row in rows])
    counts = Counter(row["source"] for row in rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.05)
    started, step, average = time.monotonic(), 0, None
    progress = tqdm(total=round(args.minutes * 60), unit="s")
    eos = tokenizer.token_to_id("<|im_end|>")
    model.train()
    while (elapsed := time.monotonic() - started) < args.minutes * 60:
        prompts: list[list[int]] = []
        answers: list[list[int]] = []
        # Sources are drawn by the root of their size, so that no single one teaches its label as a style.
        weights = [counts[row["source"]] ** -0.5 for row in rows]
        chosen = rng.choices(range(len(rows)), weights=weights, k=len(rows))
        for index in chosen:
            row = rows[index]
            role = "assistant" if rng.random() < 0.04 else "user"
            content = contents[index]
            if rng.random() < 0.3:
                content = [token for token in content if rng.random() > 0.1] or content
            prompts.append(examples.prompt(content, role))
            categories = [name for name in CATEGORIES if name in row["categories"]][:1]
            if role == "assistant":
                categories = [name for name in categories if name != "Jailbreak"]
            answers.append(
                [*tokenizer.encode(answer(row["safety"], categories, "No" if role == "assistant" else None)).ids, eos]
            )
        for batch in batches([len(p) + len(a) for p, a in zip(prompts, answers, strict=True)], args.tokens, rng):
            elapsed = time.monotonic() - started
            if elapsed >= args.minutes * 60:
                break
            part = elapsed / (args.minutes * 60)
            rate = args.rate * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * part)) + 1e-6
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, right = _step(model, [prompts[i] for i in batch], [answers[i] for i in batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            average = right if average is None else 0.98 * average + 0.02 * right
            progress.n = round(elapsed)
            progress.set_postfix(loss=f"{loss.item():.3f}", severity=f"{average:.3f}", step=step, refresh=step % 50 == 0)
    progress.close()
    figures = measure(model, examples, validation, severity_ids)
    write(model, tokenizer, args.out, figures)


def _step(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> tuple[Any, float]:
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True)) - 1
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    where: list[tuple[int, int]] = []
    targets: list[int] = []
    weights: list[float] = []
    severities: list[int] = []
    for row, (prompt, reply) in enumerate(zip(prompts, answers, strict=True)):
        whole = prompt + reply
        ids[row, : len(whole) - 1] = torch.tensor(whole[:-1])
        for offset, token in enumerate(reply):
            where.append((row, len(prompt) + offset - 1))
            targets.append(token)
            # Safety, :, the label, new line, Categories, :, the first category
            weights.append({2: 1.0, 6: 0.5}.get(offset, 0.05))
            if offset == 2:
                severities.append(len(targets) - 1)
    hidden = model.model(input_ids=ids).last_hidden_state
    at = torch.tensor(where)
    logits = model.lm_head(hidden[at[:, 0], at[:, 1]])
    target = torch.tensor(targets)
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    weight = torch.tensor(weights)
    right = (logits[severities].argmax(-1) == target[severities]).float().mean().item()
    return (losses * weight).sum() / len(prompts), right


def measure(model: Any, examples: Examples, rows: list[dict[str, Any]], severity_ids: list[int]) -> dict[str, Any]:
    """Score the held-out rows: probabilities of the three severities after the forced `Safety:`."""
    model.eval()
    forced = examples.tokenizer.encode("Safety:").ids
    prompts = [examples.prompt(content, "user") + forced for content in examples.contents([row["text"] for row in rows])]
    scores = np.zeros((len(rows), 3))
    with torch.no_grad():
        for batch in batches([len(p) for p in prompts], 8_000, random.Random(0)):  # noqa: S311
            longest = max(len(prompts[i]) for i in batch)
            ids = torch.zeros(len(batch), longest, dtype=torch.long)
            for row, index in enumerate(batch):
                ids[row, : len(prompts[index])] = torch.tensor(prompts[index])
            hidden = model.model(input_ids=ids).last_hidden_state
            last = torch.tensor([len(prompts[i]) - 1 for i in batch])
            logits = model.lm_head(hidden[torch.arange(len(batch)), last])[:, severity_ids]
            scores[batch] = torch.softmax(logits.float(), -1).numpy()
    gold = np.array([SEVERITIES.index(row["safety"]) for row in rows])
    return {"overall": _scores(gold, scores)} | {
        group: {
            name: _scores(gold[where], scores[where])
            for name in sorted({row[group] for row in rows})
            if (where := np.array([row[group] == name for row in rows])).sum() >= 20
        }
        for group in ("lang", "source")
    }


def _scores(gold: Any, scores: Any) -> dict[str, float]:
    guess = scores.argmax(-1)
    out = {
        "texts": len(gold),
        "strict_f1": f1_score(gold > 0, guess > 0, zero_division=0),
        "constant_strict_f1": f1_score(gold > 0, np.ones(len(gold)), zero_division=0),
        "loose_f1": f1_score(gold == 2, guess == 2, zero_division=0),
        "macro_f1": f1_score(gold, guess, average="macro", zero_division=0),
        "auc": roc_auc_score(gold > 0, 1 - scores[:, 0]) if 0 < (gold > 0).sum() < len(gold) else float("nan"),
    }
    return {name: round(float(value), 3) for name, value in out.items()}


def write(model: Any, tokenizer: Tokenizer, out: Path, figures: dict[str, Any]) -> None:
    """Write the Hugging Face folder; half precision halves it, and the labels stay the same."""
    folder = out / "hf"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {name: p.half().contiguous() for name, p in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.torch_dtype = "float16"
    model.config.architectures = ["Qwen3ForCausalLM"]
    model.config.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    chat_template = (HERE / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(chat_template)
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": False, "eos_token_id": 2, "pad_token_id": 0}) + "\n")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures["overall"]))


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rate", type=float, default=2e-3)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
