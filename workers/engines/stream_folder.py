"""The folder of the stream engine `onnxruntime`: what it holds, and the check that its files belong together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from workers.engines.stream_checkpoint import StreamConfig, read_config
from workers.errors import Misconfigured

MODEL = "model.onnx"
ABOUT = "guardline.json"
"""How the folder was made: the type of the weights, the digests of its files, and those of the checkpoint's."""

FORMAT = 1

ALONGSIDE = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""The files that are copied from the checkpoint, if it has them."""


class StreamFolder(NamedTuple):
    """What the engine has to know of a folder."""

    config: StreamConfig
    weights: str
    """`int8` or `float32`."""
    cache: str
    """The type of the keys and values: `int8` or `float32`."""


def write_about(folder: Path, source: Path, weights: str, cache: str) -> None:
    """Write `ABOUT`, last of all. The digests of `source` say which checkpoint the folder was made of."""
    about = {
        "format": FORMAT,
        "weights": weights,
        "cache": cache,
        "files": _digests(file for file in folder.iterdir() if file.name != ABOUT),
        "made_of": _digests([source / "config.json", *source.glob("*.safetensors")]),
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def read_folder(folder: Path) -> StreamFolder:
    """Check the folder, and read it.

    Raises:
        Misconfigured: it was not made by `guardline model convert`, or its files do not belong together.
    """
    about = _read_about(folder)
    for name, digest in about["files"].items():
        if not (folder / name).is_file():
            raise Misconfigured(f"streams.model: {folder} lacks {name}: convert the checkpoint again")
        if _digest(folder / name) != digest:
            raise Misconfigured(
                f"streams.model: {folder / name} was changed after the conversion: convert the checkpoint again"
            )
    return StreamFolder(read_config(folder), about["weights"], about.get("cache", "float32"))


def _read_about(folder: Path) -> Any:
    if not folder.is_dir():
        raise Misconfigured(f"streams.model: no such folder: {folder}")
    if not (folder / ABOUT).is_file():
        if (folder / "model.bin").is_file():
            raise Misconfigured(
                f"streams.model: {folder} is of the engine ctranslate2, which judges whole texts: streams need a "
                "checkpoint of the kind of Qwen3Guard-Stream"
            )
        if (folder / "config.json").is_file():
            read_config(folder)  # Of another kind, it cannot be converted either.
        raise Misconfigured(
            f"streams.model: {folder} has no {ABOUT}: the engine onnxruntime takes folders made by: "
            "guardline model convert CHECKPOINT FOLDER"
        )
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        found, files = about["format"], about["files"]
        is_valid = {about["weights"], about.get("cache", "float32")} <= {"int8", "float32"} and {
            MODEL,
            "config.json",
        } <= set(files)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(f"streams.model: {folder / ABOUT} is invalid: {error}") from error
    if found != FORMAT or not is_valid:
        raise Misconfigured(
            f"streams.model: {folder / ABOUT} has another format ({found}, not {FORMAT}): convert the checkpoint again"
        )
    return about


def _digests(files: Iterable[Path]) -> dict[str, str]:
    return {file.name: _digest(file) for file in sorted(files) if file.is_file()}


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
