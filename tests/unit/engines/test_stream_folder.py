"""`guardline model convert` of a checkpoint for streams, and the folder that it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.checkpoints.stream import weights, write_stream
from tests.command import guardline
from workers.engines import stream_graph
from workers.engines.stream_checkpoint import Weights
from workers.engines.stream_folder import read_folder
from workers.engines.stream_onnx import OnnxStreamEngine
from workers.errors import Misconfigured
from workers.guard.load import checkpoint_folder
from workers.guard.stream_convert import convert_stream


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"), window=256)


@pytest.fixture(scope="module")
def made(source: Path) -> Path:
    convert_stream(source, source / "int8", "int8")
    return source / "int8"


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return guardline("model", "convert", *arguments, code=code, timeout_s=120)


def test_the_command_recognises_the_checkpoint_and_says_how_far_the_folder_agrees(source: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("good morning\nhow are you?\nwie geht es dir?\n")
    said = run(source, tmp_path / "int8", "--texts", tmp_path / "texts").stdout
    assert "of 3 texts the same severity for" in said
    assert read_folder(tmp_path / "int8")[1:] == ("int8", "float32")


def test_a_folder_that_exists_and_unknown_weights_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="exists already"):
        convert_stream(source, tmp_path, "int8")
    with pytest.raises(Misconfigured, match="takes int8 or float32, and not int4"):
        convert_stream(source, tmp_path / "other", "int4")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["model.onnx", "config.json", "tokenizer.json"])
async def test_a_file_that_was_changed_or_is_missing_is_reported_at_the_start(
    made: Path, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "folder"))
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(Misconfigured, match=f"{name} was changed after the conversion"):
        await OnnxStreamEngine(folder).start()
    (folder / name).unlink()
    with pytest.raises(Misconfigured, match=f"lacks {name}"):
        await OnnxStreamEngine(folder).start()


@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        (Path("/no/such/folder"), "no such folder"),
        (checkpoint_folder("guard-nano"), "of the engine ctranslate2, which judges whole texts"),
        (checkpoint_folder("guard-nano", engine="transformers"), "guard.model takes checkpoints of the kind of"),
        (Path(__file__).parent, r"made by: guardline model convert CHECKPOINT FOLDER"),
    ],
)
async def test_a_folder_of_another_kind_is_refused_with_a_sentence(folder: Path, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=rf"^streams\.model: .*{sentence}"):
        await OnnxStreamEngine(folder).start()


async def test_a_checkpoint_that_was_not_converted_names_the_command(source: Path) -> None:
    with pytest.raises(Misconfigured, match="guardline model convert"):
        await OnnxStreamEngine(source).start()


@pytest.mark.parametrize(
    "about", ["", "[]", '{"format": 2, "files": {}, "weights": "int8", "cache": "int8"}', '{"format": 1}']
)
async def test_an_invalid_description_is_refused(made: Path, tmp_path: Path, about: str) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "folder"))
    (folder / "guardline.json").write_text(about)
    with pytest.raises(Misconfigured, match=r"guardline\.json (is invalid|has another format)"):
        await OnnxStreamEngine(folder).start()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "not a valid file of safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100), "not a valid file of safetensors"),
        (lambda folder: cut(folder / "model.safetensors"), "is invalid"),
        (lambda folder: save(folder, {"query_category_head.weight": None}), "the weights lack query_category_head"),
        (lambda folder: save(folder, {"model.norm.weight": np.ones(3, np.float32)}), r"has the shape \[3\]"),
        (
            lambda folder: save(folder, {"model.norm.weight": np.ones(64, np.int32)}),
            "model.norm.weight in .* is invalid",
        ),
    ],
)
def test_a_checkpoint_with_invalid_weights_is_refused_and_leaves_nothing(
    tmp_path: Path, spoil: Any, sentence: str
) -> None:
    folder = write_stream(tmp_path / "source")
    spoil(folder)
    with pytest.raises(Misconfigured, match=f"cannot convert: .*{sentence}"):
        convert_stream(folder, tmp_path / "out", "int8")
    assert not (tmp_path / "out").exists()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100_000])


def save(folder: Path, changes: dict[str, Any]) -> None:
    made = weights(0) | changes
    save_file({name: value for name, value in made.items() if value is not None}, folder / "model.safetensors")


def test_weights_are_read_in_every_type_and_from_several_files(tmp_path: Path) -> None:
    values = np.asarray([[1.5, -2.25], [0.0, 300.0]], np.float32)
    save_file({"a": values, "b": values.astype(np.float16)}, tmp_path / "one.safetensors")
    upper = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    header = json.dumps({"c": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "two.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + upper)
    index = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    read = Weights(tmp_path)
    for name in "abc":
        np.testing.assert_array_equal(read.tensor(name, 2, 2), values)


async def test_large_weights_are_in_a_file_of_their_own(
    source: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol buffers hold at most 2 GiB, and the published checkpoints have up to 8 billion weights."""
    monkeypatch.setattr(stream_graph, "MAX_FILE_BYTES", 1_000_000)
    convert_stream(source, tmp_path / "large", "int8")
    assert (tmp_path / "large" / "model.onnx.data").stat().st_size > (tmp_path / "large" / "model.onnx").stat().st_size
    rows = []
    for folder in (made, tmp_path / "large"):
        engine = OnnxStreamEngine(folder, max_sessions=1, max_tokens=100)
        await engine.start()
        rows.append((await engine.open(range(50, 90)))[1].risk)
        await engine.close()
    np.testing.assert_array_equal(rows[0], rows[1])
    with (tmp_path / "large" / "model.onnx.data").open("ab") as file:
        file.write(b" ")
    with pytest.raises(Misconfigured, match="data was changed after the conversion"):
        await OnnxStreamEngine(tmp_path / "large").start()


async def test_more_sessions_than_the_memory_holds_are_refused(made: Path) -> None:
    with pytest.raises(Misconfigured, match=r"streams\.max_sessions: 10000000 sessions of 4096 tokens .* GB for keys"):
        await OnnxStreamEngine(made, max_sessions=10_000_000, max_tokens=4_096).start()


async def test_an_old_onnxruntime_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    schemas = [schema for schema in state.get_all_operator_schema() if schema.name != "GroupQueryAttention"]
    monkeypatch.setattr(state, "get_all_operator_schema", lambda: schemas)
    with pytest.raises(Misconfigured, match="is too old: its GroupQueryAttention has no query_seqlens"):
        await OnnxStreamEngine(made).start()
