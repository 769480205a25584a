"""Files of each format, and rows of any shape: which text of a row is judged, and what is written."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.command import guardline
from tests.lines import read_lines, write_lines
from workers.annotation.annotate import Annotation
from workers.annotation.file_work import Summary
from workers.annotation.files import open_source
from workers.annotation.findings import Finding
from workers.annotation.json_array import CHUNK_BYTES, JsonArray
from workers.annotation.rows import PLAIN, Reading, by_column, by_mapping
from workers.errors import Misconfigured, Unavailable
from workers.guard.guard import Refused, Request
from workers.settings import Batch


class EchoingGuard:
    """Finds in each text the text itself, in a shape that every format can write."""

    fingerprint = "echo"

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[Finding | Refused]:
        return [
            {
                "severity": "Safe",
                "categories": [request.text, *(text for _, text in request.context)],
                "refusal": None,
                "scores": {"safe": 1.0, "controversial": 0.0, "unsafe": 0.0},
                "category_scores": {},
                "model": {"name": "m", "revision": "r", "template_hash": "t"},
                "windows": 1,
                "truncated_windows": 0,
                "truncated_context_tokens": 0,
                "tokens": 1,
                "views": [],
            }
            for request in requests
        ]


class LeavingGuard(EchoingGuard):
    """Answers once, and never again."""

    def __init__(self) -> None:
        self._answers = 1

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[Finding | Refused]:
        if not self._answers:
            raise Unavailable("away")
        self._answers -= 1
        return await super().assess(requests, deadline)


async def run(source: Path, reading: Reading = PLAIN) -> tuple[Summary, Path]:
    output = source.with_name(f"out{source.name.removeprefix('in')}")
    annotation = Annotation(source, output, reading)
    return await annotation.run(EchoingGuard(), Batch(max_count=4), 5, None, lambda rows, position: None), output


def judged(path: Path) -> list[Any]:
    """Give the texts that were judged, from a file of any format, and check that its other columns are there."""
    if path.suffix == ".parquet":
        found = pq.read_table(path).to_pylist()
    elif isinstance(open_source(path, by_column("n")), JsonArray):
        found = [row.native for row in open_source(path).rows(are_whole=True)]
    else:
        found = [row.fields for row in open_source(path, by_column("n")).rows(are_whole=True)]
    assert [str(row["n"]) for row in found] == [str(n) for n in range(len(found))]
    nested = [row.get("assessment", row).get("categories") or json.loads(row["assessment.categories"]) for row in found]
    return [list(texts) for texts in nested]


ROWS = [{"n": n, "text": f'text "{n}",\t{{}}[]é\n', "language": "en"} for n in range(10)]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    if name.endswith(("csv", "tsv")):
        separator = "," if name.endswith("csv") else "\t"
        quoted = [
            ['"' + str(cell).replace('"', '""') + '"' for cell in row.values()]
            for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]
        ]
        data = "\n".join(separator.join(cells) for cells in quoted).encode()
    elif name.endswith(".json"):
        data = json.dumps(rows, indent=2).encode()
    else:
        data = b"\n".join(json.dumps(row).encode() for row in rows)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compressed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv"])
async def test_each_format_is_read_and_written_plain_and_compressed(tmp_path: Path, kind: str, compressed: str) -> None:
    summary, output = await run(write(tmp_path / f"in.{kind}{compressed}", ROWS))
    assert summary == Summary(10, 0, 10)
    assert judged(output) == [[row["text"]] for row in ROWS]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
async def test_the_text_comes_from_the_column_that_is_named(tmp_path: Path, kind: str) -> None:
    rows = [{"n": n, "text": "another", "the message": f"m{n}"} for n in range(3)]
    _, output = await run(write(tmp_path / f"in.{kind}", rows), by_column("the message"))
    assert judged(output) == [["m0"], ["m1"], ["m2"]]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
async def test_rows_of_any_shape_are_read_by_a_mapping(tmp_path: Path, kind: str) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        "tenant_id: {header: x-tenant}\nevent_id: {key: true}\ntext: {html: body}\ncontext: parent\n"
        "skip_when: {deleted: \"state == 'gone'\"}\n"
    )
    rows = [
        {"n": 0, "body": "<b>a</b>b", "parent": "before", "state": "new"},
        {"n": 1, "body": "c", "parent": "", "state": "new"},
        {"n": 9, "body": "d", "parent": "", "state": "gone"},
    ]
    summary, output = await run(write(tmp_path / f"in.{kind}", rows), by_mapping(mapping))
    assert summary == Summary(3, 1, 2)
    assert [texts[0] for texts in judged(output)] == ["ab", "c"]
    assert judged(output)[0] == ["ab", "before"]
    (bad,) = read_lines(output.with_name(output.name + ".bad.jsonl"))
    assert (bad["row"], bad["reason"]) == (3, "deleted")


def test_a_missing_column_and_a_mapping_with_several_texts_are_refused_at_start(tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("texts: {title: title, body: body}")
    with pytest.raises(Misconfigured, match="--mapping: texts makes several events of a row"):
        by_mapping(mapping)
    for kind in ("csv", "parquet"):
        with pytest.raises(Misconfigured, match="has no column 'body'"):
            open_source(write(tmp_path / f"in.{kind}", ROWS), by_column("body"))


async def test_a_run_does_not_continue_with_findings_of_another_reading(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{**row, "other": "x"} for row in ROWS])
    for reading, error in ((PLAIN, Unavailable), (by_column("other"), Misconfigured)):
        annotation = Annotation(source, tmp_path / "out.jsonl", reading)
        batch = Batch(max_count=1, in_flight=1)
        with pytest.raises(error, match=r"no answer from the engine|to begin again"):
            await annotation.run(LeavingGuard(), batch, 0, None, lambda rows, position: None)
        assert annotation.partial.exists()


async def test_a_row_that_is_almost_json_is_judged_and_written_back(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "half \\ud83d", "n": 0}\n{"text": "a", "n": 1, "x": NaN, "y": 1e999}\n')
    summary, output = await run(source)
    assert summary.bad == 0
    assert [row["assessment"]["categories"][0] for row in read_lines(output)] == ["half \ufffd", "a"]
    assert read_lines(output)[0]["text"] == "half \ud83d"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"text": "a"}', "after row 0: a .json file holds one array"),
        ("", "after row 0: a .json file holds one array"),
        ('[{"text": "a"}', "after row 1: a comma is missing, or the end of the array"),
        ('[{"text": "a"} {"text": "b"}]', "after row 1: a comma is missing"),
        ('[{"text": "a"}, {"text": }]', "after row 1: Expecting value"),
        ('[{"text": "\\udcff"}]', None),
        (f"[{'[' * 100_000}]", "after row 0: "),
    ],
)
def test_a_broken_array_is_refused_with_the_place_of_the_fault(tmp_path: Path, text: str, sentence: str | None) -> None:
    source = tmp_path / "in.json"
    source.write_text(text)
    if sentence is None:
        assert len(list(JsonArray(source).rows(are_whole=True))) == 1
        return
    with pytest.raises(Misconfigured) as caught:
        list(JsonArray(source).rows(are_whole=True))
    assert sentence in str(caught.value)


def test_elements_and_characters_across_chunks_are_read_whole(tmp_path: Path) -> None:
    texts = ["é" * length for length in (CHUNK_BYTES // 2 - 20, 5, CHUNK_BYTES, 3 * CHUNK_BYTES, 7)]
    source = tmp_path / "in.json"
    source.write_bytes(
        b"\xef\xbb\xbf ["
        + b" , ".join(json.dumps({"text": text}, ensure_ascii=False).encode() for text in texts)
        + b"] \n"
    )
    rows = list(JsonArray(source).rows(are_whole=True))
    assert [row.fields and row.fields["text"] for row in rows] == texts
    assert rows[-1].position <= JsonArray(source).size


def test_a_number_across_chunks_is_one_element(tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    source.write_text(f"[{' ' * (CHUNK_BYTES - 4)}123456]")
    assert [row.raw() for row in JsonArray(source).rows(are_whole=True)] == ["123456"]


@pytest.mark.parametrize("is_mapped", [False, True])
async def test_a_row_without_a_text_is_answered_with_the_options_that_say_where_it_is(
    tmp_path: Path, is_mapped: bool
) -> None:
    (tmp_path / "mapping.yaml").write_text("language: lang")
    source = write_lines(tmp_path / "in.jsonl", [{"body": "hello"}])
    await run(source, by_mapping(tmp_path / "mapping.yaml") if is_mapped else PLAIN)
    (bad,) = read_lines(tmp_path / "out.jsonl.bad.jsonl")
    assert bad["detail"] == (
        "text: the field is required; --text names its column, or --mapping a mapping that says where it is"
    )


def test_the_command_fails_if_no_row_could_be_judged(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"body": "hello"}, {"body": "hello"}])
    said = guardline("annotate", source, tmp_path / "out.jsonl", code=1).stderr
    assert f"{source}: no row could be judged; {tmp_path / 'out.jsonl.bad.jsonl'} says why" in said
    said = guardline("annotate", source, tmp_path / "two.jsonl", "--text", "body").stderr
    assert "2 rows, 2 judged now" in said
    both = guardline("annotate", source, tmp_path / "x.jsonl", "--text", "a", "--mapping", source, code=2)
    assert "--text and --mapping: one of them" in both.stderr
