"""Where a checkpoint is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.benchmarks.stand_ins import InstantEngine, UncheckedGuard
from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.openai import OpenAIEngine
from workers.engines.transformers import TransformersEngine
from workers.engines.vllm import VllmEngine
from workers.errors import Misconfigured
from workers.guard.load import checkpoint_folder, load_engine
from workers.settings import Guard, OpenAI


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, and no hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_name_is_found_in_the_cache_of_the_hub(cache: Path) -> None:
    model = cache / "models--Qwen--Guard"
    snapshot = model / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a" * 40)
    assert checkpoint_folder("Qwen/Guard", engine="vllm") == snapshot


def test_a_name_that_cannot_be_downloaded_is_a_sentence(cache: Path) -> None:
    with pytest.raises(Misconfigured, match=r"guard\.model: no folder Qwen/Guard, and no such model"):
        checkpoint_folder("Qwen/Guard", engine="vllm")


def test_a_name_is_no_converted_folder(cache: Path) -> None:
    with pytest.raises(
        Misconfigured, match=r"guard\.model: no such folder: Qwen/Guard .*model convert Qwen/Guard FOLDER"
    ):
        checkpoint_folder("Qwen/Guard", engine="ctranslate2")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "x"}, "'model' cannot be set: set guard.model"),
        ({"max_model_len": 100}, "max_model_len is 100, and has to be a number of at least guard.context_tokens"),
    ],
)
def test_an_argument_of_vllm_that_would_contradict_is_refused(arguments: dict[str, object], sentence: str) -> None:
    folder = checkpoint_folder("guard-nano", engine="vllm")
    assert isinstance(load_engine(Guard(engine="vllm"), folder), VllmEngine)
    with pytest.raises(Misconfigured, match=sentence):
        load_engine(Guard(engine="vllm", vllm=arguments), folder)


def test_the_engine_for_servers_needs_a_server() -> None:
    folder = checkpoint_folder("guard-nano", engine="openai")
    servers = OpenAI(urls=["http://vllm:8000"])
    assert isinstance(load_engine(Guard(engine="openai", openai=servers), folder), OpenAIEngine)
    with pytest.raises(Misconfigured, match=r"guard\.openai\.urls"):
        load_engine(Guard(engine="openai"), folder)


async def revision_of(folder: Path, engine: str = "none") -> str:
    class Named(InstantEngine):
        identity = engine

    guard = UncheckedGuard(Named(), folder, "guard")
    await guard.start()
    return guard.model["revision"] + guard.fingerprint


async def test_one_byte_in_the_middle_of_the_weights_makes_another_revision(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint_folder("guard-nano"), tmp_path / "checkpoint"))
    before = await revision_of(folder)
    assert await revision_of(folder) == before
    with (folder / "model.bin").open("r+b") as file:
        file.seek((folder / "model.bin").stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    assert await revision_of(folder) != before


async def test_what_changes_the_numbers_of_an_engine_makes_another_revision() -> None:
    folder = checkpoint_folder("guard-nano", engine="vllm")
    engines = [
        load_engine(Guard(engine="vllm", vllm=arguments), folder)
        for arguments in ({}, {"dtype": "float32"}, {"dtype": "float32", "quantization": "fp8"})
    ]
    names = [engine.identity for engine in (*engines, CTranslate2Engine(folder), TransformersEngine(folder))]
    assert len({await revision_of(folder, name) for name in names}) == len(names) == 5
