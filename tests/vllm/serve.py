"""A real vLLM server with guard-nano on this CPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.servers.serve import Command, serve_until_the_end
from tests.unit.engines.reference import CONTEXT_TOKENS
from workers.guard.load import checkpoint_folder

MODEL = "guard"


@cache
def served(model: Path | None = None) -> str:
    """Give the URL of a server that is ready, with guard-nano or another checkpoint."""
    return serve_until_the_end(lambda port: _command(port, model), "/health")


def _command(port: int, model: Path | None) -> Command:
    return [
        # Not `vllm serve`: that command does not start from vLLM's build for a CPU, whose package has another name.
        "-m", "vllm.entrypoints.openai.api_server",
        "--model", model or checkpoint_folder("guard-nano", engine="openai"), "--served-model-name", MODEL,
        "--dtype", "float32", "--enforce-eager", "--max-model-len", str(CONTEXT_TOKENS),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
