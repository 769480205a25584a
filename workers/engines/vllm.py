"""vLLM in this process: production on a GPU. Its engine core is a child process that must never outlive this one."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from workers.engines.engine import CLOSED, Refused, answer_valid, checked_row
from workers.engines.vllm_child import WORKER_VARIABLE
from workers.errors import Fatal, GuardlineError, Misconfigured, Unavailable

MAX_SEQUENCES = 64
"""Prompts that vLLM runs at a time. More of them add latency, and no throughput."""

BLOCK_TOKENS_ON_A_CPU = 32
"""With vLLM's 128 a shorter prompt finds nothing of itself in the prefix cache when its categories are asked for."""

ON_ALL_CORES = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "OMP_WAIT_POLICY": "PASSIVE"}
"""On a CPU vLLM leaves one core to its scheduler's process, which needs a small part of it. Threads that wait for the
others must not take that part: hence passive. On two cores, half as much again of guard-nano's messages, and a prefill
of the 0.6B model in 0.6 of the time."""

FEW_CORES = 4
"""With more, the one that is left out counts for little, and what the others do to the scheduler was not measured."""

WATCH_S = 0.25

WHOLE = ("stop", "length")
"""How an answer ends that is one. A request that vLLM gave up ends as well, without log-probabilities."""

_OWNED = {
    "model": "set guard.model",
    "revision": "name the folder of that revision in guard.model",
    "tokenizer": "guardline sends token ids",
    "skip_tokenizer_init": "guardline sends token ids",
    "logprobs_mode": "guardline needs log-probabilities as the model gave them",
}

PLUGIN = "guardline"
"""The plugin of `vllm_child`; vLLM finds it among the entry points of installed packages."""

DIED = (
    "the vLLM engine process died; what it said last is in the log above. Nothing was lost: what was at the engine is "
    "judged again after a restart"
)


class VllmEngine:
    """One checkpoint on vLLM's AsyncLLM, with prefix caching.

    `arguments` are vLLM's own engine arguments (`tensor_parallel_size`, `dtype`, `quantization`,
    `gpu_memory_utilization`, ...), and win over what is set here.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any], *, context_tokens: int = 2048) -> None:
        for name in arguments:
            if name in _OWNED:
                raise Misconfigured(f"guard.vllm: {name!r} cannot be set: {_OWNED[name]}")
        longest = arguments.get("max_model_len", context_tokens)
        if not isinstance(longest, int) or longest < context_tokens:
            raise Misconfigured(
                f"guard.vllm: max_model_len is {longest!r}, and has to be a number of at least guard.context_tokens "
                f"({context_tokens}): longer prompts would fail"
            )
        self._arguments = {
            "max_model_len": context_tokens,
            "max_num_seqs": MAX_SEQUENCES,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            **arguments,
            "model": str(folder),
            "skip_tokenizer_init": True,
        }
        self.identity = f"vLLM {json.dumps(dict(arguments), sort_keys=True, default=str)}"
        """All that was set: which arguments change the numbers, and which only the pace, is vLLM's affair."""
        self._context_tokens = context_tokens
        self._llm: Any = None
        self._numbers = itertools.count()
        self.answered = 0
        """See `Engine.answered`."""

    async def start(self) -> None:
        """Start the engine process and load the model. Takes a minute or more.

        Raises:
            Misconfigured: the extra is not installed, an argument is unknown, or vLLM refuses the model.
        """
        if self._llm is None:
            self._llm = await asyncio.to_thread(self._load)

    def _load(self) -> Any:
        # A fork would take this process's threads and connections along.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        # vLLM reports its use to its makers unless told not to.
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ[WORKER_VARIABLE] = str(os.getpid())
        _allow_plugin()
        try:
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise Misconfigured(
                f"guard.engine: 'vllm' needs the extra: pip install '.[vllm]' in the clone ({error})"
            ) from error
        known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
        if unknown := sorted(set(self._arguments) - known):
            raise Misconfigured(f"guard.vllm: this version of vLLM has no engine argument {', '.join(unknown)}")
        if current_platform.is_cpu():
            self._arguments.setdefault("block_size", BLOCK_TOKENS_ON_A_CPU)
            if len(os.sched_getaffinity(0)) <= FEW_CORES:
                for name, value in ON_ALL_CORES.items():
                    os.environ.setdefault(name, value)
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments))
        except Exception as error:  # vLLM raises every kind, and each means that it cannot run this.
            raise Misconfigured(f"guard.model: vLLM cannot run {self._arguments['model']}: {error}") from error

    async def close(self) -> None:
        """End the engine process."""
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)

    async def watch(self) -> None:
        """See `Engine.watch`."""
        while (llm := self._llm) is not None:
            if llm.errored:
                raise Fatal(DIED)
            await asyncio.sleep(WATCH_S)

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float] | Refused]:
        """See `Engine.score`."""
        outputs = await self._generate(prompts, max_tokens=1, logprob_token_ids=list(candidates))
        return [output if isinstance(output, Refused) else _row(output.logprobs[0], candidates) for output in outputs]

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> list[list[int] | Refused]:
        """See `Engine.complete`."""
        outputs = await self._generate(prompts, max_tokens=max_tokens)
        # vLLM gives the end-of-text token that stopped it.
        return [
            output
            if isinstance(output, Refused)
            else list(output.token_ids)[: -1 if output.finish_reason == "stop" else None]
            for output in outputs
        ]

    async def _generate(self, prompts: Sequence[Sequence[int]], **options: Any) -> list[Any]:
        """Give vLLM's output for each prompt, or its refusal."""
        llm = self._llm
        if llm is None:
            raise Fatal("the engine is not running: it was not started, or is closed")
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        parameters = SamplingParams(
            temperature=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, skip_clone=True, **options
        )
        try:
            return await answer_valid(
                prompts,
                lambda valid: self._together(llm, valid, parameters),
                vocabulary=llm.model_config.get_vocab_size(),
                context_tokens=self._context_tokens,
                asked_tokens=options["max_tokens"],
            )
        except ExceptionGroup as failed:
            if self._llm is not llm:
                raise Fatal(CLOSED) from None
            raise failed.exceptions[0] from None

    async def _together(self, llm: Any, prompts: Sequence[Sequence[int]], parameters: Any) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            # When its process is killed, vLLM may leave who waits for an answer waiting.
            watching = group.create_task(self._until_gone())
            answers = await asyncio.gather(
                *(group.create_task(self._run(llm, prompt, parameters)) for prompt in prompts)
            )
            watching.cancel()
        return answers

    async def _until_gone(self) -> None:
        await self.watch()
        raise Fatal(CLOSED)

    async def _run(self, llm: Any, prompt: Sequence[int], parameters: Any) -> Any:
        """Give the one output of a prompt, or its refusal. A cancelled call is aborted in the engine as well."""
        # With its type, vLLM takes the ids as they are. Without, each prompt goes through a thread that might have to
        # tokenise it, and gets the interpreter's lock back from a busy event loop after up to 5 ms.
        request = llm.generate(
            {"type": "token", "prompt_token_ids": list(prompt)}, parameters, f"g{next(self._numbers)}"
        )
        try:
            async for result in request:
                if result.finished:
                    output = result.outputs[0]
                    if output.finish_reason not in WHOLE:
                        raise Unavailable(f"vLLM ended a request without an answer: {output.finish_reason}")
                    self.answered += 1
                    return output
        except GuardlineError:
            raise
        except Exception as error:  # vLLM raises every kind.
            meant = _meant(error)
            if isinstance(meant, Refused):
                return meant
            raise meant from error
        raise Unavailable("vLLM ended a request without an answer")


def _allow_plugin() -> None:
    """See that vLLM's processes load the plugin that ends them with the worker.

    Raises:
        Misconfigured: guardline is not installed.
    """
    if not any(point.name == PLUGIN for point in entry_points(group="vllm.general_plugins")):
        raise Misconfigured(
            "guard.engine: 'vllm' needs guardline installed, not only on the Python path: nothing would end vLLM's "
            "processes after a crash of the worker"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    # An empty list allows none; no list allows all.
    if allowed is not None and PLUGIN not in allowed.split(","):
        os.environ["VLLM_PLUGINS"] = f"{allowed},{PLUGIN}"


def _row(entries: Any, candidates: Sequence[int]) -> list[float] | Refused:
    try:
        row = [float(entries[candidate].logprob) for candidate in candidates]
    except KeyError as error:
        raise Unavailable(f"vLLM gave no log-probability of candidate {error}") from error
    return checked_row(row)


def _meant(error: Exception) -> GuardlineError | Refused:
    """Say what an error of vLLM means: it refuses the prompt, is gone, or failed in passing."""
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        return Fatal(DIED)
    if isinstance(error, (VLLMClientError, ValueError)):
        return Refused("prompt_refused", f"vLLM refuses a prompt: {error}")
    return Unavailable(f"vLLM failed: {error!r}")
