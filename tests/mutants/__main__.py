"""Mutation testing of the pure core: `make mutants`, or `make mutants FILES="workers/core/ledger.py"`.

mutmut changes one place of a function at a time and runs the tests that reach it; a mutant that no test notices
survives. Everything happens in a copy in a temporary folder: whatever ends this program, the source is as it was.

Prints each survivor as a diff, or in a line when docs/testing.md explains it, and as its last line
`{"killed", "survived", "ratio"}`; progress goes to standard error. Ends with 1 when the ratio is below `LEAST_RATIO`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MUTMUT = Path(sys.executable).with_name("mutmut")
ROOT = Path(__file__).parents[2]
EXPLAINED = ROOT / "docs" / "testing.md"
COPIED = ("schemas", "workers", "infra", "tests", "README.md", "LICENSE")
LEAST_RATIO = 0.9
NICE = 15


@dataclass(frozen=True)
class Target:
    """A file whose functions are mutated, and which of the tests that mirror it are run."""

    file: str
    functions: tuple[str, ...] = ()
    """Those that are mutated: all of them where none is named."""
    also_tested_by: tuple[str, ...] = ()
    """Test files beside those that are named after it."""
    tests: str = ""
    """An expression of `pytest -k`, to leave out what takes long and notices nothing more."""


TARGETS = {
    target.file: target
    for target in (
        Target("workers/core/ledger.py"),
        Target("workers/core/batcher.py"),
        Target("workers/core/decode.py", also_tested_by=("tests/unit/kafka/test_cloudevents.py",)),
        Target("workers/core/fields.py", also_tested_by=("tests/unit/core/test_decode.py",)),
        Target("workers/core/json_text.py", also_tested_by=("tests/unit/core/test_decode.py",)),
        Target("workers/core/times.py"),
        Target("workers/core/decide.py"),
        Target("workers/core/dead_letters.py"),
        Target("workers/core/records.py"),
        Target("workers/core/keys.py"),
        Target("workers/core/single_flight.py"),
        Target("workers/guard/windows.py"),
        Target("workers/guard/disguises.py"),
        Target("workers/guard/lookalikes.py"),
        Target("workers/guard/views.py"),
        Target(
            "workers/guard/prompt.py",
            also_tested_by=("tests/unit/guard/test_injection.py",),
            tests="not qwen and not 20000 and not for_responses_and_replies and not other_shapes",
        ),
        Target("workers/policy/policy.py"),
    )
}

CONFIGURATION = """
[tool.mutmut]
source_paths = ["schemas", "workers", "infra"]
only_mutate = [{file}]
also_copy = ["README.md", "LICENSE"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = [
    "-p", "no:cacheprovider", "-p", "tests.mutants.reached", "--hypothesis-profile=mutants", "-k", {expression}
]
timeout_constant = 5.0
timeout_multiplier = 5.0
"""
"""A mutant that loops ends after five times what its tests take, and 25 s: other work may hold the machine up."""


def main(files: Sequence[str]) -> int:
    """Mutate the files (all targets where none is named); return the exit status."""
    unknown = [file for file in files if file not in TARGETS]
    if unknown:
        print(f"not among the mutated files: {', '.join(unknown)} (they are: {', '.join(TARGETS)})", file=sys.stderr)
        return 2
    os.nice(NICE)
    killed = survived = 0
    explained = EXPLAINED.read_text(encoding="utf-8")
    for file in files or TARGETS:
        began = time.monotonic()
        results, survivors = mutate(TARGETS[file])
        survived += len(survivors)
        killed += results - len(survivors)
        print(
            f"{file}: {results} mutants, {len(survivors)} survived, {time.monotonic() - began:.0f} s", file=sys.stderr
        )
        for survivor in survivors:
            change = change_of(survivor)
            print(f"explained: {change}" if change in explained else survivor)
    ratio = round(killed / (killed + survived), 4)
    print(json.dumps({"killed": killed, "survived": survived, "ratio": ratio}))
    return 0 if ratio >= LEAST_RATIO else 1


def mutate(target: Target) -> tuple[int, list[str]]:
    """Run all mutants of a target; give their number, and a diff for each that no test noticed."""
    with tempfile.TemporaryDirectory(prefix="guardline-mutants-") as name:
        folder = Path(name)
        for part in COPIED:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / part)
        configuration = CONFIGURATION.format(
            file=json.dumps(target.file), tests=json.dumps(tests_of(target)), expression=json.dumps(target.tests)
        )
        (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + configuration)
        module = target.file.removesuffix(".py").replace("/", ".")
        functions = [f"{module}.{function}__mutmut_*" for function in target.functions]
        run(folder, *functions)
        outcome: dict[str, str] = {}
        for line in mutmut(folder, "results", "--all", "true").splitlines():
            mutant, _, status = line.strip().rpartition(": ")
            if status != "not checked":  # Of a function that was not asked for.
                outcome[mutant] = status
        # An endless loop is noticed by the time it takes.
        left = [mutant for mutant, status in outcome.items() if status not in ("killed", "timeout")]
        return len(outcome), [mutmut(folder, "show", mutant) for mutant in left]


def change_of(diff: str) -> str:
    """Write a survivor as docs/testing.md does: what the line was, and what it became."""
    lines = [line for line in diff.splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == sign) for sign in "-+")
    return f"`{before}` → `{after}`"


def run(folder: Path, *functions: str) -> None:
    """Run mutmut; a terminal sees it count, a log only what went wrong."""
    quiet = None if sys.stderr.isatty() else subprocess.PIPE
    ended = subprocess.run(
        [MUTMUT, "run", *functions], cwd=folder, stdout=quiet or sys.stderr, stderr=quiet, text=True, check=False
    )
    if ended.returncode:
        sys.exit(f"{ended.stdout or ''}{ended.stderr or ''}mutmut ended with {ended.returncode}")


def tests_of(target: Target) -> list[str]:
    """Give the test files that mirror a source file, and those that are named beside them."""
    _, room, module = Path(target.file).parts
    named = sorted((ROOT / "tests" / "unit" / room).glob(f"test_{module.removesuffix('.py')}*.py"))
    return [*(str(path.relative_to(ROOT)) for path in named), *target.also_tested_by]


def mutmut(folder: Path, *arguments: str) -> str:
    """Run a command of mutmut on what it found."""
    return subprocess.run([MUTMUT, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="the source files, all targets where none is named")
    sys.exit(main(parser.parse_args().files))
