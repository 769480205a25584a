"""`guardline model`: checkpoints."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Annotated

import orjson
import typer

from workers import settings as settings_module
from workers.cli.tables import say
from workers.errors import Misconfigured

app = typer.Typer(no_args_is_help=True, help="Checkpoints.")


@app.command("convert")
def model_convert(
    model: Annotated[str, typer.Argument(help="A Hugging Face checkpoint: a folder, or NAME@COMMIT to download.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    quantization: Annotated[
        str | None,
        typer.Option(
            help="For Qwen3Guard-Gen: as CTranslate2 names it, int8_float32 by default. For Qwen3Guard-Stream: int8, "
            "the default, or float32."
        ),
    ] = None,
    cache: Annotated[
        str,
        typer.Option(help="For Qwen3Guard-Stream: the type of the keys and values of a session, float32 or int8."),
    ] = "float32",
    texts: Annotated[
        Path | None, typer.Option(help="Texts to compare on, one a line; a few hundred are bundled.")
    ] = None,
) -> None:
    """Convert a checkpoint, and print how often the result agrees with it.

    A checkpoint of the kind of Qwen3Guard-Gen becomes a folder for `guard.engine: ctranslate2`, and one of the kind of
    Qwen3Guard-Stream a folder for `streams.engine: onnxruntime`.
    """
    from workers.guard.convert import agreement, convert
    from workers.guard.load import checkpoint_folder
    from workers.guard.stream_convert import is_stream

    source = checkpoint_folder(model, engine="transformers")
    lines = _texts(texts)
    if is_stream(source):
        _convert_stream(source, output, quantization or "int8", cache, lines)
        return
    convert(source, output, quantization or "int8_float32")
    found = asyncio.run(agreement(source, output, lines, context_tokens=settings_module.load().guard.context_tokens))
    say(
        f"{output}: on {found.texts} texts the same severity for {found.same_severity:.1%} and the same categories for "
        f"{found.same_categories:.1%}; a score differs by at most {found.furthest_score:.3f}"
    )


def _convert_stream(source: Path, output: Path, weights: str, cache: str, texts: list[str]) -> None:
    """Convert a checkpoint for streams. A graph in float32 that differs from the reference is deleted."""
    from workers.guard.stream_convert import EXACT, convert_stream, stream_agreement

    if cache not in ("int8", "float32"):
        raise Misconfigured(f"--cache: int8 or float32, and not {cache}")
    convert_stream(source, output, weights, texts if cache == "int8" else ())
    found = asyncio.run(stream_agreement(source, output, texts))
    if found is None:
        say(f"{output}: not compared with the checkpoint, because transformers is not installed")
        return
    if weights == cache == "float32" and not found.furthest <= EXACT:
        shutil.rmtree(output)
        raise Misconfigured(
            f"cannot convert {source}: on {found.positions} tokens, a probability differs by {found.furthest:.3f} from "
            f"{found.reference}; in float32 at most {EXACT} is allowed"
        )
    say(
        f"{output}: on {found.positions} tokens of {found.texts} texts the same severity for "
        f"{found.same_severity:.1%}; a probability differs by at most {found.furthest:.2g}. "
        f"Compared with {found.reference}"
    )


def _texts(file: Path | None) -> list[str]:
    """Return the texts of a file, or those of the sample."""
    from importlib.resources import files

    try:
        if file is None:
            sample = files("infra.nano") / "sample.jsonl"
            return [str(orjson.loads(line)["text"]) for line in sample.read_text(encoding="utf-8").splitlines()]
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read {file}: {error}") from error
    if not lines:
        raise Misconfigured(f"{file} holds no text")
    return lines
