"""What others wrote reaches a terminal as text alone."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.cli import tables
from workers.shown import MASK, printable, shown, without, without_passwords

CLI = sorted((Path(__file__).parents[2] / "workers" / "cli").glob("*.py"))

EVIL = "a\x1b]0;title\x07\x1b[2J\x9b31m\r\nguardline: all is well\u2028\u202ex\x00\x7f"
"""A title, a cleared screen, a colour by an 8-bit control, another line, and a text that runs backwards."""


@given(st.text(alphabet=st.characters()))
def test_nothing_that_is_shown_is_obeyed_by_a_terminal(text: str) -> None:
    assert shown(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


def test_a_control_character_is_shown_as_an_escape() -> None:
    assert printable("a\x1b[31m\n\u202e\ud800é👍") == r"a\x1b[31m\n\u202e\ud800é👍"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://user:pa/s@s@host:1/0 is away", f"redis://{MASK}@host:1/0 is away"),
        ("['http://a', 'http://u:p@b/x?key=p']", f"['http://a', 'http://{MASK}@b/x?{MASK}']"),
        ("https:/u:p@b", f"https:/{MASK}@b"),
        ("https://host/@name and https://host:8080/@name", "https://host/@name and https://host:8080/@name"),
        ("me@example.org: http://a:1/x", "me@example.org: http://a:1/x"),
    ],
)
def test_the_password_of_a_url_is_masked(text: str, expected: str) -> None:
    assert without_passwords(text) == expected


@pytest.mark.parametrize("part", [":/a:b", ":/a", "://", ":/a@", ":/1", ":/?", ":/a:1/", "a:", "@:/a:b/"])
def test_the_time_for_masking_is_proportional_to_the_text(part: str) -> None:
    def took_s(length: int) -> float:
        text = part * (length // len(part))
        begun = time.process_time()
        without_passwords(text)
        return time.process_time() - begun

    long = took_s(20_000)
    assert long < 0.02 or long < 40 * took_s(2_000) + 0.02


def test_a_secret_is_found_as_a_url_writes_it() -> None:
    assert without(["p/w", ""], "p/w p%2Fw p") == f"{MASK} {MASK} p"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_document_is_shown_as_one_printable_line_that_means_the_same(text: str) -> None:
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.echo", lambda line, **_: written.append(line))
        tables.say_json(orjson.dumps({"text": text}, option=orjson.OPT_INDENT_2))
    (line,) = written
    assert line.isprintable()
    assert json.loads(line) == {"text": text}


@pytest.mark.parametrize("file", CLI, ids=lambda file: file.stem)
def test_commands_write_by_the_functions_that_escape_and_in_no_other_way(file: Path) -> None:
    if file.stem in ("tables", "report"):
        return
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    ways = ("print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write")
    assert [call for call in calls if call in ways or call.endswith(".add_row")] == []


SAYS = f"""
from workers.cli.tables import add_row, print_table, say, say_yaml, table_of
from workers.cli.report import report
from workers.errors import Fatal
from workers.process.logs import log_to_stderr
import structlog
evil = {EVIL!r}
say(evil)
say_yaml({{"tenant": evil}})
table = table_of("tenant")
add_row(table, evil + "[red]x[/red]")
print_table(table)
report(Fatal(evil))
log_to_stderr()
structlog.get_logger().warning(evil, said=evil, among=[{{"inner": evil}}], url="http://u:canary@h")
"""


def test_what_others_wrote_cannot_steer_a_terminal() -> None:
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SAYS],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "NO_COLOR": "1"},
    ) as process:
        os.close(terminal)
        output = b""
        while True:
            try:
                part = os.read(master, 65_536)
            except OSError:  # Nobody holds the other end any more.
                break
            output += part
        assert process.wait(30) == 0
    os.close(master)
    text = re.sub(r"\x1b\[[\d;]*m", "", output.decode())  # The log is coloured.
    assert text.count("title") >= 7
    for control in EVIL:
        assert control.isprintable() or control in "\r\n" or control not in text
    assert not any(line.startswith("guardline: all is well") for line in text.splitlines())
    assert "[red]x[/red]" in text
    assert "canary" not in text
