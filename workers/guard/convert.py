"""Makes the int8 folder for the `ctranslate2` engine, and measures how far it agrees with the checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.engine import Engine, Refused, all_or_refused
from workers.engines.lengths import keep_length
from workers.engines.transformers import TransformersEngine
from workers.errors import Misconfigured, to_install
from workers.guard import calibration
from workers.guard.guard import Assessment, Guard
from workers.guard.prompt import Request

ALONGSIDE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", calibration.FILE)
"""The files that the guard reads beside the weights. The template may be in the second one. The temperatures are valid
for the int8 weights too: a log-probability moves by at most 0.3, up or down by chance."""


@dataclass(frozen=True)
class Agreement:
    """How far two engines agree on the same texts: fractions of all texts, and the largest difference of a score."""

    texts: int
    same_severity: float
    same_categories: float
    furthest_score: float


def convert(source: Path, target: Path, quantization: str) -> None:
    """Convert the Hugging Face checkpoint in `source` to a new folder, with its calibration. All of it or nothing.

    Raises:
        Misconfigured: the extra is not installed, `target` exists, or the checkpoint cannot be converted.
    """
    if target.exists():
        raise Misconfigured(f"{target} exists already: name a new folder")
    try:
        import transformers  # noqa: F401  the converter needs it, and would say so less clearly
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise Misconfigured(f"the conversion needs the extra: {to_install('transformers')} ({error})") from error
    try:
        TransformersConverter(str(source)).convert(str(target), quantization=quantization)
        keep_length(source, target)
        for name in ALONGSIDE:
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, Exception):  # Each kind of file has an error of its own, such as SafetensorError.
            raise Misconfigured(f"cannot convert {source}: {error}") from error
        raise


async def agreement(source: Path, target: Path, texts: Sequence[str], *, context_tokens: int) -> Agreement:
    """Judge the texts by the checkpoint in float32 and by the converted folder."""
    engines: tuple[tuple[Engine, Path], ...] = (
        (TransformersEngine(source, context_tokens=context_tokens), source),
        (CTranslate2Engine(target, context_tokens=context_tokens), target),
    )
    reference, converted = [
        await _judged(Guard(engine, folder, folder.name, context_tokens=context_tokens), texts)
        for engine, folder in engines
    ]
    pairs = list(zip(reference, converted, strict=True))
    return Agreement(
        texts=len(pairs),
        same_severity=sum(one["severity"] == other["severity"] for one, other in pairs) / len(pairs),
        same_categories=sum(one["categories"] == other["categories"] for one, other in pairs) / len(pairs),
        furthest_score=max(
            abs(one["scores"][name] - other["scores"][name]) for one, other in pairs for name in one["scores"]
        ),
    )


async def _judged(guard: Guard, texts: Sequence[str]) -> list[Assessment]:
    await guard.start()
    try:
        answers = all_or_refused(await guard.assess([Request(text) for text in texts]))
    finally:
        await guard.close()
    if isinstance(answers, Refused):
        raise Misconfigured(f"{guard.model['name']} refuses one of the texts: {answers}")
    return answers
