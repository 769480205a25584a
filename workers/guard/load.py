"""Makes the guard according to the settings."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import structlog

from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.engine import Engine
from workers.engines.openai import OpenAIEngine
from workers.engines.transformers import TransformersEngine
from workers.engines.vllm import VllmEngine
from workers.errors import Misconfigured
from workers.guard.guard import Guard
from workers.guard.tokens import Tokens
from workers.settings import Guard as GuardSettings

log = structlog.get_logger(__name__)

NANO = "guard-nano"
NANO_JUDGES = "guard-nano judges: it is for trying things out, not for moderation; set guard.model"

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?:@[\w./-]+)?")
_COMMIT = re.compile("[0-9a-f]{40}")

_NEEDED = {
    "ctranslate2": ("model.bin", "tokenizer.json"),
    "openai": ("tokenizer.json",),
    "": ("config.json", "tokenizer.json"),
}
"""The files without which an engine cannot use a folder, by engine; `""` is every other engine."""

TOKENIZED = (
    "Good morning! How are you?",
    "Guten Morgen, 你好, مرحبا, 1234567890",
    " Safe Controversial Unsafe\n\n{}[]();",
)
"""Texts that a server must tokenize as the checkpoint does."""


def checkpoint_folder(model: str, *, engine: str = "ctranslate2") -> Path:
    """Find a checkpoint: converted for `ctranslate2`, in Hugging Face's format for every other engine.

    A name such as `Qwen/Qwen3Guard-Gen-0.6B@COMMIT` is looked for on the Hugging Face hub, and in its cache on this
    machine. Without a commit, a line of the log says which one was found: another start may find another one.

    Raises:
        Misconfigured: there is none.
    """
    folder = local_folder(model, engine=engine)
    if folder is not None:
        return folder
    name, _, revision = model.partition("@")
    return _downloaded(name, revision or None, engine)


def local_folder(model: str, *, engine: str) -> Path | None:
    """Return the folder of a checkpoint on this machine, or None if `model` is a name for the hub. Connects to nothing.

    Raises:
        Misconfigured: there is no such folder, or it has no checkpoint for this engine.
    """
    form = "ct2" if engine == "ctranslate2" else "hf"
    folder = Path(str(files("infra.nano") / "checkpoint" / form)) if model == NANO else Path(model).expanduser()
    if folder.is_dir():
        missing = [name for name in _NEEDED.get(engine, _NEEDED[""]) if not (folder / name).is_file()]
        if missing:
            raise Misconfigured(
                f"guard.model: {folder} has no checkpoint for the engine {engine} (missing: {', '.join(missing)})"
            )
        return folder
    is_hub_name = _HUB_NAME.fullmatch(model) is not None
    if is_hub_name and engine != "ctranslate2":
        return None
    convert = f"; to convert the hub's checkpoint: guardline model convert {model} FOLDER" if is_hub_name else ""
    raise Misconfigured(f"guard.model: no such folder: {folder} (or {NANO!r} for the bundled checkpoint){convert}")


def _downloaded(name: str, revision: str | None, engine: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    # No code: neither Python files nor pickled weights.
    wanted = ["*.json", "*.jinja", *([] if engine == "openai" else ["*.safetensors"])]
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError, HfHubHTTPError) as error:
        of = f" of revision {revision}" if revision else ""
        raise Misconfigured(
            f"guard.model: no folder {name}, and no such model{of} could be downloaded: {error}"
        ) from error
    if revision is None or not _COMMIT.fullmatch(revision):
        log.warning(
            "guard.model names no commit of the hub's model: a later start may download other weights",
            pin=f"guard.model: {name}@{folder.name}",
        )
    return folder


def load_engine(settings: GuardSettings, folder: Path) -> Engine:
    """Make the engine. It loads nothing before its `start`.

    Raises:
        Misconfigured: naming the setting of the engine.
    """
    if settings.vllm.get("trust_remote_code") and not settings.allow_remote_code:
        raise Misconfigured(
            "guard.vllm: trust_remote_code lets Python code of the checkpoint run in the worker, with all its rights; "
            "if you trust it, set guard.allow_remote_code: true as well"
        )
    if settings.engine == "vllm":
        return VllmEngine(folder, settings.vllm, context_tokens=settings.context_tokens)
    if settings.engine == "openai":
        tokens = Tokens(folder)
        servers = settings.openai
        return OpenAIEngine(
            servers.urls,
            model=servers.model,
            tokenized={text: tokens.fixed(text) for text in TOKENIZED},
            vocabulary=tokens.size,
            context_tokens=settings.context_tokens,
            api_key=servers.api_key.get_secret_value(),
            ca_file=servers.ca_file,
            cert_file=servers.cert_file,
            key_file=servers.key_file,
            timeout_s=servers.request_timeout_s,
        )
    if settings.engine == "transformers":
        return TransformersEngine(folder, threads=settings.threads, context_tokens=settings.context_tokens)
    return CTranslate2Engine(folder, threads=settings.threads, context_tokens=settings.context_tokens)


def load_guard(settings: GuardSettings) -> Guard:
    """Make the guard. It loads nothing before its `start`.

    Raises:
        Misconfigured: naming `guard.model`.
    """
    folder = checkpoint_folder(settings.model, engine=settings.engine)
    return make_guard(settings, load_engine(settings, folder), folder)


def make_guard(settings: GuardSettings, engine: Engine, folder: Path) -> Guard:
    """Make the guard on an existing engine."""
    return Guard(
        engine,
        folder,
        settings.model,
        mode=settings.mode,
        context_tokens=settings.context_tokens,
        max_windows=settings.max_windows,
        window_tokens=settings.window_tokens,
    )
