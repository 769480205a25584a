"""`guardline annotate`: every row once, in order, in each format, also when it is killed on the way."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from schemas.assessment import Assessment
from tests.command import GUARDLINE, guardline, inheriting
from tests.lines import TEXTS, read_lines, write_lines
from workers.annotation import command
from workers.core.decode import Reason
from workers.errors import Misconfigured
from workers.settings import load

SMALL_BATCHES = {"GUARDLINE_BATCH__MAX_COUNT": "64"}
ENVIRONMENT = {**os.environ, "GUARDLINE_GUARD__THREADS": "1", **SMALL_BATCHES}

PEAK_KIB = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


BAR = re.compile(r"(\d+) rows .*?(\d+)% (\d+) rows/s, left: (-:--:--|\d:\d\d:\d\d)")


def annotate(*arguments: str | Path, code: int = 0) -> str:
    return guardline("annotate", *arguments, code=code, environment=SMALL_BATCHES).stderr


def findings_in(partial: Path) -> list[bytes]:
    lines = partial.read_bytes().split(b"\n")[1:-1] if partial.exists() else []
    return [line for line in lines if b'"at_engine"' not in line]


def test_each_row_comes_back_with_an_assessment_and_its_own_fields(tmp_path: Path) -> None:
    rows = [{"n": n, "text": text, "author_id": n, "nested": {"a": [n]}} for n, text in enumerate(TEXTS[:80])]
    said = annotate(write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    found = read_lines(tmp_path / "out.jsonl")
    assert [{**row, "assessment": 0} for row in rows] == [{**row, "assessment": 0} for row in found]
    assert len({Assessment.model_validate(row["assessment"]).severity for row in found}) > 1
    assert "80 rows, 80 judged now" in said
    assert "guard-nano judges: it is for trying things out" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_killed_run_continues_without_judging_a_row_twice_or_losing_one(tmp_path: Path) -> None:
    rows = [{"n": n, "text": f"{TEXTS[n % len(TEXTS)]} {n}"} if n % 97 else {"n": n} for n in range(1_200)]
    source, output = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    kept = 0
    for _ in range(3):
        run = subprocess.Popen([GUARDLINE, "annotate", source, output], env=ENVIRONMENT)
        deadline = time.monotonic() + 60
        while len(findings_in(partial)) < kept + 120:
            assert run.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert not output.exists()
        kept = len(findings_in(partial))
    with partial.open("ab") as torn:
        torn.write(b'{"assessment": {"sev')
    before = findings_in(partial)
    said = annotate(source, output)
    assert f"1200 rows, {sum(n % 97 != 0 for n in range(kept, 1_200))} judged now" in said
    found, bad = read_lines(output), read_lines(tmp_path / "out.jsonl.bad.jsonl")
    assert [row["n"] for row in found] == [n for n in range(1_200) if n % 97]
    assert [row["row"] - 1 for row in bad] == [n for n in range(1_200) if not n % 97]
    noted = [json.loads(line)["assessment"] for line in before if b'"assessment"' in line]
    assert [row["assessment"] for row in found[: len(noted)]] == noted
    alone = tmp_path / "alone.jsonl"
    annotate(source, alone)
    for row, undisturbed in zip(found, read_lines(alone), strict=True):
        assert row["n"] == undisturbed["n"]
        scores, expected = row["assessment"]["scores"], undisturbed["assessment"]["scores"]
        assert scores == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_gets_a_signal_ends_in_order_and_suspects_no_row(tmp_path: Path, stop: signal.Signals) -> None:
    rows = [{"text": f"{TEXTS[n % len(TEXTS)]} {n}"} for n in range(2_000)]
    source, output = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    with inheriting():
        run = subprocess.Popen([GUARDLINE, "annotate", source, output], env=ENVIRONMENT, stderr=subprocess.PIPE)
    with run:
        deadline = time.monotonic() + 60
        while len(findings_in(partial)) < 120:
            assert run.poll() is None, "it ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        run.send_signal(stop)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + stop
    assert b"the same command to continue" in said
    assert json.loads(partial.read_bytes().splitlines()[-1])["at_engine"] == len(findings_in(partial))


def test_a_run_killed_before_its_last_step_is_complete(tmp_path: Path) -> None:
    source, output = write_lines(tmp_path / "in.jsonl", [{"text": "hello"}]), tmp_path / "out.jsonl"
    annotate(source, output)
    (tmp_path / "out.jsonl.partial").write_bytes(b"left over")
    assert "complete already" in annotate(source, output)
    assert not (tmp_path / "out.jsonl.partial").exists()
    assert "exists already" in annotate(source, output, code=2)


BAD: dict[str, Any] = {
    Reason.NOT_JSON: "{",
    Reason.WRONG_TYPE: "[1]",
    Reason.MISSING_FIELD: {"txt": "hello"},
    Reason.EMPTY_TEXT: {"text": ""},
    Reason.INVALID_FIELD: {"text": ["x"]},
}


def test_bad_rows_go_to_the_side_file_and_the_others_are_judged(tmp_path: Path) -> None:
    rows = [row for bad in BAD.values() for row in (bad, {"text": "good morning"})]
    rows += ["", {"text": "hi", "role": "robot", "context": 7}, '{"text": "\\ud800"}', '{"text": "a", "n": NaN}']
    annotate(write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert len(read_lines(tmp_path / "out.jsonl")) == len(BAD) + 3
    bad = read_lines(tmp_path / "out.jsonl.bad.jsonl")
    assert [line["row"] for line in bad] == [1, 3, 5, 7, 9]
    assert [line["reason"] for line in bad[:5]] == list(BAD)
    assert [line["value"] for line in bad[:2]] == ["{", "[1]"]
    assert all(line["detail"] for line in bad)


def test_the_next_run_removes_the_bad_rows_of_an_earlier_run(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bad = tmp_path / "out.jsonl.bad.jsonl"
    annotate(write_lines(source, [{"text": ""}, {"text": "hello"}]), output)
    assert bad.exists()
    output.unlink()
    annotate(write_lines(source, [{"text": "hello"}]), output)
    assert not bad.exists()


def test_a_line_without_end_is_one_bad_row(tmp_path: Path) -> None:
    good = b'{"text": "good morning"}\n'
    (tmp_path / "in.jsonl").write_bytes(good + b'{"text": "' + b"x" * (20 << 20) + b'"}\n' + good)
    annotate(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert len(read_lines(tmp_path / "out.jsonl")) == 2
    (bad,) = read_lines(tmp_path / "out.jsonl.bad.jsonl")
    assert (bad["row"], bad["reason"], bad["value"]) == (2, "too_large", None)


@pytest.mark.parametrize(("suffix", "most_mib"), [("jsonl", 350), ("csv", 350), ("parquet", 600)])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str, most_mib: int) -> None:
    """More than 1 GB for this Parquet file when a whole row group is read, or a thousand rows of any length."""
    rows = [{"text": f"hello {n}", "blob": "x" * 200_000} for n in range(1_000)]
    source = tmp_path / f"in.{suffix}"
    if suffix == "jsonl":
        write_lines(source, rows)
    elif suffix == "csv":
        with source.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "blob"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        # One row group, and the pages of a usual file.
        pq.write_table(pa.Table.from_pylist(rows), source, compression="none", use_dictionary=False, write_batch_size=8)
    size_mib = source.stat().st_size >> 20
    assert size_mib > 180
    # A process in between: the largest child of this one may be any that the other tests have started.
    measured = subprocess.run(
        [sys.executable, "-c", PEAK_KIB, GUARDLINE, "annotate", source, tmp_path / f"out.{suffix}"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert int(measured.stdout) >> 10 < most_mib


def test_the_progress_bar_shows_the_rate_and_the_remaining_time(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"text": f"{TEXTS[n % len(TEXTS)]} {n}"} for n in range(1_000)])
    ours, its = pty.openpty()
    with subprocess.Popen(
        [GUARDLINE, "annotate", source, tmp_path / "out.jsonl"],
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
        stderr=its,
    ) as run:
        os.close(its)
        said = b""
        # Linux answers with an error when the other side is closed.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 65_536):
                said += part
    os.close(ours)
    assert run.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    rows, percent, rate, left = zip(*BAR.findall(plain), strict=True)
    assert int(rows[-1]) == 1_000
    assert percent[-1] == "100"
    assert any(int(one) > 0 for one in rate)
    assert any(one != "-:--:--" for one in left)


def test_a_policy_adds_its_decision(tmp_path: Path) -> None:
    policy = tmp_path / "acme.yaml"
    policy.write_text("safe: review\nunsafe: block\ncontroversial: block\n")
    rows = [{"text": text} for text in TEXTS[:40]]
    annotate(write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", "--policy", policy)
    for row in read_lines(tmp_path / "out.jsonl"):
        is_safe = row["assessment"]["severity"] == "Safe"
        assert row["decision"] == ("review" if is_safe else "block")
        assert row["reasons"]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_csv_keeps_its_columns_and_gets_dotted_ones(tmp_path: Path, suffix: str) -> None:
    source, output = tmp_path / f"in.csv{suffix}", tmp_path / f"out.csv{suffix}"
    opener: Any = gzip.open if suffix else open
    with opener(source, "wb") as file:
        file.write("\ufefftext,id,role,context\n".encode())
        file.write(b'"two\nlines, quoted",1,,\n')
        file.write(b"only one cell\n")
        file.write(b"latin \xe9,3,,\n")
        file.write(b'hello,"keeps \xe9",,"[{""role"": ""user"", ""text"": ""hi""}]"\n')
        file.write(b"hello,5,,not json\n")
    annotate(source, output, "--policy", write_lines(tmp_path / "p.yaml", ["controversial: allow"]))
    with opener(output, "rt", encoding="utf-8", errors="surrogateescape", newline="") as file:
        first, latin, quoted = csv.DictReader(file)
    assert first["text"] == "two\nlines, quoted"
    assert latin["text"].encode("utf-8", "surrogateescape") == b"latin \xe9"
    assert quoted["id"].encode("utf-8", "surrogateescape") == b"keeps \xe9"
    assert first["assessment.severity"] in ("Safe", "Controversial", "Unsafe")
    assert 0 <= float(first["assessment.scores.safe"]) <= 1
    assert isinstance(json.loads(first["assessment.categories"]), list)
    assert first["decision"] in ("allow", "block")
    bad = read_lines(tmp_path / f"out.csv{suffix}.bad.jsonl")
    assert [line["row"] for line in bad] == [2, 5]


def test_parquet_keeps_its_types_and_gets_a_nested_column(tmp_path: Path) -> None:
    count = 1_500
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    table = pa.table(
        {
            "text": pa.array([TEXTS[n % 100] if n % 50 else None for n in range(count)]),
            "id": pa.array(range(count), pa.int32()),
            "at": pa.array([moment.timestamp() * 1e9 + 1] * count, pa.float64())
            .cast(pa.int64())
            .cast(pa.timestamp("ns")),
            "kind": pa.array(["a", "b"] * (count // 2)).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    annotate(tmp_path / "in.parquet", tmp_path / "out.parquet", "--policy", write_lines(tmp_path / "p.yaml", ["{}"]))
    found = pq.read_table(tmp_path / "out.parquet")
    kept = table.filter(table["text"].is_valid())
    assert found.select(table.column_names).equals(kept.cast(found.select(table.column_names).schema))
    assert found.schema.field("at").type == pa.timestamp("ns")
    for row in found.select(["assessment"]).slice(0, 50).to_pylist():
        Assessment.model_validate({**row["assessment"], "category_scores": dict(row["assessment"]["category_scores"])})
    bad = read_lines(tmp_path / "out.parquet.bad.jsonl")
    assert [line["row"] for line in bad] == [n + 1 for n in range(0, count, 50)]
    assert bad[0]["value"]["kind"] == "a"


@pytest.mark.parametrize(
    ("name", "content", "out", "sentence"),
    [
        ("in.jsonl", None, "out.jsonl", "no such file"),
        ("in.txt", b"", "out.txt", "must end in one of .jsonl, "),
        ("in.jsonl", b"", "out.csv", "must be JSON lines"),
        ("in.csv", b"txt,id\n", "out.csv", "has no column 'text'"),
        ("in.csv", b"", "out.csv", "has no column 'text' (it has no first line)"),
        ("in.csv", b"text,text\n", "out.csv", "twice"),
        ("in.csv", b'text\n"' + b"x" * 11_000_000, "out.csv", "cannot be read after row 0"),
        ("in.parquet", b"PAR1 broken", "out.parquet", "cannot be read as Parquet"),
        ("in.jsonl", b"", "nowhere/out.jsonl", "no such folder"),
    ],
)
def test_a_wrong_file_is_reported_in_a_sentence(
    tmp_path: Path, name: str, content: bytes | None, out: str, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Misconfigured, match=re.escape(sentence)):
        command.annotate(load(guard={"threads": 1}), tmp_path / name, tmp_path / out, None, Console())


def test_an_output_that_is_the_input_is_refused_without_advice_to_remove_it(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"text": "hello"}])
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "in.jsonl.partial").touch()
    for output in (source, tmp_path / "link.jsonl"):
        said = annotate(source, output, code=2)
        assert "IN and OUT are the same file" in said
        assert "remove" not in said
    assert (tmp_path / "in.jsonl.partial").exists()


def test_the_findings_of_another_input_are_not_used(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"text": "hello"}])
    (tmp_path / "out.jsonl.partial").write_bytes(b'{"input": "another"}\n{"assessment": {}}\n')
    assert "remove it to begin again" in annotate(source, tmp_path / "out.jsonl", code=2)
