"""Looks the pinned packages up among the known vulnerabilities, and never passes when nothing was looked up.

`pip-audit` alone says "No known vulnerabilities found" of packages that its service does not know, for example behind a
mirror. So it runs with `--strict`, and first it has to find the vulnerabilities of an old package that has some.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONTROL = (
    "jinja2==2.10 --hash=sha256:74c935a1b8bb9a3947c50a54766a969d4846290e1e788ea44c1392163723c3bd\n"  # CVE-2019-10906
)
"""A package whose vulnerabilities every advisory database has. It is looked up, and never installed."""

CLEAN, VULNERABLE, NOT_RUN = 0, 1, 2


class NotRunError(Exception):
    """Nothing was found out. The sentence says why."""


def look_up(file: Path, pip_audit: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return the packages of a requirements file, each with its list `vulns`.

    Raises:
        NotRunError: a package was not looked up.
    """
    flags = ("--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")
    run = subprocess.run([*pip_audit, *flags, "--requirement", file], capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
        skipped = [one["skip_reason"] for one in found if "skip_reason" in one]
    except (ValueError, KeyError, TypeError):
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        raise NotRunError(
            lines[-1].removeprefix("ERROR:pip_audit._cli:") if lines else f"pip-audit ended with code {run.returncode}"
        ) from None
    if skipped:
        raise NotRunError(skipped[0])
    if not found:
        raise NotRunError(f"{file} names no package")
    return found


def audit(files: Sequence[Path], pip_audit: Sequence[str | Path]) -> tuple[int, list[str]]:
    """Return the exit code and what to print: 0 clean, 1 a vulnerability, 2 not run."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            control = Path(folder) / "control.txt"
            control.write_text(CONTROL)
            if not any(one["vulns"] for one in look_up(control, pip_audit)):
                raise NotRunError(f"the service knows no vulnerability of {CONTROL.split()[0]}, which has some")
        found = {(one["name"], one["version"]): one["vulns"] for file in files for one in look_up(file, pip_audit)}
    except NotRunError as reason:
        return NOT_RUN, [f"the audit was NOT RUN, and says nothing about the packages: {reason}"]
    lines = [
        f"{name} {version}: {vuln['id']}, fixed in {', '.join(vuln['fix_versions']) or 'no version'}"
        for (name, version), vulns in sorted(found.items())
        for vuln in vulns
    ]
    if lines:
        return VULNERABLE, lines
    return CLEAN, [f"{len(found)} packages were looked up: no known vulnerability"]


def main() -> None:
    """Audit the requirements files that are named."""
    code, lines = audit([Path(name) for name in sys.argv[1:]], [Path(sys.executable).with_name("pip-audit")])
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    sys.exit(code)


if __name__ == "__main__":
    main()
