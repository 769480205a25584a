"""Streams workers that are killed, frozen, join and leave while 200 answers are written; and one left in peace."""

from __future__ import annotations

import json
import random
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.site import Process, Site, eventually
from tests.streaming import Answers, Position, checkpoint, step
from workers.kafka.topics import create

STREAMS = 200
DELTAS = 7
THRESHOLD = 0.4
MARGIN = 2e-4
"""No probability of these texts is so close to the threshold that rounding decides."""

SENTENCE = "the river was calm and every boat went home before a storm came over from that far cold sea again"
WORDS = SENTENCE.split(" ")

RULES = {"cut_prompt": None, "cut_unsafe": 2, "threshold": THRESHOLD, "hold_back": {"until": "tokens", "tokens": 1}}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("stream"))


def written() -> list[dict[str, Any]]:
    """Give the records of all streams as they would arrive: one of each stream in turn."""
    draw = random.Random(7)
    streams = []
    for number in range(STREAMS):
        name = f"answer-{number}"
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 3))) + " " for _ in range(DELTAS)]
        deltas = [step("delta", seq, name, text) for seq, text in enumerate(texts, 2)]
        streams.append([step("open", 0, name), step("user", 1, name, " ".join(draw.choices(WORDS, k=6))), *deltas])
        if number % 3:
            streams[-1].append(step("close", DELTAS + 2, name))
    longest = max(map(len, streams))
    return [stream[turn] for turn in range(longest) for stream in streams if turn < len(stream)]


def undisturbed(answers: Answers) -> tuple[dict[Position, dict[str, Any]], list[dict[str, Any]]]:
    """Have one worker of another group answer the same records."""
    site, group = answers.site, answers.site.environment["GUARDLINE_KAFKA__GROUP"]
    names = ("stream_verdicts", "interventions", "stream_sessions", "dead_letters")
    own = {name: f"{group}.calm.{name}" for name in names}
    changes = {f"GUARDLINE_TOPICS__{name.upper()}": topic for name, topic in own.items()}
    changes["GUARDLINE_KAFKA__GROUP"] = f"{group}-calm"
    create(site.settings(**changes), list(own.values()))
    worker = answers.worker("calm", **changes)
    count = len(answers.sent)
    eventually(lambda: answers.answered(own["stream_verdicts"]) == count, "the undisturbed worker is done", 60)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    return answers.verdicts(own["stream_verdicts"]), answers.documents(own["interventions"])


def is_frozen(worker: Process) -> bool:
    return Path(f"/proc/{worker.popen.pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def freeze_and_resume(answers: Answers, frozen: Process, file: Path, records: list[dict[str, Any]]) -> None:
    """Freeze a worker inside a transaction until another one has its partitions and has answered the records."""
    file.touch()
    answers.send(records)
    eventually(lambda: is_frozen(frozen), "the worker is frozen, with finished records that are not committed")
    assert answers.answered() < len(answers.sent)
    eventually(lambda: answers.answered() >= len(answers.sent), "the other worker answers its records")
    frozen.send(signal.SIGCONT)
    eventually(lambda: "partitions lost" in frozen.text, "it learns of its loss")
    eventually(lambda: frozen.text.count("partitions assigned") > 1, "it has joined again")


@pytest.mark.timeout(240)
def test_kills_and_rebalances_lose_and_double_nothing_and_cut_the_same_streams(site: Site, model: Path) -> None:
    """Each input position is answered exactly once, as by a worker that nothing disturbs.

    First with one group protocol, then with the other one.
    """
    answers = Answers(site, model)
    answers.create_topics()
    file = Path(site.folder.name) / "policy.json"
    file.write_text(json.dumps({"stream": RULES}))
    site.command("policy", "set", "acme", str(file))
    records = written()
    borders = [0, 4 * STREAMS, 6 * STREAMS, 7 * STREAMS, 8 * STREAMS, len(records)]
    parts = [records[begin:end] for begin, end in pairwise(borders)]

    first = answers.worker("one")
    answers.send(parts[0])
    eventually(lambda: answers.answered() >= 2 * STREAMS, "all streams are open")
    second = answers.worker("two")
    eventually(lambda: second.has_partitions, "a rebalance in the middle of the streams")
    first.send(signal.SIGKILL)
    answers.send(parts[1])
    first.wait()
    again = answers.worker("one")
    eventually(lambda: again.has_partitions, "the killed worker is there again")
    eventually(lambda: answers.answered() >= 5 * STREAMS, "the streams go on")
    second.send(signal.SIGTERM)
    answers.send(parts[2])
    assert second.wait() == 0
    again.send(signal.SIGTERM)
    assert again.wait() == 0

    site.use("consumer")
    file = Path(site.folder.name) / "freeze"
    # Its transaction outlives the freeze: only the group may refuse it.
    long = {"GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S": "60"}
    frozen = site.worker(sys.executable, "-m", "tests.chaos.faulty_worker", "freeze", str(file), **long)
    third = answers.worker("three")
    eventually(lambda: frozen.has_partitions and third.has_partitions, "both have partitions")
    freeze_and_resume(answers, frozen, file, parts[3])
    answers.send(parts[4])
    eventually(lambda: answers.answered() >= len(answers.sent), "every record is answered", 60)
    assert frozen.popen.poll() is None, frozen.text

    expected, expected_cuts = undisturbed(answers)
    verdicts = answers.verdicts()
    # The parts of one transaction need not become visible at the same moment.
    cuts: list[dict[str, Any]] = []

    def are_there() -> bool:
        cuts[:] = answers.documents(answers.topics.interventions)
        return len(cuts) >= len(expected_cuts)

    eventually(are_there, "all interventions are there")
    assert set(verdicts) == set(expected) == set(answers.sent)
    assert len(cuts) == len({cut["stream_id"] for cut in cuts}), "a stream was cut twice"
    rows = [row for verdict in expected.values() for row in verdict["risk"]]
    assert min(abs(row[2] - THRESHOLD) for row in rows) > MARGIN
    by_id = {cut["intervention_id"]: cut for cut in expected_cuts}
    assert {cut["intervention_id"]: cut for cut in cuts} == by_id
    assert 20 < len(cuts) < STREAMS - 20, "some streams are cut, and some are not"
    for position, verdict in verdicts.items():
        other = expected[position]
        for one in (verdict, other):
            del one["judged_ms"]
        for row, wanted in zip(verdict.pop("risk"), other.pop("risk"), strict=True):
            assert row == pytest.approx(wanted, abs=MARGIN)
        assert verdict == other
    for owner in (again, third):
        assert "streams taken over" in owner.text
    assert answers.records(answers.topics.dead_letters) == []
    left = {f"answer-{number}" for number in range(0, STREAMS, 3)}
    eventually(lambda: set(answers.states()) == left, "the streams that nobody closed are still known")
