"""`guardline eval FILE`: its input, its output, and its errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.taxonomy import Severity
from tests.command import guardline
from tests.lines import TEXTS, write_lines
from workers.errors import Misconfigured
from workers.evaluation.samples import Said, said, samples, settling
from workers.evaluation.score import score

SAFE, CONTROVERSIAL, UNSAFE = Severity
PNG = b"\x89PNG\r\n\x1a\n"


def evaluate(*arguments: str | Path, code: int = 0) -> str:
    run = guardline("eval", *arguments, code=code, environment={"COLUMNS": "200"})
    return run.stdout + run.stderr


def test_the_output_of_gen_is_parsed() -> None:
    written = "Safety: Unsafe\nCategories: Violent, Suicide & Self-Harm\nRefusal: No"
    found = said({"output": written, "role": "assistant"})
    assert found == Said(UNSAFE, frozenset(["Violent", "Suicide & Self-Harm"]), False, None)
    assert said({"output": "Safety: Controversial\nCategories: None"}) == Said(CONTROVERSIAL, frozenset(), None, None)
    assert said({"output": "I cannot say."}).severity is None


@pytest.mark.parametrize(
    ("levels", "as_prompt", "as_response"),
    [
        ([0, 1, 1, 0], SAFE, UNSAFE),
        ([2, 2, 1, 1, 0], SAFE, UNSAFE),
        ([0, 1, 2, 1, 2], CONTROVERSIAL, SAFE),
        ([0, 2, 2, 1], UNSAFE, CONTROVERSIAL),
        ([1], UNSAFE, SAFE),
    ],
)
def test_the_levels_of_stream_are_read_as_published(
    levels: list[int], as_prompt: Severity, as_response: Severity
) -> None:
    assert said({"pred_risk_levels": levels}).severity is as_prompt
    assert said({"pred_risk_levels": levels, "role": "assistant"}).severity is as_response


def test_a_response_of_one_token_or_none_is_safe() -> None:
    assert settling([], is_response=True) is None


def test_the_categories_of_stream_come_from_the_token_that_decides() -> None:
    stream = {"pred_risk_levels": [1, 0, 1, 1, 2], "pred_categories": ["PII", "PII", "PII", '"Violent"', "Jailbreak"]}
    assert said({**stream, "role": "assistant"}).categories == frozenset(["Violent"])
    assert said(stream).categories == frozenset(["Jailbreak"])
    assert said({**stream, "pred_risk_levels": [1, 1, 1, 1, 0]}).categories == frozenset()
    assert said({**stream, "pred_risk_levels": [1, 0, 1, 0, 1], "role": "assistant"}).categories == frozenset()


def test_each_line_of_an_output_of_gen_is_read_separately() -> None:
    torn = "Safety: Unsafe\nCategories: Violent"
    assert said({"output": torn, "role": "assistant"}) == Said(UNSAFE, frozenset(["Violent"]), False, None, True)
    torn = "Categories: Violent\nRefusal: Yes"
    assert said({"output": torn, "role": "assistant"}) == Said(None, frozenset(["Violent"]), True, None)


def test_an_unreadable_refusal_counts_as_none_and_a_missing_one_does_not_count(tmp_path: Path) -> None:
    gold = {"severity": "Unsafe", "categories": ["Violent"], "refusal": True}
    whole, torn = (
        {"role": "assistant", "gold": gold, "output": f"Safety: Unsafe\nCategories: Violent{end}"}
        for end in ("\nRefusal: Yes", "")
    )
    stream = {"role": "assistant", "gold": gold, "pred_risk_levels": [1, 1]}
    report = score(samples(write_lines(tmp_path / "gen.jsonl", [whole, torn, stream])), by=(), rounds=100, seed=0)
    assert report["all"]["strict"]["recall"]["value"] == 1
    assert report["all"]["unreadable"] == 0
    assert (report["refusal"]["samples"], report["refusal"]["unreadable"]) == (2, 1)
    assert report["refusal"]["recall"]["value"] == 0.5
    assert report["categories"]["Violent"]["samples"] == 2
    report = score(samples(write_lines(tmp_path / "stream.jsonl", [stream])), by=(), rounds=100, seed=0)
    assert report["categories"] == {}
    assert report["refusal"] is None


def test_gen_and_stream_outputs_are_scored_by_the_published_method(tmp_path: Path) -> None:
    said_of = {UNSAFE: "Safety: Unsafe", CONTROVERSIAL: "Safety: Controversial", SAFE: "Safety: Safe"}
    pairs = (
        [(UNSAFE, UNSAFE)] * 5 + [(UNSAFE, CONTROVERSIAL)] * 2 + [(UNSAFE, SAFE), (SAFE, CONTROVERSIAL), (SAFE, SAFE)]
    )
    gen = [{"text": "a", "gold": {"severity": gold}, "output": said_of[it]} for gold, it in pairs]
    gen.append({"text": "a", "gold": {"severity": "Unsafe"}, "output": "nothing that can be read"})
    report = score(samples(write_lines(tmp_path / "gen.jsonl", gen)), by=(), rounds=100, seed=0)["all"]
    assert report["unreadable"] == 1
    assert report["strict"]["f1"]["value"] == pytest.approx(14 / (14 + 1 + 2))
    assert report["loose"]["f1"]["value"] == pytest.approx(10 / (10 + 0 + 4))
    levels = {UNSAFE: [0, 1, 1], CONTROVERSIAL: [2, 2, 0], SAFE: [0, 1, 0]}
    stream = [{"role": "assistant", "gold": {"severity": gold}, "pred_risk_levels": levels[it]} for gold, it in pairs]
    report = score(samples(write_lines(tmp_path / "stream.jsonl", stream)), by=(), rounds=100, seed=0)["all"]
    assert report["strict"]["f1"]["value"] == pytest.approx(14 / (14 + 1 + 1))
    assert report["loose"]["f1"]["value"] == pytest.approx(10 / (10 + 0 + 3))
    assert "roc_auc" not in report["strict"]


def test_texts_are_judged_and_the_report_is_self_contained(tmp_path: Path) -> None:
    severities = list(Severity)
    rows: list[Any] = [
        {
            "text": text,
            "language": ("de", "en", "fr")[n % 3],
            "dataset": f"<set {n % 2}>",
            "gold": {"severity": severities[n % 3], "categories": ["Violent"] if n % 3 else []},
        }
        for n, text in enumerate(TEXTS[:90])
    ]
    rows.append({"text": "", "gold": {"severity": "Safe"}})
    printed = evaluate("--rounds", "200", write_lines(tmp_path / "gold.jsonl", rows))
    assert "language de" in printed
    folder = tmp_path / "gold.jsonl.report"
    report = json.loads((folder / "report.json").read_text())
    assert report["all"]["samples"] == 90
    assert report["not_judged"] == 1
    assert sum(map(sum, report["all"]["table"])) == 90
    assert 0 < report["all"]["strict"]["roc_auc"] < 1
    plots = sorted(path.name for path in folder.glob("*.png"))
    assert plots == [
        "confusion.png",
        "f1-by-category.png",
        "f1-by-dataset.png",
        "f1-by-language.png",
        "reliability.png",
    ]
    assert all((folder / name).read_bytes().startswith(PNG) for name in plots)
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(plots)
    assert "&lt;set 0&gt;" in page
    assert "<set 0>" not in page
    assert not [word for word in ("<script", "<link", "http:", "https:", 'src="/') if word in page]
    assert "judged already" in evaluate("--rounds", "200", tmp_path / "gold.jsonl")
    assert json.loads((folder / "report.json").read_text()) == report
    again = evaluate("score", folder / "judged.jsonl", "--out", tmp_path / "again", "--rounds", "200")
    assert "judged now" not in again
    assert json.loads((tmp_path / "again" / "report.json").read_text())["all"] == report["all"]
    (tmp_path / "gold.jsonl").write_text(json.dumps({**rows[0], "gold": {"severity": "Unsafe"}}) + "\n")
    assert "1 rows, 1 judged now" in evaluate("--rounds", "200", tmp_path / "gold.jsonl")
    assert json.loads((folder / "report.json").read_text())["not_judged"] == 0


@pytest.mark.parametrize("command", ["score", "calibrate"])
def test_gold_labels_in_another_format_are_refused_and_leave_no_folder(tmp_path: Path, command: str) -> None:
    file = write_lines(tmp_path / "gold.csv", ["text,gold", "hello,Safe"])
    assert "gold.csv: gold labels must be JSON lines, not CSV" in evaluate(command, file, code=2)
    assert list(tmp_path.iterdir()) == [file]


def test_errors_that_would_waste_the_judging_are_found_before_it(tmp_path: Path) -> None:
    good = {"text": "hello", "gold": {"severity": "Safe"}}
    for row, sentence in (
        ({"text": "hello"}, "has no field 'gold'"),
        ({**good, "gold": {"severity": "bad"}}, "gold sev"),
    ):
        file = write_lines(tmp_path / "gold.jsonl", [good, {"text": ""} | good, row])
        assert sentence in evaluate(file, code=2)
    without = "import sys; sys.modules['matplotlib'] = None; from workers.cli.app import main; main()"
    run = guardline("eval", write_lines(file, [good]), code=2, program=(sys.executable, "-c", without))
    assert "plots need matplotlib" in run.stderr
    assert not list(tmp_path.rglob("judged*"))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("{", "line 2: not_json"),
        ({"output": "Safety: Safe"}, "line 2: has no field .gold."),
        ({"output": "Safety: Safe", "gold": {"severity": "unsafe"}}, "line 2: gold severity: has to be 'Safe'"),
        ({"output": "Safety: Safe", "gold": {"label": "Safe"}}, "gold label: Extra inputs"),
        ({"gold": {"severity": "Safe"}, "pred_risk_levels": [7]}, "line 2: has no valid output of a guard"),
        ({"gold": {"severity": "Safe"}, "pred_risk_levels": [-1]}, "line 2: has no valid output of a guard"),
        ({"gold": {}, "pred_risk_levels": [1], "pred_categories": [4]}, "line 2: has no valid output of a guard"),
        ({"gold": {"severity": "Safe"}, "assessment": None}, "line 2: has no valid output of a guard"),
        ({"gold": {"severity": "Safe"}, "pred_risk_levels": []}, "line 2: has no valid output of a guard"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named(tmp_path: Path, row: Any, sentence: str) -> None:
    good = {"gold": {"severity": "Safe"}, "output": "Safety: Safe"}
    with pytest.raises(Misconfigured, match=sentence):
        list(samples(write_lines(tmp_path / "gold.jsonl", [good, row])))


def test_input_that_cannot_be_grouped_or_scored_is_reported_in_a_sentence(tmp_path: Path) -> None:
    rows = [{"id": n, "gold": {"severity": "Safe"}, "output": "Safety: Safe"} for n in range(300)]
    with pytest.raises(Misconfigured, match="id: has more than 250 values"):
        score(samples(write_lines(tmp_path / "a.jsonl", rows)), by=("id",), rounds=100, seed=0)
    with pytest.raises(Misconfigured, match=r"--by: no line has a value for 'surfase' \(fields: gold, id, output\)"):
        score(samples(tmp_path / "a.jsonl"), by=("surfase",), rounds=100, seed=0)
    with pytest.raises(Misconfigured, match=r"no line has gold\.severity"):
        score(samples(write_lines(tmp_path / "b.jsonl", [{"gold": {}, "output": ""}])), by=(), rounds=100, seed=0)
    assert "no such file" in evaluate(tmp_path / "none.jsonl", code=2)
    assert "no such file" in evaluate("score", tmp_path / "none.jsonl", code=2)
