"""Keeps the encoder's features of texts in a folder, so that no text is encoded twice: it takes 2 to 10 ms each."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from infra.nano.e5 import E5, FEATURES

Features = npt.NDArray[np.float16]
_SAVED_EACH = 1_000


def features_of(texts: list[str], encoder: E5, cache: Path) -> Features:
    """Give the features of `texts`, shape (texts, FEATURES); those that the folder `cache` has are read from there."""
    cache.mkdir(parents=True, exist_ok=True)
    places: dict[bytes, list[int]] = {}
    for number, text in enumerate(texts):
        places.setdefault(hashlib.md5(text.encode(), usedforsecurity=False).digest(), []).append(number)
    out = np.zeros((len(texts), FEATURES), dtype=np.float16)
    for stored in sorted(cache.glob("*.npz")):
        with np.load(stored) as arrays:
            keys, values = arrays["keys"], arrays["values"]
        for key, value in zip(keys, values, strict=True):
            out[places.pop(key.tobytes(), [])] = value
    missing = list(places)
    for start in tqdm(range(0, len(missing), _SAVED_EACH), desc="encoding", disable=not missing):
        part = missing[start : start + _SAVED_EACH]
        values = encoder.features([texts[places[key][0]] for key in part])
        for key, value in zip(part, values, strict=True):
            out[places[key]] = value
        name = hashlib.sha256(b"".join(part)).hexdigest()[:16]
        unfinished = cache / f"{name}.unfinished"
        with unfinished.open("wb") as file:
            np.savez(file, keys=np.frombuffer(b"".join(part), dtype=np.uint8).reshape(-1, 16), values=values)
        unfinished.replace(cache / f"{name}.npz")
    return out
