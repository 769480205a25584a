"""`guardline model`: checkpoints."""

from __future__ import annotations

import asyncio
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
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, for the engine 'ctranslate2'.")],
    quantization: Annotated[str, typer.Option(help="The quantization, as CTranslate2 names it.")] = "int8_float32",
    texts: Annotated[
        Path | None, typer.Option(help="Texts to compare on, one a line; a few hundred are bundled.")
    ] = None,
) -> None:
    """Convert a checkpoint, and print how often the result agrees with it."""
    from workers.guard.convert import agreement, convert
    from workers.guard.load import checkpoint_folder

    source = checkpoint_folder(model, engine="transformers")
    lines = _texts(texts)
    convert(source, output, quantization)
    found = asyncio.run(agreement(source, output, lines, context_tokens=settings_module.load().guard.context_tokens))
    say(
        f"{output}: on {found.texts} texts the same severity for {found.same_severity:.1%} and the same categories for "
        f"{found.same_categories:.1%}; a score differs by at most {found.furthest_score:.3f}"
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
