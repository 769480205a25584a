"""Commands that fail end with a sentence and an exit code, never with a traceback."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer

from tests.command import GUARDLINE, guardline, inheriting
from tests.site import Site, eventually
from tests.stack import Stack
from workers.errors import Unavailable
from workers.kafka import clients, topics
from workers.kafka.reader import read
from workers.kafka.route import of_moderation
from workers.settings import Settings


@pytest.mark.parametrize("ask", [lambda settings: topics.check(of_moderation(settings)), topics.create])
def test_a_broker_that_stops_answering_during_a_command_is_reported_in_a_sentence(
    site: Site, stack: Stack, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Settings], object]
) -> None:
    site.create_topics()
    present_topics = clients.present_topics

    with ExitStack() as until_the_end:

        def answer_and_freeze(*arguments: Any) -> Any:
            answer = present_topics(*arguments)
            until_the_end.enter_context(stack.frozen_kafka())
            return answer

        monkeypatch.setattr(clients, "present_topics", answer_and_freeze)
        monkeypatch.setattr(topics, "ANSWER_S", 0.5)
        with pytest.raises(Unavailable, match=r"no answer in time from kafka\.bootstrap_servers"):
            ask(site.settings())


STOPPED_AT_AN_IMPORT = """
import os, signal, sys
from importlib.metadata import entry_points

at = sys.argv.pop(1)

class Named:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)

class Stop:
    def find_spec(name, path, target=None):
        if name == at:
            type("Owner", (), {"name": Named()})

sys.meta_path.insert(0, Stop)
(command,) = entry_points(group="console_scripts", name="guardline")
command.load()()
"""
"""Python 3.11 makes a RuntimeError of an exception in `__set_name__`."""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("workers.cli", ["config"]),
        *((f"workers.{kind}.worker", ["worker", kind]) for kind in ("moderation", "actions", "review", "aggregates")),
    ],
)
def test_ctrl_c_during_the_imports_prints_no_traceback(module: str, arguments: list[str]) -> None:
    run = guardline(module, *arguments, code=130, program=(sys.executable, "-c", STOPPED_AT_AN_IMPORT))
    assert [line for line in run.stderr.splitlines() if not line.startswith("{")] == []


DENIED = "(Permission denied|Operation not permitted|Read-only file system)"
"""The error of Linux for a new file or folder in /sys, where not even root may create one."""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["annotate", "in.jsonl", "/sys/out.jsonl"], f"guardline: /sys/out.jsonl.partial: {DENIED}\n$"),
        (["eval", "in.jsonl", "--out", "/sys/report"], f"guardline: /sys/report: {DENIED}: name another folder"),
        (["eval", "in.jsonl", "--out", "in.jsonl"], "in.jsonl: File exists: name another folder with --out"),
        (["devstack", "up", "--data", "in.jsonl"], "cannot use the data folder .*in.jsonl: File exists"),
    ],
)
def test_a_file_or_folder_that_may_not_be_written_is_reported_in_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "hello", "gold": {"severity": "Safe"}, "output": "Safety: Safe"}\n')
    run = guardline(*(str(file) if argument == file.name else argument for argument in arguments), code=2)
    assert re.search(sentence, run.stderr)


def test_version_prints_the_version_of_the_package() -> None:
    assert guardline("--version").stdout == f"guardline {metadata.version('guardline')}\n"


def test_config_has_a_row_for_each_setting_with_its_origin_and_shows_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "guardline.yaml"
    file.write_text(
        "guard:\n  openai: {urls: ['http://user:p%40ss-word@gpu:8000'], ca_file: '/[/b].pem'}\n"
        "kafka: {group: a, properties: {client.rack: east, client.id: one}}\n"
    )
    shown = guardline(
        "config",
        environment={
            "GUARDLINE_CONFIG": str(file),
            "GUARDLINE_GUARD__OPENAI__API_KEY": "pass-word",
            "GUARDLINE_GUARD__VLLM": '{"hf_overrides": {"token": "pass-word"}}',
            "GUARDLINE_KAFKA__GROUP": "b",
            "GUARDLINE_KAFKA__PROPERTIES": '{"sasl.password": "pass-word", "client.rack": "west"}',
        },
    ).stdout
    assert "ss-word" not in shown
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    rows = {name: (value, origin) for name, value, origin in cells}
    assert rows["guard.openai.urls"] == ("['http://**********@gpu:8000']", f"file {file}")
    assert rows["guard.openai.ca_file"] == ("/[/b].pem", f"file {file}")
    assert rows["guard.openai.api_key"] == ("**********", "environment")
    assert rows["guard.openai.timeout_s"] == ("30, by the number of servers", "default")
    properties, origin = rows["kafka.properties"]
    assert ast.literal_eval(properties) == {"client.id": "one", "client.rack": "west", "sasl.password": "**********"}
    assert origin == f"file {file}, environment"
    assert rows["kafka.group"] == ("b", "environment")
    assert "guard.openai" not in rows


def test_a_deleted_policy_is_gone_and_a_missing_one_is_reported_in_a_sentence(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text("controversial: allow\n")
    site.command("policy", "set", "acme", file)
    said = site.command("policy", "delete", "acme").stdout
    assert said.startswith("policy for tenant 'acme': deleted by version ")
    assert "the default decides for it" in said
    for command in ("get", "delete"):
        assert "tenant 'acme' has no policy" in site.command("policy", command, "acme", code=2).stderr
    assert "no tenant has a policy" in site.command("policy", "list").stderr


def test_produce_reports_an_input_that_it_cannot_use_in_a_sentence(site: Site) -> None:
    site.create_topics()
    said = site.command("produce", "/proc/self/mem", code=2).stderr
    assert "cannot read /proc/self/mem" in said
    file = Path(site.folder.name) / "events.jsonl"
    file.write_text("{}\n")
    # Other clients accept this, and an idempotent producer refuses it.
    said = site.command("produce", file, code=2, GUARDLINE_KAFKA__PROPERTIES='{"retries": 0}').stderr
    assert "kafka.properties: " in said


def taken(site: Site) -> int:
    settings = site.settings()
    found = read(settings.kafka, settings.topics.inputs, from_beginning=True, follow=False)
    return sum(message is not None for message in found)


def test_produce_sends_the_lines_before_one_that_it_cannot_send(site: Site, tmp_path: Path) -> None:
    site.create_topics()
    file = tmp_path / "events.jsonl"
    event = '{"tenant_id": "acme", "text": "hi"}'
    file.write_text(f"{event}\n\n{event}\n" + "x" * 2_000_000 + f"\n{event}\n")
    said = site.command("produce", file, code=1).stderr
    assert "line 4 cannot be sent: " in said
    assert "The 2 records before it were sent" in said
    assert taken(site) == 2
    file.write_text(f'\n\n{{"text": 7}}\n{event}\n')
    assert "becomes a dead letter: line 3: " in site.command("produce", file).stderr


def test_produce_sends_stream_events_to_their_topic_by_stream(site: Site, tmp_path: Path) -> None:
    streams = site.settings().topics.streams
    site.create_topics(streams)
    steps = [{"kind": "open"}, {"kind": "user", "text": "hi"}, {"kind": "close"}]
    events = [{"stream_id": name, "seq": seq, **step} for seq, step in enumerate(steps) for name in "ab"]
    file = tmp_path / "streams.jsonl"
    file.write_text("".join(f"{json.dumps(event)}\n" for event in [*events, {"kind": "delta"}]))
    said = site.command("produce", file, "--streams", "--tenant", "acme").stderr
    assert "7 records produced" in said
    assert "1 of them is not a valid stream event and becomes a dead letter: line 7: delta has neither" in said
    found: dict[bytes | None, list[int]] = defaultdict(list)
    for message in read(site.settings().kafka, [streams], from_beginning=True, follow=False):
        if message is not None:
            event = json.loads(message.value() or b"")
            assert event["tenant_id"] == "acme"
            found[message.key()].append(event.get("seq"))
    assert found == {b"a": [0, 1, 2], b"b": [0, 1, 2], None: [None]}

    said = site.command("produce", file, "--tenant", "acme", code=2).stderr
    assert "line 1 is a stream event: send it with `guardline produce --streams`" in said
    assert taken(site) == 0


def test_a_stopped_produce_says_how_many_records_it_sent(site: Site) -> None:
    site.create_topics()
    terminal, standard_error = pty.openpty()
    with inheriting():
        run = subprocess.Popen(
            [GUARDLINE, "produce", "-"],
            env={**os.environ, **site.environment},
            stdin=subprocess.PIPE,
            stderr=standard_error,
        )
    with run:
        assert run.stdin is not None
        run.stdin.write(3 * b'{"tenant_id": "acme", "text": "hi"}\n')
        run.stdin.flush()
        eventually(lambda: taken(site) == 3, "three records in the topic")
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 128 + signal.SIGINT
    # And no progress bar: nobody knows how much is to come.
    said = os.read(terminal, 65_536).decode()
    os.close(terminal)
    os.close(standard_error)
    assert said.startswith("stopped; 3 records produced")


def test_verdicts_follow_ends_when_its_output_is_closed(site: Site) -> None:
    site.create_topics()
    settings = site.settings()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(settings.topics.verdicts, b'{"decision": "allow"}')
    assert producer.flush(30) == 0
    run = subprocess.Popen(
        [GUARDLINE, "verdicts", "--json", "--follow", "--from-beginning"],
        env={**os.environ, **site.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with run:
        assert run.stdout is not None
        assert run.stderr is not None
        try:
            assert run.stdout.readline() == b'{"decision": "allow"}\n'
            run.stdout.close()
            assert run.wait(30) == 0
            assert run.stderr.read() == b""
        finally:
            run.kill()


def test_ctrl_c_ends_followed_verdicts_with_its_own_exit_code(site: Site) -> None:
    site.create_topics()
    with inheriting():
        run = subprocess.Popen(
            [GUARDLINE, "verdicts", "--follow"], env={**os.environ, **site.environment}, stderr=subprocess.PIPE
        )
    with run:
        assert run.stderr is not None
        assert run.stderr.readline().startswith(b"waiting for new verdicts")
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 130
        assert run.stderr.read() == b""


def test_verdicts_continues_after_records_that_are_not_verdicts(site: Site) -> None:
    site.create_topics()
    settings = site.settings()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    strange = (None, b"\xff", b"{", b"7", b"{}", b'{"decision": "allow"}')
    for value in strange:
        producer.produce(settings.topics.verdicts, value)
    assert producer.flush(30) == 0
    shown = site.command("verdicts")
    assert shown.stdout == ""
    assert shown.stderr.count("is not a verdict: another program writes to topics.verdicts") == len(strange)
    assert sorted(site.command("verdicts", "--json").stdout.split("\n")) == ["", "7", '{"decision": "allow"}', "{}"]


def test_verdicts_prints_those_of_streams_with_their_interventions(site: Site) -> None:
    topics = site.settings().topics
    site.create_topics(topics.stream_verdicts, topics.interventions)
    contracts = Path(__file__).parents[1] / "fixtures" / "contracts"
    producer = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
    verdict, intervention = (
        (contracts / f"{name}/1.0.json").read_bytes() for name in ("stream_verdict", "intervention")
    )
    now_ms = int(time.time() * 1000)
    producer.produce(topics.interventions, intervention, timestamp=now_ms)
    producer.produce(topics.stream_verdicts, verdict, timestamp=now_ms)
    producer.produce(topics.interventions, b"{}", timestamp=now_ms + 1)
    assert producer.flush(30) == 0
    shown = site.command("verdicts", "--streams")
    first, second = shown.stdout.splitlines()
    assert first.startswith("judged          acme  s-1  1 user  prompt Controversial Jailbreak")
    assert second.startswith("intervention    acme  s-1  3  cut at token 17: unsafe Violent")
    assert shown.stderr.strip().endswith("is not an intervention: another program writes to topics.interventions")
    assert site.command("verdicts").stdout == ""


def test_a_policy_that_is_read_and_set_again_decides_as_before(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "acme.yaml"
    file.write_text("preset: loose\nrules: [{categories: [PII], min_score: 0.1, decision: block}]\n")
    site.command("policy", "set", "acme", file)
    shown = yaml.safe_load(site.command("policy", "get", "acme").stdout)
    version = shown.pop("version")
    assert shown == {"id": "acme", **yaml.safe_load(file.read_text())}
    file.write_text(yaml.safe_dump(shown))
    site.command("policy", "set", "acme", file)
    again = yaml.safe_load(site.command("policy", "get", "acme").stdout)
    assert again.pop("version") > version
    assert again == shown
    row = next(line for line in site.command("policy", "list").stdout.splitlines() if "acme" in line)
    assert "loose" in row
    assert "allow" in row
