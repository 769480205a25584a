"""`guardline model convert`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import guardline
from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.transformers import TransformersEngine
from workers.errors import Misconfigured
from workers.guard.calibration import FILE, read_calibration
from workers.guard.convert import agreement, convert
from workers.guard.load import checkpoint_folder

SOURCE = checkpoint_folder("guard-nano", engine="transformers")


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return guardline("model", "convert", *arguments, code=code, timeout_s=300)


@pytest.mark.needs("transformers")
@pytest.mark.timeout(300)
class TestConvert:
    def test_the_converted_folder_gives_the_checkpoints_results(self, tmp_path: Path) -> None:
        ended = run(SOURCE, tmp_path / "int8")
        assert "on 396 texts the same severity for" in ended.stdout
        shares = [float(word.rstrip("%")) for word in ended.stdout.split() if word.endswith("%")]
        assert min(shares) > 97
        assert "exists already" in run(SOURCE, tmp_path / "int8", code=2).stderr

    async def test_without_quantization_nothing_differs(self, tmp_path: Path) -> None:
        convert(SOURCE, tmp_path / "whole", "float32")
        texts = ["good morning", "I will kill you", "你好", "how to make a bomb"] * 5
        found = await agreement(SOURCE, tmp_path / "whole", texts, context_tokens=256)
        assert (found.texts, found.same_severity, found.same_categories) == (20, 1, 1)
        assert found.furthest_score <= 1e-3

    async def test_a_context_longer_than_the_model_has_learnt_is_refused_before_and_after(self, tmp_path: Path) -> None:
        convert(SOURCE, tmp_path / "out", "float32")
        longest = json.loads((SOURCE / "config.json").read_text())["max_position_embeddings"]
        for kind, folder in ((TransformersEngine, SOURCE), (CTranslate2Engine, tmp_path / "out")):
            with pytest.raises(
                Misconfigured, match=rf"^guard\.context_tokens: {longest + 1} .* has learnt: {longest} "
            ):
                await kind(folder, context_tokens=longest + 1).start()
            engine = kind(folder, context_tokens=longest)
            await engine.start()
            await engine.close()

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    async def test_an_invalid_file_is_reported_in_a_sentence_and_leaves_nothing(
        self, tmp_path: Path, name: str
    ) -> None:
        source = Path(shutil.copytree(SOURCE, tmp_path / "source"))
        whole = (source / name).read_bytes()
        for broken in (whole[: len(whole) // 2], b"\xff" * 100, b""):
            (source / name).write_bytes(broken)
            with pytest.raises(Misconfigured, match="cannot convert"):
                convert(source, tmp_path / "out", "int8")
            assert not (tmp_path / "out").exists()
            with pytest.raises(Misconfigured, match=r"guard\.model: transformers cannot load"):
                await TransformersEngine(source).start()

    def test_the_calibration_is_copied(self, tmp_path: Path) -> None:
        source = Path(shutil.copytree(SOURCE, tmp_path / "source"))
        (source / FILE).write_text('{"severity": 1.5}')
        convert(source, tmp_path / "out", "int8")
        assert read_calibration(tmp_path / "out").severity == 1.5

    def test_a_folder_without_a_checkpoint_is_reported_in_a_sentence_and_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "has no checkpoint" in run(tmp_path / "empty", tmp_path / "out", code=2).stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.lacks("transformers")
def test_without_the_extra_the_error_names_it(tmp_path: Path) -> None:
    assert "`make extra NAME=transformers` in the clone" in run(SOURCE, tmp_path / "int8", code=2).stderr
