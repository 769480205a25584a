"""A folder with rows is used only for the changelog topic, and the partitions, from which its rows are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.aggregates.folder import FILE, claim
from workers.errors import Misconfigured
from workers.kafka.internal_topics import Prepared

PREPARED = Prepared("g.aggregates", "g.aggregates-updates", "g.aggregates-rows-changelog", 4, 1, 2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"partitions": 8},
            "has rows of 4 partitions, and g.aggregates-rows-changelog has 8 now: the rows are where the old number",
        ),
        ({"changelog_id": 3}, "has the rows of another changelog topic than g.aggregates-rows-changelog as it is now"),
        ({"changelog": "other"}, "has the rows of another changelog topic than other as it is now"),
    ],
)
def test_rows_of_another_changelog_or_of_other_partitions_are_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    folder = tmp_path / "made" / "rows"
    claim(folder, PREPARED, "verdicts")
    claim(folder, PREPARED._replace(incarnation=5), "verdicts")
    with pytest.raises(Misconfigured) as caught:
        claim(folder, PREPARED._replace(**changes), "verdicts")
    assert str(caught.value).startswith(f"aggregates.folder: {folder} {sentence}")
    assert ("Stop all aggregates workers, delete g.aggregates-updates" in str(caught.value)) == (
        "partitions" in changes
    )
    claim(folder, PREPARED, "verdicts")


def test_a_kill_while_the_file_is_written_does_not_prevent_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(path: Path, _: bytes) -> int:
        path.touch()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", die)
        with pytest.raises(Killed):
            claim(tmp_path, PREPARED, "verdicts")
    claim(tmp_path, PREPARED, "verdicts")
    with pytest.raises(Misconfigured, match="has rows of 4 partitions"):
        claim(tmp_path, PREPARED._replace(partitions=8), "verdicts")


def test_a_file_that_is_damaged_or_cannot_be_written_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{", encoding="utf-8")
    with pytest.raises(Misconfigured, match=r"changelog\.json is damaged: empty the folder"):
        claim(tmp_path, PREPARED, "verdicts")
    with pytest.raises(Misconfigured, match=r"aggregates\.folder: cannot use .*: Not a directory"):
        claim(tmp_path / FILE / "rows", PREPARED, "verdicts")
