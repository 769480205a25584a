"""The audit of the dependencies passes only if every package was looked up, and known vulnerabilities are found."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from infra.audit import CLEAN, NOT_RUN, VULNERABLE, audit

# What pip-audit 2.10.1 answered, where its service is not reachable or does not know the package.
UNKNOWN = (
    1,
    "",
    "ERROR:pip_audit._cli:jinja2: Dependency not found on PyPI and could not be audited: jinja2 (2.10)\n",
)
FALSELY_GREEN = {
    "dependencies": [
        {"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could not be audited: jinja2 (2.10)"}
    ],
    "fixes": [],
}

FLAW = {"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": ["CVE-2019-10906"], "description": "..."}


def answer(name: str, version: str, *vulns: object) -> tuple[int, str, str]:
    document = {"dependencies": [{"name": name, "version": version, "vulns": list(vulns)}], "fixes": []}
    return (1 if vulns else 0, json.dumps(document), "")


CONTROL = answer("jinja2", "2.10", FLAW)


@pytest.fixture
def answering(tmp_path: Path) -> Callable[..., Sequence[str | Path]]:
    """Give a program that answers as pip-audit did: first for the control, then for the pinned packages."""

    def program(*answers: tuple[int, str, str]) -> Sequence[str | Path]:
        file = tmp_path / "pip_audit.py"
        file.write_text(
            "import sys\n"
            "assert '--strict' in sys.argv\n"
            f"control, pinned = {answers!r}\n"
            "code, out, err = control if sys.argv[-1].endswith('control.txt') else pinned\n"
            "sys.stdout.write(out), sys.stderr.write(err), sys.exit(code)\n"
        )
        return [sys.executable, file]

    return program


PINNED = [Path("requirements/run.txt")]
CLEAN_ANSWER = answer("aiohttp", "3.12")


@pytest.mark.parametrize(
    ("control", "pinned", "code", "said"),
    [
        (CONTROL, CLEAN_ANSWER, CLEAN, "1 packages were looked up: no known vulnerability"),
        (CONTROL, answer("aiohttp", "3.0", FLAW), VULNERABLE, "aiohttp 3.0: PYSEC-2019-217, fixed in 2.10.1"),
        (UNKNOWN, CLEAN_ANSWER, NOT_RUN, "NOT RUN, and says nothing about the packages: .*could not be audited"),
        (CONTROL, UNKNOWN, NOT_RUN, "NOT RUN.*could not be audited"),
        ((0, json.dumps(FALSELY_GREEN), ""), CLEAN_ANSWER, NOT_RUN, "NOT RUN.*could not be audited"),
        (CONTROL, (0, json.dumps(FALSELY_GREEN), ""), NOT_RUN, "NOT RUN"),
        (answer("jinja2", "2.10"), CLEAN_ANSWER, NOT_RUN, "knows no vulnerability of jinja2==2.10, which has some"),
        (CONTROL, (0, '{"dependencies": [], "fixes": []}', ""), NOT_RUN, "names no package"),
        (CONTROL, (2, "", ""), NOT_RUN, "pip-audit ended with code 2"),
        (CONTROL, (0, "No known vulnerabilities found", ""), NOT_RUN, "pip-audit ended with code 0"),
    ],
)
def test_only_packages_that_were_looked_up_are_clean(
    control: tuple[int, str, str],
    pinned: tuple[int, str, str],
    code: int,
    said: str,
    answering: Callable[..., Sequence[str | Path]],
) -> None:
    found, lines = audit(PINNED, answering(control, pinned))
    assert found == code
    (line,) = lines
    assert re.search(said, line)
