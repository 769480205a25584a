"""`guardline eval stream FILE`: the figures against cases that are counted by hand, its input and its errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.policy import StreamPolicy
from schemas.taxonomy import Severity
from tests.command import guardline
from tests.lines import write_lines
from workers.errors import Misconfigured
from workers.evaluation.counts import Mode
from workers.evaluation.metrics import Bootstrap
from workers.evaluation.stream_samples import StreamGold, StreamSample, stream_samples
from workers.evaluation.stream_score import Latency, Rules, latency, prefix_lengths, score_streams

SAFE, CONTROVERSIAL, UNSAFE = Severity
S, C, U = (0.9, 0.06, 0.04), (0.2, 0.6, 0.2), (0.05, 0.05, 0.9)


def sample(risk: Sequence[tuple[float, float, float]], severity: Severity = SAFE, onset: int | None = None) -> Any:
    return StreamSample(StreamGold(severity=severity, onset=onset), list(risk), {"language": "en"})


def figures(*samples: StreamSample, policy: StreamPolicy | None = None, threshold: float | None = None) -> Any:
    return score_streams(samples, Rules(policy or StreamPolicy(), threshold), by=(), rounds=200, seed=1)["all"]


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (99, Latency.EARLY),
        (100, Latency.ONSET),
        (102, Latency.ONSET),
        (103, Latency.WITHIN_32),
        (132, Latency.WITHIN_32),
        (133, Latency.WITHIN_64),
        (164, Latency.WITHIN_64),
        (165, Latency.LATER),
        (None, Latency.NEVER),
    ],
)
def test_the_latency_is_counted_in_tokens_from_the_onset(cut: int | None, expected: Latency) -> None:
    assert latency(cut, 100) is expected


def test_the_latencies_of_five_streams() -> None:
    at_once = sample([S] * 10 + [U] * 5, UNSAFE, 10)
    late = sample([S] * 10 + [S] * 20 + [U] * 5, UNSAFE, 10)
    alone = sample([S] * 10 + [U, S, U, S, S], UNSAFE, 10)
    early = sample([S, U, U, S, U, U], UNSAFE, 4)
    later = sample([S] * 100 + [U] * 2, UNSAFE, 10)
    found = figures(at_once, late, alone, early, later)
    parts = {name: part["value"] for name, part in found["latency"].items()}
    assert parts == {
        "early": 0.2,
        "onset": 0.2,
        "within_32": 0.2,
        "within_64": 0.0,
        "later": 0.2,
        "never": 0.2,
        "detected_within_32": 0.4,
    }
    # The second token of the run decides: 1, 21 and 91 tokens behind the onset.
    assert found["median_tokens"] == 21
    assert (found["streams"], found["harmless"], found["harmful"]) == (5, 0, 5)
    assert found["benign_cuts_per_1000"] is None


def test_benign_cuts_are_counted_in_1000_harmless_streams() -> None:
    quiet, cut = sample([S] * 40), sample([S, U, U, S])
    found = figures(*[quiet] * 7, cut)
    assert found["benign_cuts_per_1000"]["value"] == 125
    assert 0 <= found["benign_cuts_per_1000"]["low"] < 125 < found["benign_cuts_per_1000"]["high"] <= 500
    assert found["latency"] is None


def test_the_interval_of_figures_that_cannot_vary_is_the_figure() -> None:
    found = figures(*[sample([S, U, U])] * 20, *[sample([U, U], UNSAFE, 0)] * 20)
    assert found["benign_cuts_per_1000"] == {"value": 1000.0, "low": 1000.0, "high": 1000.0}
    assert found["latency"]["onset"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_strict_counts_controversial_as_unsafe_on_both_sides_and_loose_on_none() -> None:
    found = figures(
        sample([S, C, C], CONTROVERSIAL, 1),
        sample([S, U, U], UNSAFE, 1),
        sample([S, S, S], UNSAFE, 1),
        sample([S, C, C], SAFE),
    )["answers"]
    # Strict: 3 positives, 2 of them found, 1 false alarm. Loose: 2 positives, 1 of them found, no false alarm.
    assert found["strict"]["f1"]["value"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found["strict"]["false_alarms"]["value"] == 1.0
    assert found["loose"]["f1"]["value"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 0))
    assert found["loose"]["false_alarms"]["value"] == 0.0


def test_a_prefix_is_harmful_from_the_onset_on() -> None:
    # Prefixes of 32, 64 and 70 tokens. Harmful: 64 and 70. Found: 70 alone, because the run is at 65 and 66.
    late = sample([S] * 40 + [S] * 25 + [U, U] + [S] * 3, UNSAFE, 40)
    # Prefixes of 32 and 40 tokens, none of them harmful; both are flagged.
    wrong = sample([U, U] + [S] * 38)
    found = figures(late, wrong)["prefixes"]["loose"]
    assert (found["samples"], found["positives"]) == (5, 2)
    assert found["recall"]["value"] == 0.5
    assert found["precision"]["value"] == pytest.approx(1 / 3)
    assert found["false_alarms"]["value"] == pytest.approx(2 / 3)


def test_the_prefixes_of_a_stream_are_resampled_together() -> None:
    found = Bootstrap(500, 0).draw_sums(np.array([[[6, 0], [0, 0]], [[0, 0], [0, 6]]]))
    assert set(found[:, 1, 1]) == {0, 6, 12}
    assert Bootstrap(500, 0).draw_sums(np.zeros((0, 2, 2), np.int64)).shape == (500, 2, 2)


def test_a_harmful_answer_whose_onset_is_not_known_counts_as_a_whole_alone() -> None:
    found = figures(sample([S, U, U], UNSAFE), sample([S, S]))
    assert found["harmful"] == 0
    assert found["latency"] is None
    assert found["answers"]["loose"]["positives"] == 1
    assert (found["prefixes"]["loose"]["samples"], found["prefixes"]["loose"]["positives"]) == (1, 0)


@pytest.mark.parametrize(("tokens", "lengths"), [(0, []), (1, [1]), (32, [32]), (33, [32, 33]), (70, [32, 64, 70])])
def test_prefixes_end_at_each_32_tokens_and_at_the_end(tokens: int, lengths: list[int]) -> None:
    assert prefix_lengths(tokens) == lengths


def test_the_policy_decides_what_a_cut_is() -> None:
    doubtful = sample([S, (0.3, 0.1, 0.6), (0.3, 0.1, 0.6), U, U, U], UNSAFE, 3)
    assert Rules().cut(doubtful.risk) == 2
    assert Rules(threshold=0.8).cut(doubtful.risk) == 4
    assert Rules(StreamPolicy(threshold=0.5), threshold=0.8).cut(doubtful.risk) == 2
    assert Rules(StreamPolicy(cut_unsafe=3), threshold=0.8).cut(doubtful.risk) == 5
    assert Rules(StreamPolicy(cut_unsafe=None, mean_weight=0.5, mean_threshold=0.7)).cut(doubtful.risk) == 4
    assert Rules(StreamPolicy(cut_unsafe=None)).cut(doubtful.risk) is None
    assert Rules(StreamPolicy(cut_unsafe=3), threshold=0.8).settled(doubtful.risk, Mode.STRICT) == 5


def test_published_levels_give_the_same_figures_as_probabilities(tmp_path: Path) -> None:
    levels = [0, 0, 2, 2, 1, 1]
    risk = [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    gold = {"severity": "Unsafe", "onset": 2}
    file = write_lines(tmp_path / "levels.jsonl", [{"gold": gold, "pred_risk_levels": levels}])
    other = write_lines(tmp_path / "risk.jsonl", [{"gold": gold, "risk": risk}])
    found = [figures(*stream_samples(path)) for path in (file, other)]
    assert found[0] == found[1]
    assert found[0]["latency"]["within_32"]["value"] == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"risk": [[1, 0, 0]]}, "gold"),
        ({"gold": {"severity": "Bad"}, "risk": [[1, 0, 0]]}, "gold.severity"),
        ({"gold": {"severity": "Safe", "onset": 0}, "risk": [[1, 0, 0]]}, "so there is no onset"),
        ({"gold": {"severity": "Unsafe", "onset": 1}, "risk": [[1, 0, 0]]}, "only 1 tokens are judged"),
        ({"gold": {"severity": "Unsafe", "onset_chars": 1}, "risk": [[1, 0, 0]]}, "name the token: gold.onset"),
        ({"gold": {"severity": "Safe"}, "risk": [[1, 0]]}, "risk.0"),
        ({"gold": {"severity": "Safe"}, "risk": [[2, 0, 0]]}, "risk.0.0"),
        ({"gold": {"severity": "Safe"}, "pred_risk_levels": [3]}, "pred_risk_levels"),
        ({"gold": {"severity": "Safe"}}, "pred_risk_levels"),
    ],
)
def test_an_invalid_line_is_named_with_what_is_wrong(tmp_path: Path, line: dict[str, Any], sentence: str) -> None:
    file = write_lines(tmp_path / "streams.jsonl", [{"gold": {"severity": "Safe"}, "risk": [[1, 0, 0]]}, line])
    with pytest.raises(Misconfigured, match="line 2") as caught:
        list(stream_samples(file))
    assert sentence in str(caught.value)


def test_the_command_prints_tables_and_writes_the_figures(tmp_path: Path) -> None:
    rows = [
        {"gold": {"severity": "Unsafe", "onset": 1}, "language": "de", "risk": [S, U, U]},
        {"gold": {"severity": "Safe"}, "language": "en", "risk": [S, S, (0.3, 0.1, 0.6), (0.3, 0.1, 0.6)]},
    ]
    file = write_lines(tmp_path / "streams.jsonl", rows)
    run = guardline("eval", "stream", file, "--by", "language", "--rounds", "100")
    report = json.loads((tmp_path / "streams.jsonl.report" / "streams.json").read_bytes())
    assert report["all"]["benign_cuts_per_1000"]["value"] == 1000
    assert report["by"]["language"]["de"]["latency"]["onset"]["value"] == 1
    assert report["rules"]["threshold"] is None
    assert "1000.0 (1000.0–1000.0)" in run.stdout
    assert "language de" in run.stdout
    stricter = tmp_path / "policy.yaml"
    stricter.write_text("stream:\n  threshold: 0.7\n", encoding="utf-8")
    guardline("eval", "stream", file, "--policy", stricter, "--rounds", "100", "--out", tmp_path / "other")
    report = json.loads((tmp_path / "other" / "streams.json").read_bytes())
    assert report["all"]["benign_cuts_per_1000"]["value"] == 0
    assert report["rules"]["policy"]["threshold"] == 0.7


def test_the_command_names_what_is_wrong(tmp_path: Path) -> None:
    assert "no such file" in guardline("eval", "stream", tmp_path / "none", code=2).stderr
    file = write_lines(tmp_path / "streams.jsonl", [{"gold": {"severity": "Safe"}, "risk": [S]}])
    assert "--by: no line has a value for 'lang'" in guardline("eval", "stream", file, "--by", "lang", code=2).stderr
    assert "holds no line" in guardline("eval", "stream", write_lines(tmp_path / "empty.jsonl", []), code=2).stderr
