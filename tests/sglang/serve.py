"""A real SGLang server with guard-nano on this CPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.servers.serve import Command, serve_until_the_end
from tests.unit.engines.reference import CONTEXT_TOKENS
from workers.guard.load import checkpoint_folder

KEPT_BACK = 6
"""Tokens of its context that SGLang gives to no prompt."""


@cache
def served(model: Path | None = None) -> str:
    """Give the URL of a server that is ready, with guard-nano or another checkpoint."""
    stand_in = Path(__file__).with_name("stand_in")
    return serve_until_the_end(
        lambda port: _command(port, model), "/ping", SGLANG_USE_CPU_ENGINE="1", PYTHONPATH=str(stand_in)
    )


def _command(port: int, model: Path | None) -> Command:
    return [
        "-m", "sglang.launch_server",
        "--model-path", model or checkpoint_folder("guard-nano", engine="openai"), "--served-model-name", "guard",
        "--dtype", "float32", "--context-length", str(CONTEXT_TOKENS + KEPT_BACK), "--max-total-tokens", "16384",
        "--device", "cpu", "--attention-backend", "torch_native", "--grammar-backend", "none",
        "--disable-overlap-schedule", "--skip-server-warmup",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
