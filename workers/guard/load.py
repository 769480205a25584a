"""Makes the guard that the settings ask for."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from workers.engines.ctranslate2 import CTranslate2Engine
from workers.errors import Misconfigured
from workers.guard.guard import Guard
from workers.settings import Guard as GuardSettings

ENGINES = ("ctranslate2",)
NANO = "guard-nano"


def checkpoint_folder(model: str) -> Path:
    """Find a checkpoint.

    Raises:
        Misconfigured: there is no such folder.
    """
    folder = Path(str(files("infra.nano") / "checkpoint" / "ct2")) if model == NANO else Path(model).expanduser()
    if not folder.is_dir():
        raise Misconfigured(
            f"guard.model: no such folder: {folder} (or {NANO!r} for the checkpoint that comes with guardline)"
        )
    return folder


def load_guard(settings: GuardSettings) -> Guard:
    """Make the guard; nothing is loaded before its `start`.

    Raises:
        Misconfigured: naming `guard.engine` or `guard.model`.
    """
    if settings.engine not in ENGINES:
        raise Misconfigured(f"guard.engine: unknown engine {settings.engine!r} (one of: {', '.join(ENGINES)})")
    folder = checkpoint_folder(settings.model)
    engine = CTranslate2Engine(folder, threads=settings.threads, context_tokens=settings.context_tokens)
    return Guard(
        engine, folder, settings.model, context_tokens=settings.context_tokens, max_windows=settings.max_windows
    )
