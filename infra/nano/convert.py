"""Makes the int8 CTranslate2 folder of a checkpoint: `python -m infra.nano.convert FOLDER` (with hf/ inside)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ctranslate2.converters import TransformersConverter

from workers.engines.lengths import keep_length


def convert(folder: Path) -> None:
    """Convert `folder`/hf to `folder`/ct2, with its length, the tokenizer, the template and any calibration."""
    source, target = folder / "hf", folder / "ct2"
    TransformersConverter(str(source)).convert(str(target), quantization="int8_float32", force=True)
    keep_length(source, target)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "calibration.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


if __name__ == "__main__":
    convert(Path(sys.argv[1]))
