"""Makes the folder for the stream engine `onnxruntime` of a checkpoint, and measures how far it agrees with it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workers.engines.stream import Judged, StreamEngine
from workers.engines.stream_checkpoint import ARCHITECTURE, Weights, read_config
from workers.engines.stream_folder import ALONGSIDE, MODEL, read_folder, write_about
from workers.engines.stream_graph import GraphWriter, Scales
from workers.engines.stream_onnx import OnnxStreamEngine, largest_cached
from workers.engines.stream_transformers import TransformersStreamEngine
from workers.errors import Misconfigured, Unjudgeable, to_install
from workers.guard.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

EXACT = 1e-3
"""A float32 graph that differs by more is wrong. On the small checkpoint of the tests, it differed by 2e-6."""

MARGIN = 1.1
"""How far keys and values of other texts may exceed the largest one of the texts that set the scales."""

MAX_TOKENS = 512
"""Tokens of a text that are compared, at most."""


@dataclass(frozen=True)
class StreamAgreement:
    """How far two engines agree at the same positions of the same texts."""

    texts: int
    positions: int
    same_severity: float
    """The fraction of the positions with the same most likely severity."""
    furthest: float
    """The largest difference of a probability."""
    reference: str
    """What the folder was compared with."""


def is_stream(folder: Path) -> bool:
    """Whether a checkpoint is of the kind of Qwen3Guard-Stream."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("architectures") == [ARCHITECTURE]


def convert_stream(source: Path, target: Path, weights: str, cache_texts: Sequence[str] = ()) -> None:
    """Write the checkpoint in `source` as a new folder for `OnnxStreamEngine`. All of it or nothing.

    `weights`: `int8` or `float32`. With `cache_texts`, the engine keeps keys and values in int8, scaled by those of
    these texts: they take a quarter of the memory, and a token behind thousands of others takes less time.

    Raises:
        Misconfigured: the extra is not installed, `target` exists, or the checkpoint cannot be converted.
    """
    if weights not in ("int8", "float32"):
        raise Misconfigured(f"--quantization: a stream engine takes int8 or float32, and not {weights}")
    if target.exists():
        raise Misconfigured(f"{target} exists already: name a new folder")
    if find_spec("onnx") is None:
        raise Misconfigured(f"the conversion needs the extra: {to_install('streams')}")
    config = read_config(source, "cannot convert")
    if cache_texts and config.window is not None:
        raise Misconfigured(f"cannot convert {source} with a cache in int8: its layers see only {config.window} tokens")
    try:
        with _all_or_nothing(target):
            scales = _scales(source, target, weights, cache_texts) if cache_texts else None
            tensors = Weights(source, "cannot convert")
            GraphWriter(config, tensors, is_int8=weights == "int8", scales=scales).write(target / MODEL)
            for name in ALONGSIDE:
                if (source / name).is_file():
                    shutil.copyfile(source / name, target / name)
            write_about(target, source, weights, "int8" if cache_texts else "float32")
    except OSError as error:
        raise Misconfigured(f"cannot write {target}: {error}") from error


def _scales(source: Path, target: Path, weights: str, texts: Sequence[str]) -> Scales:
    """Judge texts with a cache in float32; return the scales for what it held."""
    with tempfile.TemporaryDirectory(dir=target) as folder:
        convert_stream(source, Path(folder) / weights, weights)
        turns = [[*user, *answer] for user, answer in _turns(source, texts)]
        largest = largest_cached(Path(folder) / weights, turns)
    return {name: MARGIN * (value or 1) / 127 for name, value in largest.items()}


@contextmanager
def _all_or_nothing(target: Path) -> Iterator[None]:
    target.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


async def stream_agreement(source: Path, target: Path, texts: Sequence[str]) -> StreamAgreement | None:
    """Judge the texts by the checkpoint in float32 and by the converted folder: each as an answer to the one before it.

    The reference is transformers. If it is not installed, the graph in float32 replaces it, which shows only what int8
    changes, and a folder in float32 is not compared.
    """
    turns = _turns(source, texts)
    has_reference = find_spec("torch") is not None and find_spec("transformers") is not None
    if not has_reference and "int8" not in read_folder(target)[1:]:
        return None
    found = await _judged(OnnxStreamEngine(target, max_sessions=1, max_tokens=2 * MAX_TOKENS), turns)
    if has_reference:
        name = "transformers in float32"
        expected = await _judged(TransformersStreamEngine(source, max_sessions=1, max_tokens=2 * MAX_TOKENS), turns)
    else:
        name = "the graph in float32, because transformers is not installed"
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            convert_stream(source, Path(folder) / "float32", "float32")
            expected = await _judged(
                OnnxStreamEngine(Path(folder) / "float32", max_sessions=1, max_tokens=2 * MAX_TOKENS), turns
            )
    return _compared(expected, found, len(texts), name)


def _compared(expected: Sequence[Judged], found: Sequence[Judged], texts: int, name: str) -> StreamAgreement:
    pairs = list(zip(expected, found, strict=True))
    same = np.concatenate([one.risk.argmax(-1) == other.risk.argmax(-1) for one, other in pairs])
    furthest = max(
        float(np.abs(getattr(one, field) - getattr(other, field)).max())
        for one, other in pairs
        for field in Judged.__struct_fields__
    )
    return StreamAgreement(texts, len(same), float(same.mean()), furthest, name)


def _turns(source: Path, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Return the ids of each text as an answer, behind those of the text before it as the user's turn."""
    tokens = Tokens(source)
    return [
        (
            tokens.fixed(f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n")[-MAX_TOKENS:],
            (tokens.fixed(answer) or tokens.fixed(" "))[:MAX_TOKENS],
        )
        for user, answer in zip(["", *texts], texts, strict=False)
    ]


async def _judged(engine: StreamEngine, turns: Sequence[tuple[list[int], list[int]]]) -> list[Judged]:
    found = []
    await engine.start()
    try:
        for user, answer in turns:
            session, judged = await engine.open(user)
            found += [judged, await engine.append(session, answer)]
            await engine.end(session)
    except Unjudgeable as error:
        raise Misconfigured(f"one of the texts cannot be judged by {engine.identity}: {error}") from error
    finally:
        await engine.close()
    return found
