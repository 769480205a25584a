"""The shipped checkpoint is whole and small, and its two forms agree."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import pytest

import infra.nano_stream
from tests.lines import TEXTS
from workers.engines.stream_checkpoint import read_config
from workers.engines.stream_folder import read_folder
from workers.guard.stream_convert import stream_agreement
from workers.live.load import stream_folder
from workers.settings import Streams

CHECKPOINT = Path(infra.nano_stream.__file__).parent / "checkpoint"
MOST_BYTES = 25_000_000


def test_the_files_stay_small_enough_for_the_repository() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file()) <= MOST_BYTES


@pytest.mark.parametrize("engine", ["onnxruntime", "transformers", "vllm"])
def test_each_engine_finds_its_folder(engine: str) -> None:
    folder = stream_folder(Streams.model_validate({"engine": engine}))
    assert folder.parent == Path(str(files("infra.nano_stream") / "checkpoint"))
    assert read_config(folder).window == 256


def test_the_graph_is_made_of_the_committed_weights() -> None:
    """`read_folder` compares the digests of all files of the graph's folder."""
    config, weights, _ = read_folder(CHECKPOINT / "onnx")
    assert weights == "int8"
    assert config == read_config(CHECKPOINT / "hf")
    about = json.loads((CHECKPOINT / "onnx" / "guardline.json").read_text(encoding="utf-8"))
    for name, digest in about["made_of"].items():
        assert hashlib.sha256((CHECKPOINT / "hf" / name).read_bytes()).hexdigest() == digest


async def test_int8_agrees_with_the_weights_in_float32() -> None:
    found = await stream_agreement(CHECKPOINT / "hf", CHECKPOINT / "onnx", TEXTS[:60])
    assert found is not None
    assert found.positions > 1_000
    assert found.same_severity > 0.98
    assert found.furthest < 0.1


def test_the_recommended_threshold_is_that_of_the_figures() -> None:
    threshold = json.loads((CHECKPOINT / "figures.json").read_text(encoding="utf-8"))["threshold"]
    for form in ("hf", "onnx"):
        config = json.loads((CHECKPOINT / form / "config.json").read_text(encoding="utf-8"))
        assert config["guardline"] == {"threshold": threshold}
