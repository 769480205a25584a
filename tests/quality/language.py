"""How well and how fast the language detector works, by its settings: `make quality-language DATA=FILE`.

Each row of the file is a JSON object with `text` and its `language` (or `lang`). Every configuration runs in a process
of its own, because its memory counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from workers.guard.languages import Languages
from workers.settings import Language

EIGHT = ["de", "en", "es", "fr", "it", "nl", "pl", "pt"]


def read(path: Path, texts: int) -> list[tuple[str, str]]:
    """Give (text, language) of the rows, in a random order that is the same each time."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = [(row["text"], row.get("language") or row["lang"]) for row in rows]
    random.Random(0).shuffle(found)
    return found[:texts]


def measure(path: Path, texts: int, settings: Language) -> dict[str, Any]:
    """Find the languages of the texts that are in a candidate, or of all."""
    rows = [row for row in read(path, texts) if not settings.candidates or row[1] in settings.candidates]
    process = psutil.Process()
    before = process.memory_info().rss
    languages = Languages(settings)
    began = time.perf_counter()
    asyncio.run(languages.start())
    loaded_s = time.perf_counter() - began
    began_cpu = time.process_time()
    found = [
        languages.missing_in({"event_id": "e", "tenant_id": "t", "surface": "chat", "text": text}) for text, _ in rows
    ]
    took_s = time.process_time() - began_cpu
    answered = [(one, right) for one, (_, right) in zip(found, rows, strict=True) if one is not None]
    return {
        "texts": len(rows),
        "loaded_s": loaded_s,
        "us": took_s / len(rows) * 1e6,
        "mb": (process.memory_info().rss - before) / 1e6,
        "answered": len(answered) / len(rows),
        "right": sum(one == right for one, right in answered) / max(1, len(answered)),
    }


def main() -> None:
    """Print a row for each configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=3_000)
    parser.add_argument("--settings")
    options = parser.parse_args()
    if options.settings:
        settings = Language.model_validate_json(options.settings)
        print(json.dumps(measure(options.data, options.texts, settings)))
        return
    named = sorted({language for _, language in read(options.data, options.texts)})
    table = Table("candidates", "high", "margin", "texts", "load, s", "µs", "MB", "answered", "right")
    for candidates, is_high, margin in [
        (EIGHT, False, 0.0),
        (EIGHT, False, 0.3),
        (EIGHT, True, 0.3),
        (named, False, 0.0),
        (named, False, 0.3),
        (named, True, 0.3),
        ([], False, 0.0),
        ([], False, 0.3),
    ]:
        settings = Language(detector="lingua", candidates=candidates, high_accuracy=is_high, min_margin=margin)
        command = [sys.executable, "-m", "tests.quality.language", "--data", str(options.data)]
        command += ["--texts", str(options.texts), "--settings", settings.model_dump_json()]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(run.stdout)
        table.add_row(
            str(len(candidates) or "all"),
            str(is_high).lower(),
            f"{margin:g}",
            str(found["texts"]),
            f"{found['loaded_s']:.1f}",
            f"{found['us']:.0f}",
            f"{found['mb']:.0f}",
            f"{found['answered']:.3f}",
            f"{found['right']:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
