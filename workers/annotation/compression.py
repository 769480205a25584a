"""Reads and writes files that are plain, gzip (`.gz`) or Zstandard (`.zst`, by pyarrow)."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Any, cast

from workers.errors import Misconfigured, to_install

SUFFIXES = (".gz", ".zst")


def without(path: Path) -> Path:
    """Give the name of a file without the suffix of its compression."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def reading(raw: IO[bytes], name: str) -> IO[bytes]:
    """Give a file from which the contents of `raw` can be read. The position of `raw` still shows the progress.

    Raises:
        Misconfigured: this needs a package that is not installed.
    """
    if name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if name.lower().endswith(".zst"):
        arrow = _arrow(name)
        return cast(IO[bytes], io.BufferedReader(arrow.CompressedInputStream(arrow.PythonFile(raw, "r"), "zstd")))
    return raw


def writing(raw: IO[bytes], name: str) -> IO[bytes]:
    """Give a file whose contents are written to `raw`; `name` is the name that the file gets at the end.

    Raises:
        Misconfigured: this needs a package that is not installed.
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
        raise Misconfigured(f"{name}: .zst needs pyarrow: {to_install('annotate')}") from None
    return pyarrow
