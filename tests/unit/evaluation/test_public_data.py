"""Each public data set, on a few rows made by hand in its published form."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.lines import write_lines
from tests.unit.evaluation.test_score import evaluate
from workers.annotation.json_lines import JsonLines
from workers.annotation.rows import PLAIN
from workers.cli.evaluation import convert_command
from workers.errors import Misconfigured
from workers.evaluation.public_data import ADAPTERS
from workers.evaluation.samples import Gold

GUARD = {"adversarial": False, "prompt_harm_label": "harmful", "response_harm_label": "unharmful"}
PAIR = {"prompt": "p", "response": "r"}

# For each data set its rows, and for each row what its lines say: (text, role, severity, refusal).
ROWS: dict[str, list[tuple[dict[str, Any], list[tuple[str, str, str | None, bool | None]]]]] = {
    "openai-moderation": [
        ({"prompt": "p", "S": 0, "H": 1, "V": 0}, [("p", "user", "Unsafe", None)]),
        ({"prompt": "p", "S": 0, "SH": 0}, [("p", "user", "Safe", None)]),
    ],
    "toxic-chat": [
        ({"user_input": "p", "toxicity": "1", "jailbreaking": "0"}, [("p", "user", "Unsafe", None)]),
        ({"user_input": "p", "toxicity": 0, "jailbreaking": 1}, [("p", "user", "Safe", None)]),
    ],
    "aegis": [
        (
            {"text": "p", "text_type": "user_message", "labels_0": "Safe", "labels_1": "Safe", "labels_2": "Violence"},
            [("p", "user", "Safe", None)],
        ),
        (
            {"text": "p", "text_type": "user_message", "labels_0": "Needs Caution", "labels_1": "Safe"},
            [("p", "user", "Controversial", None)],
        ),
        (
            {
                "text": "p",
                "text_type": "user_message",
                "labels_0": "Violence",
                "labels_1": "Threat",
                "labels_2": "Safe",
            },
            [("p", "user", "Unsafe", None)],
        ),
        ({"text": "p", "text_type": "llm_response", "labels_0": "Safe"}, []),
        ({"text": "p", "text_type": "user_message", "labels_0": None}, []),
    ],
    "aegis-2": [
        (
            {**PAIR, "prompt_label": "unsafe", "response_label": "safe"},
            [("p", "user", "Unsafe", None), ("r", "assistant", "Safe", None)],
        ),
        (
            {"prompt": "p", "response": None, "prompt_label": "safe", "response_label": None},
            [("p", "user", "Safe", None)],
        ),
        ({"prompt": "REDACTED", "response": "r", "prompt_label": "unsafe", "response_label": "unsafe"}, []),
    ],
    "simple-safety-tests": [
        ({"prompt": "p", "harm_area": "Scams & Fraud"}, [("p", "user", "Unsafe", None)]),
        ({"prompts_final": "p", "id": "1"}, [("p", "user", "Unsafe", None)]),
    ],
    "harmbench": [
        ({"Behavior": "p", "FunctionalCategory": "standard", "ContextString": ""}, [("p", "user", "Unsafe", None)]),
        ({"Behavior": "p", "ContextString": "c"}, [("c\n\np", "user", "Unsafe", None)]),
    ],
    "wildguard": [
        (
            {**PAIR, **GUARD, "response_refusal_label": "refusal"},
            [("p", "user", "Unsafe", None), ("r", "assistant", "Safe", True)],
        ),
        (
            {**PAIR, "prompt_harm_label": None, "response_harm_label": None, "response_refusal_label": "compliance"},
            [("r", "assistant", None, False)],
        ),
    ],
    "polyguard": [
        (
            {**PAIR, **GUARD, "language": "Thai", "response_refusal_label": None},
            [("p", "user", "Unsafe", None), ("r", "assistant", "Safe", None)],
        ),
    ],
    "xstest": [
        ({"prompt": "p", "type": "homonyms", "label": "safe"}, [("p", "user", "Safe", None)]),
        ({"prompt": "p", "type": "contrast_homonyms"}, [("p", "user", "Unsafe", None)]),
        ({**PAIR, "label": "harmful", "prompt_type": "prompt_harmful"}, [("r", "assistant", "Unsafe", None)]),
        ({**PAIR, "label": "refusal"}, [("r", "assistant", None, True)]),
    ],
    "beavertails": [
        ({**PAIR, "is_safe": False, "category": {"violence": True}}, [("r", "assistant", "Unsafe", None)]),
        ({**PAIR, "is_safe": True, "category": {}}, [("r", "assistant", "Safe", None)]),
    ],
    "rtp-lx": [
        ({"Prompt": "p", "Locale": "ZH-Hans", "PromptAnnotations": {"Toxicity": 1}}, [("p", "user", "Safe", None)]),
        ({"Prompt": "p", "Locale": "DE", "PromptAnnotations": {"Toxicity": 2}}, [("p", "user", "Controversial", None)]),
        ({"Prompt": "p", "Locale": "DE", "PromptAnnotations": {"Toxicity": 4.0}}, [("p", "user", "Unsafe", None)]),
        (
            {
                "Prompt": "p",
                "Completion": "",
                "Locale": "ZH",
                "Annotations": {"Toxicity": 2.6666666666666665},
                "AnnotationsRaw": {"Toxicity": [2, 3, 3]},
            },
            [("p", "user", "Unsafe", None)],
        ),
        ({"Prompt": "p", "Locale": "DE", "Annotations": {"Toxicity": 4 / 3}}, [("p", "user", "Safe", None)]),
        (
            {"Prompt": "p", "Locale": "TR", "PromptAnnotationsRaw": {"Toxicity": [1, 2, 2]}},
            [("p", "user", "Controversial", None)],
        ),
    ],
}


def test_every_data_set_has_rows_here() -> None:
    assert ROWS.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_row_becomes_gold_lines_that_can_be_judged(name: str, tmp_path: Path) -> None:
    for row, expected in ROWS[name]:
        lines = ADAPTERS[name](row)
        golds = [Gold.model_validate(line["gold"]) for line in lines]
        assert [
            (line["text"], line.get("role", "user"), gold.severity, gold.refusal)
            for line, gold in zip(lines, golds, strict=True)
        ] == expected
        file = write_lines(tmp_path / "gold.jsonl", lines)
        for judged, line in zip(JsonLines(file).rows(are_whole=True), lines, strict=True):
            event = PLAIN.event_of(judged)
            assert event.get("context", []) == ([{"role": "user", "text": "p"}] if line.get("role") else [])
            assert line["dataset"] == f"{name}/{'response' if line.get('role') else 'prompt'}"


def test_languages_become_their_tags() -> None:
    row = {**ROWS["polyguard"][0][0], "language": "Thai"}
    assert {line["language"] for line in ADAPTERS["polyguard"](row)} == {"th"}
    assert ADAPTERS["rtp-lx"](ROWS["rtp-lx"][0][0])[0]["language"] == "zh-hans"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_file_in_each_form_is_converted(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "hello, you", "type": "homonyms", "label": "safe"}, {"prompt": "", "type": "a", "label": "safe"}]
    source, output = tmp_path / f"xstest{suffix}", tmp_path / "gold.jsonl"
    if suffix == ".csv":
        with source.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    elif suffix == ".json":
        source.write_text(json.dumps(rows))
    else:
        write_lines(source, rows)
    assert "1 lines of 2 rows; 1 rows have no usable label" in evaluate("convert", "xstest", source, output)
    (line,) = (json.loads(text) for text in output.read_text().splitlines())
    assert line == {"text": "hello, you", "type": "homonyms", "dataset": "xstest/prompt", "gold": {"severity": "Safe"}}
    assert "exists already" in evaluate("convert", "xstest", source, output, code=2)


@pytest.mark.parametrize(
    ("name", "file", "content", "sentence"),
    [
        ("wordguard", "a.jsonl", b"", "unknown data set 'wordguard' (one of: openai-moderation, "),
        ("xstest", "a.txt", b"", "the name must end in"),
        ("xstest", "a.jsonl", b"{", "is not JSON"),
        (
            "xstest",
            "a.jsonl",
            b'{"text": "p"}\n',
            "row 1: does not have the format of this data set (KeyError('type'); its",
        ),
        ("rtp-lx", "a.json", b'{"PromptAnnotations": 3}\n', "row 1: does not have the format of this data set"),
        ("xstest", "a.parquet", b"nothing", "cannot be read as Parquet"),
        ("xstest", "a.csv", b"prompt,label\nhi,\xff\n", "cannot be read after row 0"),
        ("xstest", "a.jsonl.gz", b"no gzip", "cannot be read after row 0"),
    ],
)
def test_a_wrong_file_is_reported_in_a_sentence(
    tmp_path: Path, name: str, file: str, content: bytes, sentence: str
) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(Misconfigured, match=re.escape(sentence)):
        convert_command(name, tmp_path / file, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
