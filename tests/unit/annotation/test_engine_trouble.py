"""What the engine does wrong on the way: nothing that was found is lost, and one bad row harms no other."""

from __future__ import annotations

import gzip
import math
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.lines import read_lines, write_lines
from workers.annotation.annotate import Annotation
from workers.annotation.file_work import Summary
from workers.annotation.findings import Finding
from workers.errors import Misconfigured, Unavailable
from workers.guard.guard import Refused, Request
from workers.settings import Batch

BATCH = Batch(max_count=4, in_flight=2)


class TroubledGuard:
    """Judges everything alike but what is `refused`, after `trouble` had its say on the call's number and requests."""

    fingerprint = "troubled"

    def __init__(self, trouble: Callable[[int, Sequence[Request]], None], refused: str = "") -> None:
        self._trouble = trouble
        self._refused = refused
        self.calls = 0

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[Finding | Refused]:
        self.calls += 1
        self._trouble(self.calls, requests)
        return [
            Refused("prompt_length", "too long for the context")
            if request.text == self._refused
            else {"severity": "Safe", "judged": request.text}
            for request in requests
        ]


async def run(guard: TroubledGuard, folder: Path, retry_s: float = 30, suffix: str = "jsonl") -> Summary:
    annotation = Annotation(folder / f"in.{suffix}", folder / f"out.{suffix}")
    return await annotation.run(guard, BATCH, retry_s, None, lambda rows, position: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "in.jsonl", [{"text": f"t{n}"} for n in range(20)])
    return tmp_path


async def test_a_passing_failure_is_retried(folder: Path) -> None:
    def trouble(call: int, requests: Sequence[Request]) -> None:
        if call in (2, 3):
            raise Unavailable("busy")

    guard = TroubledGuard(trouble)
    assert await run(guard, folder) == Summary(rows=20, bad=0, judged=20)
    assert guard.calls == 5 + 2
    assert [row["assessment"]["judged"] for row in read_lines(folder / "out.jsonl")] == [f"t{n}" for n in range(20)]


async def test_an_engine_that_does_not_answer_ends_the_run_and_the_next_run_continues(folder: Path) -> None:
    def trouble(call: int, requests: Sequence[Request]) -> None:
        if requests[0].text == "t12":
            raise Unavailable("connection refused")

    with pytest.raises(Unavailable, match=r"no answer from the engine for 0\.2 s: connection refused\. Run the same"):
        await run(TroubledGuard(trouble), folder, retry_s=0.2)
    assert not (folder / "out.jsonl").exists()
    guard = TroubledGuard(lambda call, requests: None)
    assert await run(guard, folder) == Summary(rows=20, bad=0, judged=8)
    assert guard.calls == 2
    assert [row["text"] for row in read_lines(folder / "out.jsonl")] == [f"t{n}" for n in range(20)]


async def test_a_prompt_that_the_engine_refuses_is_a_bad_row_and_the_others_are_judged(folder: Path) -> None:
    guard = TroubledGuard(lambda call, requests: None, refused="t6")
    assert await run(guard, folder) == Summary(rows=20, bad=1, judged=19)
    assert guard.calls == 5, "its neighbours were not asked about again"
    assert [row["text"] for row in read_lines(folder / "out.jsonl")] == [f"t{n}" for n in range(20) if n != 6]
    (bad,) = read_lines(folder / "out.jsonl.bad.jsonl")
    assert (bad["row"], bad["reason"], bad["value"]) == (7, "prompt_length", '{"text": "t6"}')


async def test_rows_are_written_in_order_whichever_micro_batch_is_ready_first(folder: Path) -> None:
    def trouble(call: int, requests: Sequence[Request]) -> None:
        if call in (1, 2, 5):
            raise Unavailable("slow")  # Its neighbour is ready long before it.

    await run(TroubledGuard(trouble), folder)
    found = read_lines(folder / "out.jsonl")
    assert [row["text"] for row in found] == [row["assessment"]["judged"] for row in found]


async def test_a_run_without_a_result_leaves_nothing_that_stops_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(b"not an archive")
    guard = TroubledGuard(lambda call, requests: None)
    with pytest.raises(Misconfigured, match="cannot be read after row 0"):
        await run(guard, tmp_path, suffix="jsonl.gz")
    assert os.listdir(tmp_path) == ["in.jsonl.gz"]
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert await run(guard, tmp_path, suffix="jsonl.gz") == Summary(rows=1, bad=0, judged=1)


async def test_a_run_killed_before_its_first_result_does_not_stop_the_next_run_on_another_input(folder: Path) -> None:
    partial = folder / "out.jsonl.partial"
    partial.write_bytes(
        b'{"input": "another", "judged_by": "troubled", "read_by": ""}\n{"at_engine":4,"is_alone":false}\n{'
    )
    assert await run(TroubledGuard(lambda call, requests: None), folder) == Summary(rows=20, bad=0, judged=20)
    partial.write_bytes(b"a file of somebody else\n")
    (folder / "out.jsonl").unlink()
    with pytest.raises(Misconfigured, match="holds the results of another input"):
        await run(TroubledGuard(lambda call, requests: None), folder)


@pytest.mark.parametrize("suffix", ["jsonl.gz", "csv.gz"])
@pytest.mark.parametrize("fault", ["cut off", "damaged"])
async def test_a_broken_archive_is_reported_in_a_sentence_and_suspects_no_row(
    tmp_path: Path, suffix: str, fault: str
) -> None:
    rng = random.Random(4)
    texts = [rng.randbytes(200).hex() for _ in range(1_000)]
    lines = ["text", *texts] if suffix.startswith("csv") else [f'{{"text": "{text}"}}' for text in texts]
    whole = gzip.compress("\n".join(lines).encode())
    half = len(whole) // 2
    (tmp_path / f"in.{suffix}").write_bytes(whole[:half] if fault == "cut off" else whole[:half] + bytes(64) * 1_000)
    sizes: list[int] = []
    for _ in range(2):
        with pytest.raises(Misconfigured, match=r"cannot be read after row [1-9]\d\d: "):
            await run(TroubledGuard(lambda call, requests: sizes.append(len(requests))), tmp_path, suffix=suffix)
    assert set(sizes) == {4}, "nothing was judged alone, as what was at the engine at a death is"
