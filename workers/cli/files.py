"""The files that commands write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from workers.errors import Misconfigured


@contextmanager
def replacing(option: str, file: Path) -> Iterator[BinaryIO]:
    """Give a new file that takes the place of `file` at the end. After an error, `file` is as it was.

    Raises:
        Misconfigured: it cannot be written. The sentence names the option.
    """
    new = file.with_name(f"{file.name}.tmp")
    try:
        stream = new.open("wb")
    except OSError as error:
        raise _refusal(option, file, error) from None
    try:
        with stream:
            yield stream
        new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise _refusal(option, file, error) from None
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _refusal(option: str, file: Path, error: OSError) -> Misconfigured:
    return Misconfigured(f"{option}: cannot write {file}: {error.strerror}")
