"""How far apart the SimHashes of near duplicates and of other texts are: `make quality-similarity`.

The texts are the 396 of `infra/nano/sample.jsonl`, in 20 languages. The last line is JSON.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

from workers.core.similarity import SimHashes

SAMPLE = Path(__file__).parents[2] / "infra" / "nano" / "sample.jsonl"
DISTANCE = 3
"""The largest distance that `aggregates.similar.max_distance` allows."""

COPIES = 4
"""Random changes of each text."""


def sample() -> list[str]:
    """Give the distinct texts of the sample."""
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(str(json.loads(line)["text"]) for line in lines))


def with_typo(text: str, draw: random.Random) -> str:
    """Replace, drop, insert or swap one character."""
    at, letter = draw.randrange(len(text)), draw.choice("aeinrst")
    return draw.choice(
        [
            text[:at] + letter + text[at + 1 :],
            text[:at] + text[at + 1 :],
            text[:at] + letter + text[at:],
            text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
        ]
    )


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "upper case": lambda text, _: text.upper(),
    "punctuation": lambda text, _: text.rstrip(".!?") + " !!! ...",
    "emoji": lambda text, _: text + " 🔥🔥😂",
    "number": lambda text, draw: f"{text} {draw.randrange(10**6)}",
    "repeated letters": lambda text, draw: "".join(letter * draw.choice([1, 1, 1, 4]) for letter in text),
    "one typo": with_typo,
    "two typos": lambda text, draw: with_typo(with_typo(text, draw), draw),
    "a name before it": lambda text, draw: f"{draw.choice(['Anna', 'Mike77', 'Lena'])} {text}",
}


def distance(one: str, other: str) -> int:
    """Return the number of bits that differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def near(texts: list[str], change: Callable[[str, random.Random], str], hashes: SimHashes, seed: int = 1) -> list[int]:
    """Return the distances between texts and their changed copies, as far as both have a SimHash."""
    draw = random.Random(seed)
    originals = [text for text in texts for _ in range(COPIES)]
    pairs = zip(hashes.of(originals), hashes.of([change(text, draw) for text in originals]), strict=True)
    return [distance(one, other) for one, other in pairs if one is not None and other is not None]


def main() -> None:
    """Print a line for each change and length, and the distances of unrelated texts."""
    hashes, texts = SimHashes("secret"), sample()
    report: dict[str, object] = {}
    groups = {"short": range(16, 40), "medium": range(40, 80), "long": range(80, 10_000)}
    for name, change in CHANGES.items():
        found = {}
        for group, lengths in groups.items():
            distances = near([text for text in texts if len(text) in lengths], change, hashes)
            found[group] = round(sum(one <= DISTANCE for one in distances) / len(distances), 3)
        report[name] = found
        print(f"{name}: " + ", ".join(f"{group} {value:.0%}" for group, value in found.items()))
    known = [one for one in hashes.of(texts) if one is not None]
    counts = Counter(distance(one, other) for one, other in combinations(known, 2))
    total, ordered = sum(counts.values()), sorted(counts.elements())
    report["unrelated"] = {
        "pairs": total,
        "within": sum(count for bits, count in counts.items() if bits <= DISTANCE),
        "least": ordered[0],
        "thousandth": ordered[total // 1_000],
        "median": ordered[total // 2],
    }
    report["texts"], report["with_hash"] = len(texts), len(known)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
