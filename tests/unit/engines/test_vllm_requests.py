"""Requests at a replacement for vLLM's engine core: which requests it answers, and which it does not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from workers.engines.vllm_requests import Requests
from workers.errors import Fatal, Unavailable


@dataclass
class Core:
    """Takes requests, and says what the test puts into `said`."""

    requests: list[Any] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    said: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    async def add_request_async(self, request: Any) -> None:
        """Take it."""
        self.requests.append(request)

    async def abort_requests_async(self, names: list[str]) -> None:
        """Note them."""
        self.aborted += names

    async def get_output_async(self) -> Any:
        """Give what one step said."""
        return await self.said.get()

    def say(self, *outputs: Any) -> None:
        """End a step."""
        self.said.put_nowait(SimpleNamespace(outputs=outputs))


def output(name: str, *ids: int, ended_by: str | None = "length") -> Any:
    return SimpleNamespace(request_id=name, new_token_ids=list(ids), new_logprobs=None, finish_reason=ended_by)


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
async def requests(core: Core) -> Any:
    made = Requests(core)
    reading = asyncio.create_task(made.read())
    yield made
    reading.cancel()


async def asked(core: Core, requests: Requests, *prompts: list[int]) -> asyncio.Task[Any]:
    """Ask, and see that every prompt is at the engine core within one turn of the event loop."""
    before = len(core.requests)
    call = asyncio.create_task(requests.ask(SimpleNamespace(max_tokens=2), prompts))
    await asyncio.sleep(0)
    assert len(core.requests) == before + len(prompts)
    return call


async def test_answers_come_back_in_the_order_of_the_prompts(core: Core, requests: Requests) -> None:
    call = await asked(core, requests, [1], [2, 3])
    other = await asked(core, requests, [4])
    first, second, third = (request.request_id for request in core.requests)
    assert [request.prompt_token_ids for request in core.requests] == [[1], [2, 3], [4]]
    core.say(output(second, 7, ended_by=None), output(third, 9))
    core.say(output(second, 8), output(first, 6))
    assert [answer.token_ids for answer in await call] == [[6], [7, 8]]
    assert [answer.token_ids for answer in await other] == [[9]]


@pytest.mark.parametrize("reason", ["abort", "error"])
async def test_a_request_that_vllm_aborts_may_be_retried(core: Core, requests: Requests, reason: str) -> None:
    # Taken for an answer it would be an empty completion, or an IndexError that ends the worker.
    call = await asked(core, requests, [1])
    core.say(output(core.requests[0].request_id, ended_by=reason))
    with pytest.raises(Unavailable, match=reason):
        await call


async def test_a_cancelled_call_is_aborted_and_its_late_answer_is_ignored(core: Core, requests: Requests) -> None:
    call = await asked(core, requests, [1], [2])
    first, second = (request.request_id for request in core.requests)
    core.say(output(first, 5))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert core.aborted == [second]
    core.say(output(second, 6))
    again = await asked(core, requests, [3])
    core.say(output(core.requests[-1].request_id, 7))
    assert [answer.token_ids for answer in await again] == [[7]]


async def test_waiting_calls_fail_when_the_engine_process_crashes(core: Core, requests: Requests) -> None:
    calls = [await asked(core, requests, [1], [2]), await asked(core, requests, [3])]
    requests.fail(Fatal("the first reason"))
    requests.fail(Fatal("a later one"))
    for call in calls:
        with pytest.raises(Fatal, match="the first reason"):
            await asyncio.wait_for(call, 5)
    with pytest.raises(Fatal, match="the first reason"):
        await requests.ask(SimpleNamespace(), [[1]])
    assert core.aborted == [], "there is nobody to abort anything at"
