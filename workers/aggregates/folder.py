"""Whether the rows in `aggregates.folder` are those of the changelog topic as it is now.

RocksDB has a database for each partition. Nothing in it says how many partitions there were, so a file beside it does.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from workers.errors import Misconfigured
from workers.kafka.internal_topics import Prepared, remedy

FILE = "changelog.json"


class _Origin(msgspec.Struct):
    """The changelog topic from which the rows are."""

    topic: str
    topic_id: int
    partitions: int


def claim(folder: Path, prepared: Prepared, verdicts: str) -> None:
    """Note in the folder which changelog topic its rows are from. Blocks for the file system.

    Raises:
        Misconfigured: they are from another one, or from other partitions, or the file cannot be read or written.
    """
    file = folder / FILE
    present = _Origin(prepared.changelog, prepared.changelog_id, prepared.partitions)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            unfinished = file.with_suffix(".new")
            unfinished.write_bytes(msgspec.json.encode(present))
            unfinished.replace(file)  # So that a kill leaves no file that is empty.
            return
        before = msgspec.json.decode(file.read_bytes(), type=_Origin)
    except OSError as error:
        raise Misconfigured(f"aggregates.folder: cannot use {file}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise Misconfigured(f"aggregates.folder: {file} is damaged: empty the folder, and start again") from error
    if (before.topic, before.topic_id) != (present.topic, present.topic_id):
        raise Misconfigured(
            f"aggregates.folder: {folder} has the rows of another changelog topic than {present.topic} as it is now: "
            "empty the folder, and start again"
        )
    if before.partitions != present.partitions:
        raise Misconfigured(
            f"aggregates.folder: {folder} has rows of {before.partitions} partitions, and {present.topic} has "
            f"{present.partitions} now: the rows are where the old number put them. "
            f"{remedy(verdicts, prepared.group, prepared.updates, prepared.changelog)}"
        )
