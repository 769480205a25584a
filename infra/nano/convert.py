"""Makes the int8 CTranslate2 folder of a checkpoint: `python -m infra.nano.convert FOLDER` (with hf/ inside)."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ctranslate2.converters import TransformersConverter


def convert(folder: Path) -> None:
    """Convert `folder`/hf to `folder`/ct2, with its length, the tokenizer, the template and any calibration."""
    source, target = folder / "hf", folder / "ct2"
    TransformersConverter(str(source)).convert(str(target), quantization="int8_float32", force=True)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    learnt = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = learnt["max_position_embeddings"]  # CTranslate2 leaves it out.
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "calibration.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
