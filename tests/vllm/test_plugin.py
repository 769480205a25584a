"""That vLLM's own processes run the plugin which ends them with the worker is seen, and not only assumed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from workers.guard.load import checkpoint_folder

pytestmark = [pytest.mark.needs("vllm"), pytest.mark.timeout(900)]

START = """
import asyncio
import os
import sys

def main() -> None:
    # Not at the top: vLLM's processes run this file again, and would end with the wrong package instead of without it.
    from pathlib import Path
    from workers.engines.vllm import VllmEngine
    from workers.errors import Misconfigured

    engine = VllmEngine(Path(sys.argv[1]), {"dtype": "float32", "enforce_eager": True}, context_tokens=512)
    sys.path.insert(0, os.getcwd())

    async def run() -> None:
        try:
            await engine.start()
            print("serves", await engine.score([[5, 6, 7]], [1]))
        except Misconfigured as error:
            print("refused:", error)
        await engine.close()

    asyncio.run(run())

if __name__ == "__main__":
    main()
"""


def started_in(folder: Path) -> str:
    """Start the engine in a working directory that Python looks into first; give what comes of it."""
    file = folder.parent / "start_it.py"
    file.write_text(START)
    model = str(checkpoint_folder("guard-nano", engine="vllm"))
    made = subprocess.run(
        [sys.executable, str(file), model], cwd=folder, env=os.environ, capture_output=True, text=True, timeout=800
    )
    said = [line for line in made.stdout.splitlines() if line.startswith(("serves", "refused:"))]
    assert said, made.stdout + made.stderr
    return said[0]


@pytest.fixture
def working_directory(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def test_a_folder_that_shadows_the_package_stops_the_engine(working_directory: Path) -> None:
    (working_directory / "workers").mkdir()
    (working_directory / "workers" / "__init__.py").touch()
    said = started_in(working_directory)
    assert said.startswith("refused: guard.engine: vLLM's processes ")
    assert "do not run guardline's plugin" in said
    assert str(working_directory / "workers") in said, "the sentence names the cause"
    # A process that has ended and was not waited for has no command line.
    commands = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(working_directory.parent) in command], "nothing is left behind"


def test_without_such_a_folder_the_engine_starts(working_directory: Path) -> None:
    assert started_in(working_directory).startswith("serves")
