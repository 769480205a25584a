"""A folder without a model is a sentence that names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.transformers import TransformersEngine
from workers.errors import Misconfigured


async def test_ctranslate2_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"guard\.model"):
        await CTranslate2Engine(tmp_path).start()
    (tmp_path / "model.bin").write_bytes(b"not a model")
    with pytest.raises(Misconfigured, match=r"guard\.model"):
        await CTranslate2Engine(tmp_path).start()


@pytest.mark.needs("transformers")
async def test_transformers_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"guard\.model"):
        await TransformersEngine(tmp_path).start()


@pytest.mark.lacks("transformers")
async def test_an_engine_without_its_extra_names_it(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"'\.\[transformers\]'"):
        await TransformersEngine(tmp_path).start()
