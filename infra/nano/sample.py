"""Makes sample.jsonl from the training texts: `python -m infra.nano.sample TEXTS.jsonl.gz`. Seeded.

Checkpoints and engines are compared on the sample; it is no measure of what they know.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

SEED = 20
TENANTS = ("arcade", "campus", "gazette")
SAFE_PER_LANGUAGE = 9
# Sources without slurs or gore, and of them only what can be shown to anybody.
RISKY_SOURCES = ("multijail", "catqa", "ailuminate_demo_transl", "cyberseceval2_pi")
RISKY_CATEGORIES = {
    "Non-violent Illegal Acts",
    "PII",
    "Copyright Violation",
    "Jailbreak",
    "Politically Sensitive Topics",
}
RISKY_PER_LANGUAGE = 9
MAX_CHARACTERS = 240


def pick(path: Path) -> list[dict[str, Any]]:
    """Choose the texts: a spread of languages, short, and nothing vile."""
    safe: dict[str, list[dict[str, Any]]] = defaultdict(list)
    risky: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if len(row["text"]) > MAX_CHARACTERS:
                continue
            if row["source"] == "tatoeba":
                safe[row["lang"]].append(row)
            elif row["source"] in RISKY_SOURCES and row["categories"] and set(row["categories"]) <= RISKY_CATEGORIES:
                risky[row["lang"]].append(row)
    rng = random.Random(SEED)  # noqa: S311 - a sample, not a secret
    rows: list[dict[str, Any]] = []
    for pool, count in ((safe, SAFE_PER_LANGUAGE), (risky, RISKY_PER_LANGUAGE)):
        for language in sorted(pool):
            rows += rng.sample(pool[language], min(count, len(pool[language])))
    rng.shuffle(rows)
    return rows


def main() -> None:
    """Write sample.jsonl beside this file."""
    rows = pick(Path(sys.argv[1]))
    with (Path(__file__).parent / "sample.jsonl").open("w", encoding="utf-8") as out:
        for number, row in enumerate(rows):
            event = {
                "event_id": f"sample-{number:04}",
                "tenant_id": TENANTS[number % len(TENANTS)],
                "surface": "comment" if number % 4 == 0 else "chat",
                "author_id": f"author-{number % 37}",
                "language": row["lang"],
                "text": row["text"],
                "attributes": {
                    "conversation_id": f"room-{number % 23}",
                    "text_source": row["source"],
                    "licence": row["license"],
                },
            }
            out.write(json.dumps(event, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
