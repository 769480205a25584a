"""Files of JSON lines, and texts to put into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).parents[1] / "infra" / "nano" / "sample.jsonl"
TEXTS: list[str] = [json.loads(line)["text"] for line in SAMPLE.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
