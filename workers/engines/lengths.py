"""The length up to which a model has learnt: `max_position_embeddings` of a checkpoint's `config.json`."""

from __future__ import annotations

import json
from pathlib import Path

from workers.errors import Misconfigured

FIELD = "max_position_embeddings"


def check_length(setting: str, tokens: int, folder: Path, learnt: int | None) -> None:
    """Refuse texts that are longer than the model has learnt: its judgements of later tokens mean nothing.

    `setting` names what `tokens` is. `learnt`: None if the checkpoint does not say it.

    Raises:
        Misconfigured: `tokens` is more than `learnt`.
    """
    if learnt is not None and tokens > learnt:
        raise Misconfigured(f"{setting}: {tokens} is more than {folder} has learnt: {learnt} ({FIELD})")


def keep_length(source: Path, target: Path) -> None:
    """Write the length of the checkpoint `source` to the `config.json` of its conversion: CTranslate2 leaves it out."""
    learnt, config = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (source, target))
    if FIELD in learnt:
        config[FIELD] = learnt[FIELD]
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
