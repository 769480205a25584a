"""vLLM in this process: production on a GPU. Its engine core is a child process that must never outlive this one."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.engines.engine import CLOSED, Refused, answer_valid, checked_row
from workers.engines.vllm_load import load_vllm
from workers.engines.vllm_platform import chosen
from workers.engines.vllm_reports import Reports
from workers.engines.vllm_requests import Answer, Requests
from workers.errors import Fatal, GuardlineError, Misconfigured, Unavailable

WATCH_S = 0.25

MAX_TEMPLATES = 64
"""Kinds of requests whose parameters are cached; a guard has three kinds."""

WARM_CANDIDATES = (1, 2, 3, 10, 16)
"""The numbers of candidates in the warm-up calls: a GPU's kernels are compiled for each power of two."""

WARM_PROMPTS = (1, 2, 3, 16)
"""The numbers of prompts in the warm-up calls, besides a full step: kernels for one, for a multiple of 16 and for any
other number are compiled separately."""

_OWNED = {
    "model": "set guard.model",
    "revision": "name it in guard.model: NAME@REVISION, or its folder",
    "tokenizer": "guardline sends token ids",
    "skip_tokenizer_init": "guardline sends token ids",
    "logprobs_mode": "guardline needs the model's unchanged log-probabilities",
}

DIED = (
    "the vLLM engine process crashed; its last output is in the log above. Nothing was lost: the events at the engine "
    "are judged again after a restart"
)


class VllmEngine:
    """Runs one checkpoint on vLLM's AsyncLLM, with prefix caching.

    `arguments` are vLLM's engine arguments (`tensor_parallel_size`, `dtype`, `quantization`, `gpu_memory_utilization`,
    ...). They override the defaults of this class.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any], *, context_tokens: int = 2048) -> None:
        for name in arguments:
            if name in _OWNED:
                raise Misconfigured(f"guard.vllm: {name!r} cannot be set: {_OWNED[name]}")
        longest = arguments.get("max_model_len", context_tokens)
        if not isinstance(longest, int) or longest < context_tokens:
            raise Misconfigured(
                f"guard.vllm: max_model_len is {longest!r}, but must be a number of at least guard.context_tokens "
                f"({context_tokens}): longer prompts would fail"
            )
        self._arguments = {
            "max_model_len": context_tokens,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            **arguments,
            "model": str(folder),
            "skip_tokenizer_init": True,
        }
        self.identity = f"vLLM {json.dumps(dict(arguments), sort_keys=True, default=str)}"
        """All arguments: only vLLM knows which of them change the numbers and which only the speed."""
        self._context_tokens = context_tokens
        self._llm: Any = None
        self._requests: Requests | None = None
        self._following: asyncio.Task[None] | None = None
        self._templates: dict[tuple[int, tuple[int, ...] | None], Any] = {}

    @property
    def answered(self) -> int:
        """See `Engine.answered`."""
        return self._requests.answered if self._requests is not None else 0

    @property
    def prompts_at_a_time(self) -> int | None:
        """See `Engine.prompts_at_a_time`: the prompts of one step, and as many that wait for the next step."""
        return self._llm and 2 * int(self._llm.vllm_config.scheduler_config.max_num_seqs)

    async def start(self, shared_tokens: int = 0) -> None:
        """Start the engine process, load the model and compile its kernels. Takes a minute or more.

        Raises:
            Misconfigured: the extra is not installed, an argument is unknown, or vLLM refuses the model.
        """
        if self._llm is not None:
            return
        with Reports() as reports:
            self._llm = llm = await asyncio.to_thread(self._load, shared_tokens)
            self._requests = Requests(llm.engine_core)
            self._following = asyncio.create_task(self._follow(llm, self._requests))
            try:
                reports.check()
                await self._warm_up()
            except BaseException:
                await self.close()
                raise

    async def _warm_up(self) -> None:
        """Run every kernel once: a GPU compiles it at the first use, which takes seconds, and no event should wait."""
        most = int(self._llm.vllm_config.scheduler_config.max_num_seqs)
        for count in WARM_CANDIDATES:
            for prompts in (*WARM_PROMPTS, most):
                await self.score([[0, 1]] * prompts, range(count))

    async def _follow(self, llm: Any, requests: Requests) -> None:
        """Hand out answers until the engine ends, then fail the waiting calls.

        vLLM itself may let calls wait for ever when its engine process is killed.
        """
        reading = asyncio.create_task(requests.read())
        try:
            while not (reading.done() or llm.errored):
                await asyncio.wait([reading], timeout=WATCH_S)
        finally:
            reading.cancel()
        if reading.done() and not llm.errored:
            requests.fail(Fatal(f"cannot read vLLM's answers: {reading.exception()!r}"))
        else:
            requests.fail(Fatal(DIED))

    def _load(self, shared_tokens: int) -> Any:
        return load_vllm(
            self._arguments, lambda given, platform: chosen(given, platform, shared_tokens), section="guard"
        )

    async def close(self) -> None:
        """End the engine process."""
        llm, self._llm = self._llm, None
        requests, self._requests = self._requests, None
        if requests is not None:
            requests.fail(Fatal(CLOSED))
        if self._following is not None:
            self._following.cancel()
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)

    async def watch(self) -> None:
        """See `Engine.watch`."""
        while (requests := self._requests) is not None:
            if requests.failure is not None:
                raise requests.failure
            await asyncio.sleep(WATCH_S)

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float] | Refused]:
        """See `Engine.score`."""
        answers = await self._ask(prompts, 1, tuple(candidates))
        return [
            answer if isinstance(answer, Refused) else _row(answer.last.new_logprobs, candidates) for answer in answers
        ]

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> list[list[int] | Refused]:
        """See `Engine.complete`."""
        answers = await self._ask(prompts, max_tokens, None)
        # vLLM includes the end-of-text token that ended the answer.
        return [
            answer if isinstance(answer, Refused) else answer.token_ids[: -1 if answer.ended_by == "stop" else None]
            for answer in answers
        ]

    async def _ask(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, candidates: tuple[int, ...] | None
    ) -> list[Answer | Refused]:
        llm, requests = self._llm, self._requests
        if llm is None or requests is None:
            raise Fatal("the engine is not running: it was not started, or is closed")
        try:
            template = self._templates.get((max_tokens, candidates))
            if template is None:
                template = await self._template(llm, max_tokens, candidates)
            return await answer_valid(
                prompts,
                lambda valid: requests.ask(template, valid),
                vocabulary=llm.model_config.get_vocab_size(),
                context_tokens=self._context_tokens,
                asked_tokens=max_tokens,
            )
        except GuardlineError:
            raise
        except Exception as error:  # vLLM raises errors of any type.
            if self._llm is not llm:
                raise Fatal(CLOSED) from error
            meant = _meant(error)
            if isinstance(meant, Refused):
                return [meant] * len(prompts)
            raise meant from error

    async def _template(self, llm: Any, max_tokens: int, candidates: tuple[int, ...] | None) -> Any:
        """Let vLLM make and check one request. All others with the same parameters are copies of it."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        parameters = SamplingParams(
            temperature=0,
            max_tokens=max_tokens,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            logprob_token_ids=None if candidates is None else list(candidates),
        )
        made = llm.input_processor.process_inputs(
            "template",
            {"type": "token", "prompt_token_ids": [0]},
            parameters,
            supported_tasks=await llm.get_supported_tasks(),
        )
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        self._templates[max_tokens, candidates] = made
        return made


def _row(logprobs: Any, candidates: Sequence[int]) -> list[float] | Refused:
    # vLLM puts the sampled token before the requested ones.
    said = dict(zip(logprobs.logprob_token_ids[0].tolist(), logprobs.logprobs[0].tolist(), strict=True))
    try:
        row = [said[candidate] for candidate in candidates]
    except KeyError as error:
        raise Unavailable(f"vLLM gave no log-probability for candidate {error}") from error
    return checked_row(row)


def _meant(error: Exception) -> GuardlineError | Refused:
    """Translate an error of vLLM: it refuses the prompt, it crashed, or the failure may pass."""
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        return Fatal(DIED)
    if isinstance(error, (VLLMClientError, ValueError)):
        return Refused("prompt_refused", f"vLLM refused a prompt: {error}")
    return Unavailable(f"vLLM failed: {error!r}")
