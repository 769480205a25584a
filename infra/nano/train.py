"""Trains guard-nano: `python -m infra.nano.train --data TEXTS.jsonl.gz --out FOLDER`. Seeded; see CARD.md.

Only the answer's tokens carry loss, and only there are logits computed: the vocabulary is most of so small a model.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import Qwen3Config, Qwen3ForCausalLM

from infra.nano.convert import convert
from infra.nano.data import SEED, Row, read
from infra.nano.measure import measure
from infra.nano.prompts import (
    CATEGORIES,
    CHAT_TEMPLATE,
    SEVERITIES,
    SPECIAL,
    Prompts,
    answer,
    first_tokens,
    make_tokenizer,
)

_TOKENIZER_CHARS = 1_000
_RESPONSE_SHARE = 0.04
"""No text is labelled as a response: so few are shown as one that the format is learnt and the labels stay."""
_THINNED_SHARE = 0.3
_DROPPED_TOKENS = 0.1
_WARM_UP_STEPS = 100
_SEVERITY_AT, _CATEGORY_AT = 2, 6
"""Positions in an answer: Safety, :, the severity, a new line, Categories, :, the first category."""
_LOSS_WEIGHTS = {_SEVERITY_AT: 1.0, _CATEGORY_AT: 0.5}
_FORMAT_WEIGHT = 0.05

Pair = tuple[list[int], list[int]]
"""Token ids of a prompt and of its answer."""


def new_model(vocabulary: int, hidden: int, layers: int) -> Qwen3ForCausalLM:
    """Give an untrained model with tied embeddings and one key-value head."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 32 * 32,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        rope_theta=10_000.0,
        bos_token_id=SPECIAL.index("<|endoftext|>"),
        eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=SPECIAL.index("<|endoftext|>"),
        attention_dropout=0.1,
    )
    return Qwen3ForCausalLM(config)


def draw_epoch(rows: list[Row], contents: list[list[int]], prompts: Prompts, rng: random.Random) -> list[Pair]:
    """Draw as many prompts and answers as there are rows.

    Sources are drawn by the root of their size, so that no single one teaches its label as a style; from some
    contents a tenth of the tokens is dropped, so that no wording is learnt by heart.
    """
    counts = Counter(row["source"] for row in rows)
    weights = [counts[row["source"]] ** -0.5 for row in rows]
    end = SPECIAL.index("<|im_end|>")
    pairs: list[Pair] = []
    for index in rng.choices(range(len(rows)), weights=weights, k=len(rows)):
        row, content = rows[index], contents[index]
        is_response = rng.random() < _RESPONSE_SHARE
        if rng.random() < _THINNED_SHARE:
            content = [token for token in content if rng.random() > _DROPPED_TOKENS] or content
        # One primary category a text, as in Qwen3Guard's training; Jailbreak is for prompts alone.
        categories = [name for name in CATEGORIES if name in row["categories"]][:1]
        if is_response:
            categories = [name for name in categories if name != "Jailbreak"]
        reply = answer(row["safety"], categories, "No" if is_response else None)
        prompt = prompts.around(content, "assistant" if is_response else "user")
        pairs.append((prompt, [*prompts.tokenizer.encode(reply).ids, end]))
    return pairs


def shuffled_batches(pairs: list[Pair], tokens: int, rng: random.Random) -> list[list[Pair]]:
    """Group pairs of like length, at most `tokens` padded positions a batch, and shuffle the batches."""
    out: list[list[Pair]] = []
    batch: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]) + rng.random() * 6):
        if batch and (len(batch) + 1) * (len(pair[0]) + len(pair[1])) > tokens:
            out.append(batch)
            batch = []
        batch.append(pair)
    out.append(batch)
    rng.shuffle(out)
    return out


def loss_of(model: Qwen3ForCausalLM, batch: list[Pair]) -> tuple[torch.Tensor, float]:
    """Give the weighted loss over the answers, and the share of right severities."""
    ids = torch.zeros(len(batch), max(len(p) + len(a) for p, a in batch) - 1, dtype=torch.long)
    where: list[tuple[int, int]] = []
    targets: list[int] = []
    weights: list[float] = []
    severities: list[int] = []
    for row, (prompt, reply) in enumerate(batch):
        whole = prompt + reply
        ids[row, : len(whole) - 1] = torch.tensor(whole[:-1])
        for offset, token in enumerate(reply):
            if offset == _SEVERITY_AT:
                severities.append(len(targets))
            where.append((row, len(prompt) + offset - 1))
            targets.append(token)
            weights.append(_LOSS_WEIGHTS.get(offset, _FORMAT_WEIGHT))
    hidden = model.model(input_ids=ids).last_hidden_state
    at = torch.tensor(where)
    logits = model.lm_head(hidden[at[:, 0], at[:, 1]])
    target = torch.tensor(targets)
    losses = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    right = (logits[severities].argmax(-1) == target[severities]).float().mean().item()
    return (losses * torch.tensor(weights)).sum() / len(batch), right


def fit(model: Qwen3ForCausalLM, rows: list[Row], prompts: Prompts, arguments: argparse.Namespace) -> None:
    """Train for `arguments.minutes` of wall time; the rate falls with the time that is left, not with the steps."""
    rng = random.Random(SEED)  # noqa: S311 - sampling, not a secret
    contents = prompts.contents([row["text"] for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.05)
    budget_s, started = arguments.minutes * 60, time.monotonic()
    step, average = 0, 0.0
    progress = tqdm(total=round(budget_s), unit="s")
    model.train()
    while time.monotonic() - started < budget_s:
        for batch in shuffled_batches(draw_epoch(rows, contents, prompts, rng), arguments.tokens, rng):
            elapsed = time.monotonic() - started
            if elapsed >= budget_s:
                break
            cosine = 0.5 + 0.5 * math.cos(math.pi * elapsed / budget_s)
            for group in optimizer.param_groups:
                group["lr"] = arguments.rate * min(1.0, (step + 1) / _WARM_UP_STEPS) * cosine + 1e-6
            loss, right = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            average = right if step == 1 else 0.98 * average + 0.02 * right
            progress.n = round(elapsed)
            if step % 50 == 0:
                progress.set_postfix(loss=f"{loss.item():.3f}", severity=f"{average:.3f}", step=step)
    progress.close()


def write(model: Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the Hugging Face folder, in half precision: half the size, and the same labels."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {name: p.half().contiguous() for name, p in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = "float16"
    model.config.architectures = ["Qwen3ForCausalLM"]
    model.config.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    shutil.copyfile(CHAT_TEMPLATE, folder / "chat_template.jinja")
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE.read_text(encoding="utf-8"),
    }
    generation = {
        "do_sample": False,
        "eos_token_id": SPECIAL.index("<|im_end|>"),
        "pad_token_id": SPECIAL.index("<|endoftext|>"),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation) + "\n", encoding="utf-8")


def main() -> None:
    """Train, write hf/ and ct2/, and measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="gzipped JSON lines: text, safety, categories, …")
    parser.add_argument("--out", type=Path, required=True, help="the folder for hf/, ct2/ and figures.json")
    parser.add_argument("--minutes", type=float, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2048, help="padded positions a batch")
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(arguments.threads)
    rows, _ = read(arguments.data)
    tokenizer = make_tokenizer([row["text"][:_TOKENIZER_CHARS] for row in rows])
    for words in (SEVERITIES, (*CATEGORIES, "None"), ("Yes", "No")):
        first_tokens(tokenizer, words)
    model = new_model(tokenizer.get_vocab_size(), arguments.hidden, arguments.layers)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(rows)} texts")
    fit(model, rows, Prompts(tokenizer), arguments)
    write(model, tokenizer, arguments.out / "hf")
    convert(arguments.out)
    measure(arguments.data, arguments.out)


if __name__ == "__main__":
    main()
