"""Starts vLLM in this process, with the plugins that its own processes need."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from workers.engines.vllm_child import WORKER_VARIABLE
from workers.engines.vllm_platform import Platform, platform_of, use_all_cores
from workers.engines.vllm_reports import hint
from workers.errors import Misconfigured, to_install

PLUGIN = "guardline"
"""The plugin that ends vLLM's processes with the worker; vLLM finds it among the entry points of installed packages."""


def load_vllm(
    arguments: dict[str, Any],
    complete: Callable[[dict[str, Any], Platform], dict[str, Any]],
    *,
    section: str,
    plugin: str = PLUGIN,
) -> Any:
    """Start vLLM's `AsyncLLM`. Blocks for a minute or more.

    `complete` adds the arguments that depend on the platform. `section` of the settings is named in errors, and vLLM
    also loads `plugin`.

    Raises:
        Misconfigured: the extra is not installed, an argument is unknown, or vLLM refuses the model.
    """
    # A fork would inherit this process's threads and connections.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    # By default vLLM sends usage statistics.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ[WORKER_VARIABLE] = str(os.getpid())
    for name in dict.fromkeys((PLUGIN, plugin)):
        _allow_plugin(name, section)
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise Misconfigured(f"{section}.engine: 'vllm' needs the extra: {to_install('vllm')} ({error})") from error
    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    if unknown := sorted(set(arguments) - known):
        raise Misconfigured(f"{section}.vllm: this version of vLLM has no engine argument {', '.join(unknown)}")
    if current_platform.is_cpu():
        use_all_cores()
    try:
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**complete(arguments, platform_of(current_platform))))
    except Exception as error:  # vLLM raises errors of any type, and each means that it cannot run the model.
        raise Misconfigured(f"{section}.model: vLLM cannot run {arguments['model']}: {error}{hint()}") from error


def _allow_plugin(plugin: str = PLUGIN, section: str = "guard") -> None:
    """Make vLLM's processes load one of our plugins.

    Raises:
        Misconfigured: guardline is not installed.
    """
    if not any(point.name == plugin for point in entry_points(group="vllm.general_plugins")):
        raise Misconfigured(
            f"{section}.engine: 'vllm' needs guardline installed, not only on the Python path: nothing would end "
            f"vLLM's processes after a crash of the worker (vLLM's plugin {plugin!r} is missing)"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    # An empty list allows no plugin; without the variable all are allowed.
    if allowed is not None and plugin not in allowed.split(","):
        os.environ["VLLM_PLUGINS"] = f"{allowed},{plugin}"
