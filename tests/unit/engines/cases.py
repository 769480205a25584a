"""The engines that can run here, each with its tolerance against the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.sglang import serve as sglang
from tests.unit.engines.reference import CONTEXT_TOKENS
from tests.vllm.serve import served
from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.engine import Engine
from workers.engines.openai import OpenAIEngine
from workers.engines.transformers import TransformersEngine
from workers.engines.vllm import VllmEngine
from workers.errors import Fatal, GuardlineError, Unavailable
from workers.guard.convert import convert
from workers.guard.load import TOKENIZED, checkpoint_folder
from workers.guard.tokens import Tokens


@dataclass(frozen=True)
class Case:
    """One engine under test."""

    name: str
    package: str | None
    """The package with its own environment that the engine needs."""
    make: Callable[[], Engine]
    make_overflowing: Callable[[Path], Engine]
    """Make an engine on another checkpoint in Hugging Face's format."""
    tolerance: float
    """The largest difference of a log-probability from the reference, on prompts of real texts."""
    drift: float
    """The largest change of a log-probability with the rest of the batch."""
    is_exact: bool = True
    """Whether the weights equal those of the reference, so that completions of arbitrary ids are equal as well."""
    same_completions: float = 1.0
    """The fraction of real texts whose completions must equal the reference."""
    leaks_nan: bool = False
    """Whether NaN of one prompt may reach others: seen with vLLM 0.32 on a CPU, for prompts that do not fill a block of
    its cache of keys and values, also when they are asked alone later: NaN times zero is NaN."""
    make_mortal: Callable[[], Engine] | None = None
    """Make an engine with its own processes, which a test may kill; None if the engine is part of this process."""
    death: type[GuardlineError] = Unavailable
    """The error after that: servers may recover, and an engine process does not."""


def openai_engine(
    *urls: str,
    model: str | None = None,
    api_key: str = "",
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    timeout_s: float = 30,
) -> OpenAIEngine:
    """Make an engine that expects its servers to serve guard-nano."""
    tokens = Tokens(checkpoint_folder("guard-nano", engine="openai"))
    return OpenAIEngine(
        urls,
        model=model,
        tokenized={text: tokens.fixed(text) for text in TOKENIZED},
        vocabulary=tokens.size,
        context_tokens=CONTEXT_TOKENS,
        api_key=api_key,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        timeout_s=timeout_s,
    )


def converted(folder: Path) -> Path:
    """Convert a checkpoint for CTranslate2."""
    target = folder.with_name(f"{folder.name}-ct2")
    convert(folder, target, "float32")  # As int8, NaN would be a number.
    return target


def vllm_engine(folder: Path | None = None) -> VllmEngine:
    """Make an engine on vLLM in this process."""
    return VllmEngine(
        folder or checkpoint_folder("guard-nano", engine="vllm"),
        {"dtype": "float32", "enforce_eager": True},
        context_tokens=CONTEXT_TOKENS,
    )


CASES = (
    Case(
        "ctranslate2",
        None,
        lambda: CTranslate2Engine(checkpoint_folder("guard-nano"), threads=2, context_tokens=CONTEXT_TOKENS),
        lambda folder: CTranslate2Engine(converted(folder), threads=2, context_tokens=CONTEXT_TOKENS),
        # int8 depends on the CPU: 0.09 where it has VNNI, 0.22 where products are added up in 16 bits, which overflow.
        tolerance=0.3,
        drift=1e-3,
        is_exact=False,
        same_completions=0.9,
    ),
    Case(
        "transformers",
        "transformers",
        lambda: TransformersEngine(
            checkpoint_folder("guard-nano", engine="transformers"), threads=1, context_tokens=CONTEXT_TOKENS
        ),
        lambda folder: TransformersEngine(folder, threads=1, context_tokens=CONTEXT_TOKENS),
        tolerance=1e-4,
        drift=0,
    ),
    Case(
        "vllm",
        "vllm",
        vllm_engine,
        vllm_engine,
        tolerance=1e-3,
        drift=1e-3,
        leaks_nan=True,
        make_mortal=vllm_engine,
        death=Fatal,
    ),
    Case(
        "openai",
        "vllm",
        lambda: openai_engine(served()),
        lambda folder: openai_engine(served(folder)),
        tolerance=1e-3,
        drift=1e-3,
        leaks_nan=True,
        make_mortal=lambda: openai_engine(served.__wrapped__()),
    ),
    Case(
        "openai-sglang",
        "sglang",
        lambda: openai_engine(sglang.served()),
        lambda folder: openai_engine(sglang.served(folder)),
        tolerance=1e-3,
        drift=1e-3,
        make_mortal=lambda: openai_engine(sglang.served.__wrapped__()),
    ),
)

OVERFLOWING = [
    # To convert a checkpoint takes transformers, which CTranslate2 itself does not need.
    pytest.param(case, id=case.name, marks=pytest.mark.needs(case.package or "transformers"))
    for case in CASES
]
PARAMETERS = [
    pytest.param(case, id=case.name, marks=[pytest.mark.needs(case.package)] if case.package else []) for case in CASES
]
