"""The settings in force as rows for a person, each with where it came from. It must never show a secret."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from workers.settings import Settings, origins
from workers.settings.kafka_properties import HARMLESS
from workers.shown import MASK, without_passwords

WORKED_OUT = {
    "batch.in_flight": "4, or more if the engine asks for it",
    "guard.openai.model": "the only one that is served",
    "guard.openai.timeout_s": "30; with several servers 10",
    "guard.threads": "all cores",
    "guard.window_tokens": "as many as fit into a prompt",
    "streams.threads": "all cores",
    "worker.id": "random",
}
"""What stands for the value of a setting that was not set, where the worker finds the value out at the start."""

VLLM_TEXTS = frozenset(
    {
        "attention_backend",
        "block_size",
        "dtype",
        "kv_cache_dtype",
        "load_format",
        "quantization",
        "tokenizer_mode",
    }
)
"""vLLM's arguments whose texts are shown. Of all others only numbers and switches are: some are keys of stores."""


def rows(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Return (name, value, origin) of each setting, also of those in a section within a section."""
    found = origins()
    for name, value in _leaves(settings):
        origin = found.get(name, "default")
        yield name, _shown(settings, name, value, is_set=origin != "default"), origin


def _leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section:
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(settings: Settings, name: str, value: Any, *, is_set: bool) -> str:
    if name == "guard.openai.timeout_s" and value is None:
        return f"{settings.guard.openai.request_timeout_s:g}, by the number of servers"
    if not is_set and name in WORKED_OUT:
        return f"worked out at the start: {WORKED_OUT[name]}"
    if value is None:
        return "not set"
    if isinstance(value, dict) and name != "kafka.property_files":
        value = _masked(value, _is_harmless_property if name == "kafka.properties" else _is_harmless_argument)
    return without_passwords(str(value))


def _masked(values: Mapping[str, Any], is_harmless: Callable[[str, Any], bool]) -> dict[str, Any]:
    return {
        name: _masked(value, is_harmless) if isinstance(value, dict) else value if is_harmless(name, value) else MASK
        for name, value in values.items()
    }


def _is_harmless_property(name: str, _: object) -> bool:
    return name in HARMLESS


def _is_harmless_argument(name: str, value: object) -> bool:
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and name in VLLM_TEXTS)
