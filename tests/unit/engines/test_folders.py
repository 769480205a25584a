"""A folder without a model is a sentence that names the setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.transformers import TransformersEngine
from workers.errors import Misconfigured
from workers.guard.load import checkpoint_folder


async def test_ctranslate2_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"guard\.model"):
        await CTranslate2Engine(tmp_path).start()
    (tmp_path / "model.bin").write_bytes(b"not a model")
    with pytest.raises(Misconfigured, match=r"guard\.model"):
        await CTranslate2Engine(tmp_path).start()


async def test_ctranslate2_refuses_a_context_longer_than_the_model_has_learnt(tmp_path: Path) -> None:
    for file in checkpoint_folder("guard-nano").iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((tmp_path / "config.json").read_text()) | {"max_position_embeddings": 300}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(Misconfigured, match=r"^guard\.context_tokens: 301 .* has learnt: 300 "):
        await CTranslate2Engine(tmp_path, context_tokens=301).start()
    engine = CTranslate2Engine(tmp_path, context_tokens=300)
    await engine.start()
    await engine.close()


@pytest.mark.needs("transformers")
async def test_transformers_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"guard\.model"):
        await TransformersEngine(tmp_path).start()


@pytest.mark.lacks("transformers")
async def test_an_engine_without_its_extra_names_it(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"'\.\[transformers\]'"):
        await TransformersEngine(tmp_path).start()
