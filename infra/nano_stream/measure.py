"""Chooses nano-stream's threshold, and measures the committed graph: see `make nano-stream`.

The threshold is chosen on development streams by their benign cuts, and everything else is measured on streams of other
texts. The figures go to figures.json beside the checkpoint, and the threshold into its config.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

import infra.nano
from infra.nano.authored import Part
from infra.nano.data import SEED, read
from infra.nano_stream.held_out import Group, HeldOut, held_out
from infra.nano_stream.streams import content, fixed
from infra.nano_stream.texts import Kind, Text, texts
from schemas.stream import PROMPT_CATEGORIES, SEVERITIES
from workers.engines.stream import Judged, StreamEngine
from workers.engines.stream_onnx import OnnxStreamEngine
from workers.evaluation.stream_samples import StreamGold, StreamSample
from workers.evaluation.stream_score import DETECTED, Latency, Rules, latency, score_streams
from workers.guard.stream_convert import convert_stream, stream_agreement
from workers.policy.streams import DIGITS

CHECKPOINT = Path(__file__).parent / "checkpoint"
SAMPLE = Path(infra.nano.__file__).parent / "sample.jsonl"
MOST_BENIGN_CUTS = 50
"""The most benign cuts in 1,000 streams that the recommended threshold may have."""
AIMED_BENIGN_CUTS = 40
"""What it is chosen for on the development streams: other texts are cut a little more often."""
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)
_STREAMS = {Group.ORDINARY: 1_000, Group.AUTHORED: 200, Group.NEAR: 200, Group.HARMFUL: 500}


async def judge(streams: Sequence[HeldOut], engine: StreamEngine) -> list[StreamSample]:
    """Judge all positions of the answers."""
    out = []
    for each in streams:
        session, _ = await engine.open(each.ids[: each.first])
        judged = await engine.append(session, each.ids[each.first :])
        await engine.end(session)
        rows = np.round(judged.risk.astype(np.float64), DIGITS).tolist()
        gold = StreamGold(severity=each.severity, onset=each.onset)
        fields = {"group": each.group.value, "planted": each.planted, "language": each.language}
        out.append(StreamSample(gold, [(safe, some, unsafe) for safe, some, unsafe in rows], fields))
    return out


def threshold_for(samples: list[StreamSample], most_cuts: float) -> float:
    """Return the lowest threshold, in thousandths, that cuts at most so many of 1,000 streams."""
    peaks = sorted((_peak(sample) for sample in samples), reverse=True)
    allowed = int(most_cuts * len(samples) / 1_000)
    highest = peaks[allowed] if allowed < len(peaks) else 0.0
    return float(min(1.0, (np.floor(highest * 1_000) + 1) / 1_000))


def _peak(sample: StreamSample) -> float:
    """Return the highest threshold at which two positions in a row are over it."""
    unsafe = np.array([row[2] for row in sample.risk])
    return float(np.minimum(unsafe[1:], unsafe[:-1]).max(initial=0.0))


async def prompts(asked: Sequence[Text], engine: StreamEngine, tokenizer: Tokenizer) -> dict[str, float | int]:
    """Measure the heads of the user's turn on single texts: Safe against the rest, and the category."""
    found: list[Judged] = []
    for each in asked:
        ids = [*fixed(tokenizer, "<|im_start|>user\n"), *content(tokenizer, each.text), *fixed(tokenizer, "<|im_end|>")]
        session, judged = await engine.open(ids)
        await engine.end(session)
        found.append(judged)
    severities = np.array([judged.prompt_risk.argmax() for judged in found])
    categories = np.array([judged.prompt_categories.argmax() for judged in found])
    gold = np.array([SEVERITIES.index(each.severity) for each in asked])
    kinds = np.array([PROMPT_CATEGORIES.index(each.category) if each.category else -1 for each in asked])
    harmful, flagged = gold > 0, severities > 0
    hits = harmful & flagged
    return {
        "texts": len(asked),
        "f1": round(float(2 * hits.sum() / max(1, harmful.sum() + flagged.sum())), 3),
        "found": round(float(flagged[harmful].mean()), 3),
        "false_alarms": round(float(flagged[~harmful].mean()), 3),
        "category": round(float((categories == kinds)[hits].mean()), 3),
    }


async def measure(
    engine: StreamEngine, tokenizer: Tokenizer, parts: dict[Part, list[Text]], scale: float
) -> dict[str, Any]:
    """Choose the threshold and measure. `scale` multiplies the numbers of streams."""

    async def judged(part: Part, group: Group) -> list[StreamSample]:
        return await judge(held_out(parts[part], group, int(_STREAMS[group] * scale), tokenizer, SEED), engine)

    await engine.start()
    try:
        threshold = threshold_for(await judged(Part.DEVELOPMENT, Group.ORDINARY), AIMED_BENIGN_CUTS)
        samples = {group: await judged(Part.HOLDOUT, group) for group in Group}
        asked = [each for each in parts[Part.HOLDOUT] if each.kind is Kind.AUTHORED]
        prompt_figures = await prompts(asked, engine, tokenizer)
    finally:
        await engine.close()
    everything = [sample for group in samples.values() for sample in group]
    return {
        "threshold": threshold,
        "streams": score_streams(everything, Rules(threshold=threshold), by=["group", "planted"], rounds=1_000, seed=0),
        "curve": [_point(samples, at) for at in sorted({*THRESHOLDS, threshold})],
        "before_onset": list(_by_context(samples[Group.HARMFUL], threshold)),
        "prompts": prompt_figures,
    }


def cuts(samples: Sequence[StreamSample], threshold: float) -> list[int | None]:
    """Return where two positions in a row are over the threshold, in each stream: what `Rules.cut` returns, sooner."""
    out: list[int | None] = []
    for sample in samples:
        unsafe = np.array([row[2] for row in sample.risk]) >= threshold
        both = np.flatnonzero(unsafe[1:] & unsafe[:-1])
        out.append(int(both[0]) + 1 if len(both) else None)
    return out


def _point(samples: dict[Group, list[StreamSample]], threshold: float) -> dict[str, Any]:
    found = {group: cuts(those, threshold) for group, those in samples.items()}
    benign = {
        name: 1_000 * float(np.mean([cut is not None for cut in found[group]]))
        for name, group in (("benign", Group.ORDINARY), ("authored", Group.AUTHORED), ("near", Group.NEAR))
    }
    return {
        "threshold": threshold,
        **{f"{name}_cuts_per_1000": round(share, 1) for name, share in benign.items()},
        **_latencies(samples[Group.HARMFUL], found[Group.HARMFUL]),
    }


def _latencies(samples: Sequence[StreamSample], found: Sequence[int | None]) -> dict[str, float]:
    counted = Counter(
        latency(cut, sample.gold.onset)
        for sample, cut in zip(samples, found, strict=True)
        if sample.gold.onset is not None
    )
    total = max(1, counted.total())
    out = {name.value: round(counted[name] / total, 4) for name in Latency}
    return {**out, "detected_within_32": round(sum(counted[name] for name in DETECTED) / total, 4)}


def _by_context(samples: Sequence[StreamSample], threshold: float) -> Iterator[dict[str, Any]]:
    """Give the detections by the number of tokens before the onset."""
    for low, high in ((0, 60), (60, 120), (120, 180), (180, 1_000)):
        those = [sample for sample in samples if sample.gold.onset is not None and low <= sample.gold.onset < high]
        yield {
            "tokens": f"{low} to {high - 1}" if high < 1_000 else f"{low} and more",
            "streams": len(those),
            **_latencies(those, cuts(those, threshold)),
        }


def recommend(folder: Path, threshold: float) -> None:
    """Write the recommended threshold into a checkpoint's config.json."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["guardline"] = {"threshold": threshold}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def agreement(checkpoint: Path) -> dict[str, Any]:
    """Say how far the graph agrees with the weights, on the bundled sample of texts."""
    texts_ = [json.loads(line)["text"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    found = asyncio.run(stream_agreement(checkpoint / "hf", checkpoint / "onnx", texts_))
    assert found is not None
    return asdict(found)


def convert(checkpoint: Path) -> None:
    """Make `checkpoint`/onnx of `checkpoint`/hf."""
    shutil.rmtree(checkpoint / "onnx", ignore_errors=True)
    convert_stream(checkpoint / "hf", checkpoint / "onnx", "int8")


def main() -> None:
    """Convert the checkpoint, measure the graph, and convert it again with the threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the file with the training texts")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of streams")
    arguments = parser.parse_args()
    convert(arguments.checkpoint)
    tokenizer = Tokenizer.from_file(str(arguments.checkpoint / "hf" / "tokenizer.json"))
    rows = read(arguments.data)
    parts = {part: texts(part, rows) for part in (Part.DEVELOPMENT, Part.HOLDOUT)}
    engine = OnnxStreamEngine(arguments.checkpoint / "onnx", max_sessions=1)
    figures = asyncio.run(measure(engine, tokenizer, parts, arguments.scale))
    figures["int8"] = agreement(arguments.checkpoint)
    recommend(arguments.checkpoint / "hf", figures["threshold"])
    convert(arguments.checkpoint)
    path = arguments.checkpoint / "figures.json"
    path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for point in figures["curve"]:
        print(point)


if __name__ == "__main__":
    main()
