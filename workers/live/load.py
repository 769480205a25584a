"""Makes the guard of streams according to the settings."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import structlog

from workers.engines.stream import StreamEngine
from workers.errors import Misconfigured
from workers.live.guard import LiveGuard
from workers.settings import Streams

log = structlog.get_logger(__name__)

NANO = "nano-stream"
NANO_JUDGES = "nano-stream judges: it is for trying things out, not for moderation; set streams.model"


def load_live_guard(settings: Streams) -> LiveGuard:
    """Make the guard of streams. It loads no model before its `start`.

    Raises:
        Misconfigured: naming `streams.model`.
    """
    folder = stream_folder(settings)
    if settings.model == NANO:
        log.warning(NANO_JUDGES)
    return LiveGuard(
        load_stream_engine(settings, folder),
        folder,
        max_tokens=settings.max_tokens,
        anchor_tokens=settings.anchor_tokens,
        append_within_s=settings.append_within_s,
    )


def stream_folder(settings: Streams) -> Path:
    """Find the checkpoint's folder. Connects to nothing.

    Raises:
        Misconfigured: there is none.
    """
    if settings.model == NANO:
        form = "onnx" if settings.engine == "onnxruntime" else "hf"
        return Path(str(files("infra.nano_stream") / "checkpoint" / form))
    folder = Path(settings.model).expanduser()
    if not folder.is_dir():
        raise Misconfigured(
            f"streams.model: no such folder: {folder} (or {NANO!r} for the bundled checkpoint). Download a checkpoint "
            "of the kind of Qwen3Guard-Stream, and for the engine onnxruntime convert it: "
            "guardline model convert CHECKPOINT FOLDER"
        )
    return folder


def load_stream_engine(settings: Streams, folder: Path) -> StreamEngine:
    """Make the engine. It loads nothing before its `start`.

    Raises:
        Misconfigured: naming `streams.vllm`.
    """
    sessions, tokens, threads = settings.max_sessions, settings.max_tokens, settings.threads
    if settings.engine == "transformers":
        from workers.engines.stream_transformers import TransformersStreamEngine

        return TransformersStreamEngine(folder, max_sessions=sessions, max_tokens=tokens, threads=threads)
    if settings.engine == "vllm":
        from workers.engines.stream_vllm import VllmStreamEngine

        return VllmStreamEngine(folder, settings.vllm, max_sessions=sessions, max_tokens=tokens)
    from workers.engines.stream_onnx import OnnxStreamEngine

    return OnnxStreamEngine(folder, max_sessions=sessions, max_tokens=tokens, threads=threads)
