"""`guardline mapping`, in this process: what a person who writes a mapping sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from workers.cli.mapping import app
from workers.errors import Misconfigured
from workers.mapping.examples import NAMES


def run(*arguments: str | Path, code: int = 0, text: str = "") -> Result:
    result = CliRunner().invoke(app, [str(one) for one in arguments], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_the_examples_are_listed_printed_written_and_tried(tmp_path: Path) -> None:
    assert run("examples").stdout.split() == list(NAMES)
    assert run("examples", "discord").stdout.startswith("# Discord")
    written = run("examples", "--out", tmp_path / "mappings").stdout.split()
    assert len(written) == 2 * len(NAMES)
    tried = run("test", tmp_path / "mappings" / "discord.yaml", tmp_path / "mappings" / "discord.jsonl")
    lines = tried.stdout.splitlines()
    assert lines[0] == "   1  event        '900' of 'acme', chat: 'I will find you and kill you'"
    assert "author_id: '9'" in lines[1]
    assert (
        lines[-1] == "   8  skipped      not_a_message: skip_when: \"t != 'MESSAGE_CREATE' && t != 'MESSAGE_UPDATE'\""
    )
    assert tried.stderr == "8 records: 5 events, 3 records skipped, 0 dead letters\n"


def test_an_example_never_overwrites_a_file(tmp_path: Path) -> None:
    run("examples", "slack", "--out", tmp_path)
    (tmp_path / "slack.yaml").write_text("mine")
    with pytest.raises(Misconfigured, match=r"slack.yaml exists already"):
        run("examples", "--out", tmp_path)
    assert (tmp_path / "slack.yaml").read_text() == "mine"
    with pytest.raises(Misconfigured, match=r"there is no mapping 'icq' \(one of: debezium, discord, "):
        run("examples", "icq")


def test_a_record_without_an_event_is_shown_with_the_expression_that_found_nothing(tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("text: d.content\ntenant_id: {value: acme}\nsurface: where")
    tried = run("test", mapping, "-", text='{"d": {}}\n\nnot json\n', code=1)
    assert tried.stdout.splitlines() == [
        "   1  dead letter  missing_field: text: 'd.content' finds nothing in the record",
        "   3  dead letter  not_json: Expecting value (line 1, column 1)",
    ]
    assert tried.stderr == "2 records: 0 events, 0 records skipped, 2 dead letters\n"
    tried = run("test", mapping, "-", text='{"d": {"content": "hi"}, "where": "mail"}\n')
    assert tried.stdout.splitlines()[-1].strip() == "ignored, because they cannot be read: surface"


def test_an_event_without_an_id_is_shown_with_the_id_that_its_position_will_give(tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("tenant_id: {value: acme}\ntexts: {title: a, body: b}")
    tried = run("test", mapping, "-", "--topic", "shop.comments", text='{"a": "x", "b": "y"}\n')
    assert [line.strip() for line in tried.stdout.splitlines()] == [
        "1  event        'shop.comments/PARTITION/OFFSET/title' of 'acme', comment: 'x'",
        "no event_id: the id will be shop.comments/PARTITION/OFFSET/title",
        "1  event        'shop.comments/PARTITION/OFFSET/body' of 'acme', comment: 'y'",
        "no event_id: the id will be shop.comments/PARTITION/OFFSET/body",
    ]
    tried = run("test", mapping, "-", text='{"a": "x"}\n')
    assert tried.stdout.splitlines()[-1].strip() == "no event_id: the id will be TOPIC/PARTITION/OFFSET/title"


@pytest.mark.parametrize("record", ['{"body": "x"}', "[1]"])
def test_a_field_that_the_mapping_does_not_name_is_not_answered_with_a_hint_to_use_a_mapping(
    tmp_path: Path, record: str
) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("tenant_id: {value: acme}")
    tried = run("test", mapping, "-", text=record, code=1)
    assert tried.stdout.strip() == (
        "1  dead letter  missing_field: text: the field is required; "
        "the mapping does not say where it is, and the record has no field of this name"
    )


def test_options_set_topic_key_and_headers_and_json_shows_all_fields(tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("tenant_id: {topic: '^(.*).chat$'}\nauthor_id: {key: true}\nlanguage: {header: lang}")
    options = ["--topic", "shop.chat", "--key", "k", "--header", "lang=de", "--json"]
    found = json.loads(run("test", mapping, "-", *options, text='{"event_id": 1, "text": "hi"}').stdout)
    assert found["event"] | {"attributes": 0} == {
        "event_id": "1",
        "tenant_id": "shop",
        "surface": "chat",
        "text": "hi",
        "author_id": "k",
        "language": "de",
        "attributes": 0,
    }
    with pytest.raises(Misconfigured, match=r"--header: 'lang' is not NAME=VALUE"):
        run("test", mapping, "-", "--header", "lang")


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_no_character_of_a_sender_reaches_the_terminal_as_a_command(tmp_path: Path, option: list[str]) -> None:
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("tenant_id: {value: acme}")
    hostile = "\x1b[2J\x9b31m\r\n\u202e"
    shown = run("test", mapping, "-", *option, text=json.dumps({"event_id": hostile, "text": hostile})).stdout
    assert not [letter for letter in shown if not letter.isprintable() and letter != "\n"]
    assert len(shown.splitlines()) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"^cannot read /.*missing.yaml: No such file"):
        run("test", tmp_path / "missing.yaml", "-")
    (tmp_path / "mapping.yaml").write_text("text: a")
    with pytest.raises(Misconfigured, match=r"RECORDS: cannot read .*missing.jsonl: No such file"):
        run("test", tmp_path / "mapping.yaml", tmp_path / "missing.jsonl")
    (tmp_path / "latin.yaml").write_bytes(b"text: \xe9")
    with pytest.raises(Misconfigured, match=r"^/.*latin.yaml is not UTF-8: .* at byte 6"):
        run("test", tmp_path / "latin.yaml", "-")
