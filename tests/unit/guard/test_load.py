"""Where a checkpoint is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

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


COMMIT = "a" * 40


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """The cached files of one commit of Qwen/Guard, to which its branch `main` points."""
    folder = cache / "models--Qwen--Guard" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (refs := folder.parents[1] / "refs").mkdir()
    (refs / "main").write_text(COMMIT)
    return folder


@pytest.mark.parametrize("name", ["Qwen/Guard", "Qwen/Guard@main"])
def test_the_log_says_how_to_pin_a_hub_name_without_a_commit(snapshot: Path, name: str) -> None:
    with capture_logs() as logs:
        assert checkpoint_folder(name, engine="vllm") == snapshot
    assert [entry["pin"] for entry in logs] == [f"guard.model: Qwen/Guard@{COMMIT}"]


def test_a_hub_name_with_a_commit_loads_that_commit_and_logs_nothing(snapshot: Path) -> None:
    with capture_logs() as logs:
        assert checkpoint_folder(f"Qwen/Guard@{COMMIT}", engine="vllm") == snapshot
    assert logs == []


def test_a_missing_commit_is_an_error_with_a_sentence(snapshot: Path) -> None:
    with pytest.raises(
        Misconfigured, match=rf"guard\.model: no folder Qwen/Guard, and no such model of revision {'b' * 40} could"
    ):
        checkpoint_folder(f"Qwen/Guard@{'b' * 40}", engine="vllm")


def test_a_failed_download_is_an_error_with_a_sentence(cache: Path) -> None:
    with pytest.raises(Misconfigured, match=r"guard\.model: no folder Qwen/Guard, and no such model"):
        checkpoint_folder("Qwen/Guard", engine="vllm")


def test_a_hub_name_is_refused_where_a_converted_folder_is_needed(cache: Path) -> None:
    with pytest.raises(
        Misconfigured, match=r"guard\.model: no such folder: Qwen/Guard .*model convert Qwen/Guard FOLDER"
    ):
        checkpoint_folder("Qwen/Guard", engine="ctranslate2")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "x"}, "'model' cannot be set: set guard.model"),
        ({"max_model_len": 100}, "max_model_len is 100, but must be a number of at least guard.context_tokens"),
    ],
)
def test_an_argument_of_vllm_that_would_contradict_is_refused(arguments: dict[str, object], sentence: str) -> None:
    folder = checkpoint_folder("guard-nano", engine="vllm")
    assert isinstance(load_engine(Guard(engine="vllm"), folder), VllmEngine)
    with pytest.raises(Misconfigured, match=sentence):
        load_engine(Guard(engine="vllm", vllm=arguments), folder)


def test_code_of_a_checkpoint_needs_two_settings() -> None:
    folder = checkpoint_folder("guard-nano", engine="vllm")
    trusting = {"trust_remote_code": True}
    with pytest.raises(
        Misconfigured, match=r"guard\.vllm: trust_remote_code .* set guard\.allow_remote_code: true as well"
    ):
        load_engine(Guard(engine="vllm", vllm=trusting), folder)
    for settings in (
        Guard(engine="vllm", vllm=trusting, allow_remote_code=True),
        Guard(engine="vllm", allow_remote_code=True),
    ):
        assert isinstance(load_engine(settings, folder), VllmEngine)


def test_a_window_larger_than_a_prompt_is_refused() -> None:
    assert Guard(window_tokens=2_048).window_tokens == 2_048
    with pytest.raises(
        ValidationError, match=r"guard\.window_tokens \(300\) must be at most guard\.context_tokens \(256\)"
    ):
        Guard(context_tokens=256, window_tokens=300)


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


async def test_each_limit_that_can_change_an_assessment_changes_the_fingerprint() -> None:
    folder = checkpoint_folder("guard-nano")
    fingerprints = set()
    for context, window, windows in ((2048, None, 8), (2048, 64, 8), (2048, 65, 8), (2048, None, 9), (1024, None, 8)):
        guard = UncheckedGuard(
            InstantEngine(), folder, "guard", context_tokens=context, window_tokens=window, max_windows=windows
        )
        await guard.start()
        fingerprints.add(guard.fingerprint)
    assert len(fingerprints) == 5


async def test_a_change_of_the_engine_or_its_arguments_makes_another_revision() -> None:
    folder = checkpoint_folder("guard-nano", engine="vllm")
    engines = [
        load_engine(Guard(engine="vllm", vllm=arguments), folder)
        for arguments in ({}, {"dtype": "float32"}, {"dtype": "float32", "quantization": "fp8"})
    ]
    names = [engine.identity for engine in (*engines, CTranslate2Engine(folder), TransformersEngine(folder))]
    assert len({await revision_of(folder, name) for name in names}) == len(names) == 5
