"""The documentation names only what exists: tests, files, settings."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from workers.cli.app import app
from workers.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "helm" / "README.md",
    ROOT / "infra" / "nano" / "CARD.md",
    ROOT / "infra" / "nano_stream" / "CARD.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^guardline ((?:[a-z-]+(?: |$))+)", re.MULTILINE)
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_is_named_exists(page: Path) -> None:
    named = NAMED_TEST.findall(page.read_text(encoding="utf-8"))
    missing = [f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)]
    assert missing == []


def test_the_guarantees_name_tests() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    guaranteed = page.partition("## What is guaranteed")[2].partition("## What is not guaranteed")[0]
    without = [part.splitlines()[0] for part in guaranteed.split("### ")[1:] if not NAMED_TEST.search(part)]
    assert without == []


def test_each_section_of_the_settings_has_one_table() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    tables = re.findall(r"^<!-- settings of (\w+):", page, re.MULTILINE)
    assert sorted(tables) == sorted(Settings.model_fields)


def test_every_page_is_in_the_menu_of_the_site() -> None:
    listed = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages - set(leaves(listed)) == set(), "add it to nav in mkdocs.yml"
    assert [page for page, count in Counter(leaves(listed)).items() if count > 1] == []


def leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for inner in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from leaves(inner)


def test_make_alone_lists_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert sorted(line.split()[1] for line in listed.splitlines()) == sorted(" ".join(targets).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_named_exists(page: Path) -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    named = [words.split() for block in blocks for words in COMMAND.findall(block)]
    command = get_command(app)
    assert [words for words in named if not exists(words, command)] == []


def exists(words: list[str], command: Any) -> bool:
    """Whether words after `guardline` lead to a command. Words after a command without further ones are arguments."""
    further = getattr(command, "commands", None)
    if not further or not words:
        return True
    return words[0] == "devstack" or (words[0] in further and exists(words[1:], further[words[0]]))
