"""Files as they are on the disk, and what is in them: plain, gzip (`.gz`) or Zstandard (`.zst`, by pyarrow)."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Any, cast

from workers.errors import Misconfigured

SUFFIXES = (".gz", ".zst")


def without(path: Path) -> Path:
    """Give the name of what a compressed file holds; of any other file, its own."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def reading(raw: IO[bytes], name: str) -> IO[bytes]:
    """Read what is in a file. Its position stays that of `raw`, by which progress is measured.

    Raises:
        Misconfigured: it takes a package that is not installed.
    """
    if name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if name.lower().endswith(".zst"):
        arrow = _arrow(name)
        return cast(IO[bytes], io.BufferedReader(arrow.CompressedInputStream(arrow.PythonFile(raw, "r"), "zstd")))
    return raw


def writing(raw: IO[bytes], name: str) -> IO[bytes]:
    """Write into a file that will have this name. To close what is given does not close `raw`.

    Raises:
        Misconfigured: it takes a package that is not installed.
    """
    if name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.GzipFile(Path(name).name, "wb", fileobj=raw))
    if name.lower().endswith(".zst"):
        arrow = _arrow(name)
        return cast(IO[bytes], io.BufferedWriter(arrow.CompressedOutputStream(arrow.PythonFile(raw, "w"), "zstd")))
    return raw


def _arrow(name: str) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise Misconfigured(f"{name}: .zst needs pyarrow: pip install '.[annotate]' in the clone") from None
    return pyarrow
