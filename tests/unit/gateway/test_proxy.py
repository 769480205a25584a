"""The proxy between the real client of OpenAI and a server whose answers are scripts, over real connections."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from openai.lib.streaming.chat import ContentDeltaEvent
from structlog.testing import capture_logs

from schemas.policy import HoldBack, StreamPolicy
from schemas.stream import Intervention, StreamVerdict
from tests.servers.model_server import DONE, ENVELOPE, ModelServer, Reply, Step, chunk, model_server, said, sse
from tests.unit.gateway.words import WordGuard
from workers.gateway.application import create_app
from workers.gateway.decided import Terms
from workers.gateway.failures import Failures
from workers.gateway.gate import Gate
from workers.gateway.keys import Keys
from workers.gateway.proxy import ModelProxy
from workers.gateway.proxy_routes import router
from workers.gateway.upstream import ModelServer as Upstreams
from workers.process.http_server import Server
from workers.settings import Gateway
from workers.settings.upstream_sections import Proxy, Upstream

Json = dict[str, Any]
CHAT = "/v1/chat/completions"
USER: Any = [{"role": "user", "content": "hello"}]


class Site:
    """A model server, the gateway before it, and the clients."""

    def __init__(self, model: ModelServer, port: int, guard: WordGuard) -> None:
        self.model = model
        self.guard = guard
        self.url = f"http://127.0.0.1:{port}"
        self.policy = StreamPolicy(hold_back=HoldBack(until="tokens", tokens=1), replacement="")
        self.proxy: ModelProxy
        self.published: list[tuple[StreamVerdict, Intervention | None]] = []
        self.client: Any = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key="key",
            max_retries=0,
            timeout=20,
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
        )
        self.http = httpx.AsyncClient(base_url=self.url, timeout=20, verify=False)

    def terms_of(self, tenant: str) -> Terms:
        assert tenant == "acme"
        return Terms(tenant, {"id": tenant, "version": 3, "digest": "d"}, self.policy)

    def publish(self, verdict: StreamVerdict, intervention: Intervention | None) -> None:
        self.published.append((verdict, intervention))

    async def chat(self, model: str, **options: Any) -> list[Any]:
        stream = await self.client.chat.completions.create(
            model=model, messages=options.pop("messages", USER), stream=True, **options
        )
        return [chunk async for chunk in stream]

    async def freed(self) -> None:
        """Wait until every session is closed and upstream knows how each answer ended."""
        await until(lambda: not self.guard.open_sessions and len(self.model.ends) == len(self.model.asked))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def gone(asking: asyncio.Task[Any]) -> None:
    """Have a client close its connection."""
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@asynccontextmanager
async def serving(
    upstream: Json | None = None, *, write_s: float = 60, send_bytes: int | None = None, **proxy: Any
) -> AsyncIterator[Site]:
    async with model_server() as model:
        settings = Upstream(url=f"http://127.0.0.1:{model.port}", **(upstream or {}))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            if send_bytes is not None:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
            site = Site(model, listener.getsockname()[1], WordGuard())
            servers, failures = Upstreams(settings), Failures()
            site.proxy = ModelProxy(
                site.guard, servers, site.terms_of, Proxy(**proxy), settings, failures, site.publish
            )
            gateway = Gateway(open="acme")
            app = create_app(gateway, Gate(Keys(gateway)), [router(site.proxy)], failures)
            server = Server(app, listener, "the gateway", write_s=write_s)
            running = asyncio.create_task(server.serve())
            await asyncio.sleep(0)  # So that its line in the log comes before those of a test.
            try:
                yield site
            finally:
                await site.client.close()
                await site.http.aclose()
                await server.stop()
                await running
                await servers.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as made:
        yield made


def whole(body: Json, _: Json) -> Reply:
    return Reply([json.dumps(body).encode()], kind="application/json")


def text_of(chunks: list[Any], index: int = 0) -> str:
    return "".join(choice.delta.content or "" for one in chunks for choice in one.choices if choice.index == index)


def ends_of(chunks: list[Any]) -> dict[int, str]:
    return {choice.index: choice.finish_reason for one in chunks for choice in one.choices if choice.finish_reason}


async def test_a_harmless_stream_reaches_the_client_as_it_is(site: Site) -> None:
    site.model.script("m", *said("one ", "two ", "three"), DONE)

    chunks = await site.chat("m", temperature=0.5)

    assert text_of(chunks) == "one two three"
    assert ends_of(chunks) == {0: "stop"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {(one.id, one.model, one.object) for one in chunks} == {("c1", "m", "chat.completion.chunk")}
    assert site.model.asked == [{"model": "m", "messages": USER, "stream": True, "temperature": 0.5}]
    assert "authorization" not in site.model.headers[0]
    await site.freed()
    assert site.model.ends == ["complete"]


async def test_a_cut_ends_the_stream_and_the_call_of_the_model_server(site: Site) -> None:
    never = asyncio.Event()
    site.policy = site.policy.model_copy(update={"replacement": " [removed]"})
    site.model.script("m", *said("one ", "two ", "BOMB ", "BOMB ", "more ")[:-1], never)

    chunks = await site.chat("m")

    assert text_of(chunks) == "one two  [removed]"
    assert ends_of(chunks) == {0: "content_filter"}
    assert chunks[-1].choices[0].guardline["reason"] == "unsafe"
    await site.freed()
    assert site.model.ends == ["gone"]


async def test_of_three_choices_one_is_cut_and_the_others_end_well(site: Site) -> None:
    site.model.script(
        "m",
        *(chunk(index, content=f"{word} ") for word in ("one", "two") for index in range(3)),
        *(chunk(2, content="BOMB ") for _ in range(3)),
        *(chunk(index, content="three") for index in range(3)),
        *(chunk(index, "stop") for index in range(3)),
        sse({**ENVELOPE, "choices": [], "usage": {"total_tokens": 7, "details": {"a": 1, "b": "BOMB"}}}),
        DONE,
    )

    chunks = await site.chat("m", n=3, stream_options={"include_usage": True})

    assert [text_of(chunks, index) for index in range(3)] == ["one two three", "one two three", "one two "]
    assert ends_of(chunks) == {0: "stop", 1: "stop", 2: "content_filter"}
    assert chunks[-1].usage.total_tokens == 7
    assert chunks[-1].usage.details == {"a": 1}
    await site.freed()
    assert site.model.ends == ["complete"]


async def test_the_sync_client_works_unchanged(site: Site) -> None:
    site.model.script("m", *said("one ", "BOMB ", "BOMB "), DONE)

    def ask() -> tuple[str, dict[int, str]]:
        with openai.OpenAI(base_url=f"{site.url}/v1", api_key="key", max_retries=0) as client:
            chunks = list(client.chat.completions.create(model="m", messages=USER, stream=True))
            return text_of(chunks), ends_of(chunks)

    assert await asyncio.to_thread(ask) == ("one ", {0: "content_filter"})


async def test_the_stream_helper_raises_at_a_cut_by_design(site: Site) -> None:
    site.model.script("m", *said("one ", "BOMB ", "BOMB "), DONE)

    async with site.client.chat.completions.stream(model="m", messages=USER) as stream:
        texts = [event.delta async for event in stream if isinstance(event, ContentDeltaEvent)]
        with pytest.raises(openai.ContentFilterFinishReasonError):
            await stream.get_final_completion()

    assert "".join(texts) == "one "


async def test_reasoning_and_calls_of_tools_are_judged_too(site: Site) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "find", "arguments": ""}}

    def arguments(text: str) -> bytes:
        return chunk(tool_calls=[{"index": 0, "function": {"arguments": text}}])

    harmless = [chunk(reasoning_content="I think "), chunk(tool_calls=[call]), arguments('{"a": '), arguments("1}")]
    site.model.script("calls", *harmless, chunk(0, "tool_calls"), DONE)
    site.model.script("thinks", chunk(reasoning_content="a BOMB BOMB BOMB "), *said("fine"), DONE)
    site.model.script("acts", *harmless[:3], arguments(" BOMB BOMB "), chunk(0, "tool_calls"), DONE)
    site.model.script(
        "names",
        chunk(tool_calls=[{**call, "function": {"name": "BOMB BOMB BOMB", "arguments": ""}}]),
        chunk(0, "stop"),
        DONE,
    )

    async with site.client.chat.completions.stream(model="calls", messages=USER) as stream:
        message = (await stream.get_final_completion()).choices[0].message
    cut = [await site.chat(model) for model in ("thinks", "acts", "names")]

    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "find"
    assert message.tool_calls[0].function.arguments == '{"a": 1}'
    assert [ends_of(chunks) for chunks in cut] == [{0: "content_filter"}] * 3
    assert "BOMB" not in "".join(one.model_dump_json() for chunks in cut for one in chunks)


@pytest.mark.parametrize(
    ("texts", "retries", "shown", "asked"),
    [
        (["one BOMB BOMB", "two BOMB BOMB", "three four"], 2, ("three four", "stop"), 3),
        (["one BOMB BOMB", "two BOMB BOMB", "three four"], 1, ("one ", "content_filter"), 2),
        (["one BOMB BOMB", "two three"], 0, ("one ", "content_filter"), 1),
        (["one two", "three"], 2, ("one two", "stop"), 1),
        (["one BOMB BOMB", None], 2, ("one ", "content_filter"), 2),
    ],
)
async def test_the_model_server_is_asked_again_for_a_whole_answer_that_was_cut(
    texts: list[str | None], retries: int, shown: tuple[str, str], asked: int
) -> None:
    """None: the model server fails."""
    left = list(texts)

    def answer(_: Json) -> Reply:
        text = left.pop(0)
        if text is None:
            return Reply([b"{}"], status=500, kind="application/json")
        message = {"role": "assistant", "content": text}
        body = {**ENVELOPE, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return whole(body, {})

    async with serving(retries=retries) as site:
        site.model.scripts["m"] = answer
        found = await site.client.chat.completions.create(model="m", messages=USER)
        assert (found.choices[0].message.content, found.choices[0].finish_reason) == shown
        assert len(site.model.asked) == asked
        await until(lambda: not site.guard.open_sessions and len(site.published) == asked)


THINKS = [chunk(reasoning_content="I think so. "), *said("one ", "BOMB ", "BOMB ")]
CALLS = [chunk(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]), *said("BOMB BOMB ")]
SAYS = [*said("one ", "two ", "three ", "BOMB ", "BOMB ", "x"), DONE]
"""Of this, a client sees `one two three `."""


async def test_calls_of_tools_that_are_written_in_turns_are_judged_each(site: Site) -> None:
    def call(index: int, arguments: str, **more: Any) -> bytes:
        return chunk(tool_calls=[{"index": index, "function": {"arguments": arguments, **more}}])

    def calls(*turns: tuple[int, str]) -> list[bytes]:
        begun = [call(index, "", name="find") for index in (0, 1)]
        return [*begun, *(call(*turn) for turn in turns), chunk(0, "tool_calls"), DONE]

    site.model.script("bad", *calls((0, '{"a": BO'), (1, '{"b": '), (0, "MB BO"), (1, "2 }"), (0, "MB }")))
    # The two halves of a bad word are in two calls.
    site.model.script("good", *calls((0, '{"a": BO'), (1, "MB BO"), (0, "x }"), (1, "MBx }")))
    site.model.script("well", *calls((0, '{"a": '), (1, '{"b": '), (0, "1 }"), (1, "2 }")))

    bad, well = [await site.chat(model) for model in ("bad", "well")]

    assert (ends_of(bad), ends_of(well)) == ({0: "content_filter"}, {0: "tool_calls"})
    assert "MB" not in "".join(one.model_dump_json() for one in bad)
    got = {0: "", 1: ""}
    for one in well:
        for tool in one.choices[0].delta.tool_calls or []:
            got[tool.index] += tool.function.arguments
    assert got == {0: '{"a": 1 }', 1: '{"b": 2 }'}


def replies(*attempts: list[Any]) -> Callable[[Json], Reply]:
    """Give an answer for each request. None: the model server fails."""
    left = list(attempts)

    def answer(_: Json) -> Reply:
        steps = left.pop(0)
        return Reply([b"{}"], status=500, kind="application/json") if steps == ["fails"] else Reply(steps)

    return answer


async def test_what_no_client_has_seen_of_a_cut_stream_is_written_anew() -> None:
    first = [*said("BOMB ", "BOMB ", "more ")[:-1], asyncio.Event()]
    second = [
        chunk(role="assistant", content=""),
        chunk(content="fine"),
        sse({**ENVELOPE, "id": "c2", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        DONE,
    ]
    async with serving(retries=2) as site:
        site.model.scripts["m"] = replies(first, second)

        chunks = await site.chat("m", seed=5, tools=[])

        assert (text_of(chunks), ends_of(chunks)) == ("fine", {0: "stop"})
        assert [one.choices[0].delta.role for one in chunks].count("assistant") == 1
        assert {one.id for one in chunks} == {"c1"}
        assert site.model.asked[0] == site.model.asked[1]
        await site.freed()
        assert site.model.ends == ["gone", "complete"]
        await until(lambda: sorted(verdict.outcome for verdict, _ in site.published) == ["closed", "cut"])


async def test_a_cut_stream_goes_on_from_what_the_client_has_seen() -> None:
    """White space at the end of the shown text is written by the model server again, and shown once."""
    async with serving({"continues_chats": True}, retries=5) as site:
        site.model.scripts["m"] = replies(
            SAYS, [*said(" ", "four ", "five ", "BOMB ", "BOMB "), DONE], [*said(" six"), DONE]
        )

        chunks = await site.chat("m", max_tokens=10)

        assert (text_of(chunks), ends_of(chunks)) == ("one two three four five six", {0: "stop"})
        continued = [(body["messages"][1:], body["max_tokens"]) for body in site.model.asked]
        assert continued == [
            ([], 10),
            ([{"role": "assistant", "content": "one two three"}], 7),
            ([{"role": "assistant", "content": "one two three four five"}], 5),
        ]
        assert site.model.asked[1]["continue_final_message"] is True
        assert site.model.asked[1]["add_generation_prompt"] is False
        await site.freed()


async def test_a_cut_completion_goes_on_from_what_the_client_has_seen() -> None:
    def part(text: str, finish: str | None = None) -> bytes:
        return sse({**ENVELOPE, "choices": [{"index": 0, "text": text, "finish_reason": finish}]})

    async with serving(retries=1) as site:
        site.model.scripts["m"] = replies(
            [*map(part, ("one ", "two ", "three ", "BOMB ", "BOMB ")), part("x", "stop"), DONE],
            [part(" four", "stop"), DONE],
        )

        stream = await site.client.completions.create(model="m", prompt="zero ", max_tokens=9, stream=True)
        text = "".join([choice.text async for one in stream for choice in one.choices])

        assert text == "one two three four"
        assert [(body["prompt"], body["max_tokens"]) for body in site.model.asked] == [
            ("zero ", 9),
            ("zero one two three", 6),
        ]


NOT_AGAIN: list[tuple[list[Any], Json, Json, str]] = [
    (SAYS, {"n": 2}, {}, "one two three "),
    (SAYS, {"stop": ["x"]}, {}, "one two three "),
    (SAYS, {"logprobs": True}, {}, "one two three "),
    (SAYS, {"response_format": {"type": "json_object"}}, {}, "one two three "),
    (SAYS, {"messages": [*USER, {"role": "assistant", "content": "zero "}]}, {}, "one two three "),
    (SAYS, {"max_tokens": 3}, {}, "one two three "),
    (SAYS, {}, {"until": "none"}, "one two three "),
    ([*THINKS, DONE], {}, {}, ""),
    ([*CALLS, DONE], {}, {}, ""),
]


async def test_a_cut_stream_that_cannot_be_continued_exactly_ends_with_its_cut() -> None:
    async with serving({"continues_chats": True}, retries=5) as site:
        for number, (steps, options, hold_back, shown) in enumerate(NOT_AGAIN):
            site.policy = site.policy.model_copy(
                update={"hold_back": HoldBack(**(hold_back or {"until": "tokens", "tokens": 1}))}
            )
            site.model.script(f"m{number}", *steps)
            chunks = await site.chat(f"m{number}", **options)

            assert ends_of(chunks)[0] == "content_filter", options
            if steps is SAYS:
                assert text_of(chunks) == shown or hold_back, options
            assert len(site.model.asked) == number + 1, options
    async with serving(retries=5) as site:
        site.model.script("m", *SAYS)
        assert (text_of(await site.chat("m")), len(site.model.asked)) == ("one two three ", 1)


@pytest.mark.parametrize(
    "second",
    [
        ["fails"],
        [*said("fo", "ur"), DONE],
        [b"data: {broken"],
        [chunk(reasoning_content="so"), *said(" a"), DONE],
        [*said(" ", "BOMB ", "BOMB "), DONE],
    ],
    ids=["fails", "another place", "invalid", "thinks", "cut again"],
)
async def test_if_the_other_attempt_fails_the_client_gets_the_cut(second: list[Any]) -> None:
    async with serving({"continues_chats": True}, retries=1) as site:
        site.policy = site.policy.model_copy(update={"replacement": "[removed]"})
        site.model.scripts["m"] = replies(SAYS, second)

        chunks = await site.chat("m")

        assert (text_of(chunks), ends_of(chunks)) == ("one two three [removed]", {0: "content_filter"})
        assert len(site.model.asked) == 2
        await site.freed()


async def test_another_attempt_of_which_a_part_was_shown_ends_like_any_stream() -> None:
    async with serving({"continues_chats": True}, retries=1) as site:
        site.model.scripts["breaks"] = replies(SAYS, [*said(" four ", "five ", "six ")[:-1], "reset"])
        with pytest.raises(openai.APIError) as failed:
            await site.chat("breaks")
        assert failed.value.code == "upstream_ended"

        site.model.scripts["drains"] = replies(SAYS, [asyncio.Event()])
        asking = asyncio.create_task(site.chat("drains"))
        await until(lambda: len(site.model.asked) == 4)
        site.proxy.stop()
        with pytest.raises(openai.APIError) as drained:
            await asking
        assert drained.value.code == "draining"
        await site.freed()


async def test_a_stream_that_the_model_server_breaks_off_is_logged_and_one_that_others_end_is_not() -> None:
    async with serving() as site:
        with capture_logs() as lines:
            site.model.script("breaks", *said("one ", "two ")[:-1], "reset")
            site.model.script("waits", *said("one ", "two ")[:-1], asyncio.Event())
            with pytest.raises(openai.APIError):
                await site.chat("breaks")
            leaving = asyncio.create_task(site.chat("waits"))
            await until(lambda: len(site.model.asked) == 2)
            await gone(leaving)
            await site.freed()
            draining = asyncio.create_task(site.chat("waits"))
            await until(lambda: len(site.model.asked) == 3)
            site.proxy.stop()
            with pytest.raises(openai.APIError):
                await draining
            await site.freed()
        (line,) = (line for line in lines if "status" in line)
        assert (line["log_level"], line["path"], line["code"]) == ("warning", CHAT, "upstream_ended")


async def test_an_answer_that_is_not_streamed_is_judged_as_a_whole(site: Site) -> None:
    def reply(*texts: str) -> Reply:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "annotations": ["BOMB"]},
                "logprobs": {"content": [{"token": text, "logprob": -1, "top_logprobs": []}]},
                "finish_reason": "stop",
            }
            for index, text in enumerate(texts)
        ]
        body = {**ENVELOPE, "object": "chat.completion", "choices": choices, "usage": {"total_tokens": 9}}
        return Reply([json.dumps(body).encode()], kind="application/json")

    site.policy = site.policy.model_copy(update={"replacement": "[removed]"})
    site.model.scripts["m"] = lambda _: reply("one two", "one BOMB BOMB two")

    answer = await site.client.chat.completions.create(model="m", messages=USER, n=2)

    first, second = answer.choices
    assert (first.message.content, first.finish_reason) == ("one two", "stop")
    assert first.logprobs.content[0].token == "one two"
    assert (second.message.content, second.finish_reason) == ("one [removed]", "content_filter")
    assert second.logprobs is None
    assert "BOMB" not in answer.model_dump_json()
    assert answer.usage.total_tokens == 9
    await site.freed()


async def test_without_the_guard_no_other_answer_is_asked_for() -> None:
    async with serving(retries=2) as site:
        message = {"role": "assistant", "content": "one BOMB BOMB two"}
        body = {**ENVELOPE, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        site.model.scripts["m"] = partial(whole, body)
        opened = site.guard.open

        def open_once(policy: StreamPolicy) -> Any:
            site.guard.is_down = bool(site.guard.prompts)
            return opened(policy)

        site.guard.open = open_once  # type: ignore[method-assign]

        answer = await site.client.chat.completions.create(model="m", messages=USER)

        assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one ", "content_filter")
        assert len(site.guard.prompts) == 2
        assert len(site.model.asked) == 1


async def test_legacy_completions_are_judged(site: Site) -> None:
    def part(text: str, finish: str | None = None, index: int = 0) -> bytes:
        logprobs = {"tokens": [text], "token_logprobs": [-1.0], "top_logprobs": [], "text_offset": [0]}
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
        return sse({**ENVELOPE, "object": "text_completion", "choices": [choice]})

    site.model.script("m", part("one "), part("two", "stop"), *[part("BOMB ", None, 1)] * 3, part("", "stop", 1), DONE)

    stream = await site.client.completions.create(model="m", prompt=["hello", "there"], stream=True)
    chunks = [one async for one in stream]

    texts = ["".join(c.text for one in chunks for c in one.choices if c.index == index) for index in (0, 1)]
    assert texts == ["one two", ""]
    assert ends_of(chunks) == {0: "stop", 1: "content_filter"}
    assert "BOMB" not in "".join(one.model_dump_json() for one in chunks)
    assert sorted(text for text, _ in site.guard.prompts) == ["hello", "there"]


async def test_the_last_turn_of_the_user_is_judged_in_its_conversation(site: Site) -> None:
    site.model.script("m", *said("fine"), DONE)
    messages = [
        {"role": "system", "content": "never speak of a BOMB"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "three"}]},
        {"role": "tool", "tool_call_id": "c", "content": "four"},
    ]

    await site.chat("m", messages=messages)

    assert site.guard.prompts == [("three\n\nfour", [("user", "one"), ("assistant", "two")])]
    assert site.model.asked[0]["messages"] == messages


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_is_cut_does_not_reach_the_model_server(site: Site, stream: bool) -> None:
    messages = [{"role": "user", "content": "a BOMB"}]

    with pytest.raises(openai.BadRequestError) as refused:
        await site.client.chat.completions.create(model="m", messages=messages, stream=stream)

    assert refused.value.code == "content_filter"
    assert site.model.asked == []
    assert not site.guard.open_sessions


async def test_a_cut_prompt_can_be_answered_as_a_completion() -> None:
    messages: Any = [{"role": "user", "content": "a BOMB"}]
    async with serving(on_cut_prompt="completion") as site:
        site.policy = site.policy.model_copy(update={"replacement": "I cannot help with that."})

        chunks = await site.chat("m", messages=messages, n=2)
        whole = await site.client.chat.completions.create(model="m", messages=messages)

        assert [text_of(chunks, index) for index in range(2)] == ["I cannot help with that."] * 2
        assert ends_of(chunks) == {0: "content_filter", 1: "content_filter"}
        assert whole.choices[0].message.content == "I cannot help with that."
        assert whole.choices[0].finish_reason == "content_filter"
        assert site.model.asked == []


REFUSED: list[tuple[Json, str]] = [
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "other_parts"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "other_parts"),
    ({"messages": USER, "n": 9}, "max_choices"),
    ({"messages": USER, "n": True}, "n: "),
    ({"messages": USER, "stream": 1}, "stream: "),
    ({"messages": USER, "prompt_embeds": "x"}, "prompt_embeds"),
    ({"messages": USER, "modalities": ["text", "audio"]}, "modalities"),
    ({"messages": []}, "messages: "),
]


async def test_requests_that_cannot_be_judged_are_refused(site: Site) -> None:
    for body, sentence in REFUSED:
        response = await site.http.post(CHAT, json={"model": "m", **body})

        assert response.status_code == 400, body
        assert sentence in response.json()["error"]["message"]
    assert site.model.asked == []


async def test_a_fault_of_the_gateway_is_an_error_in_the_same_shape(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("BOMB")

    monkeypatch.setattr(site.guard, "open", fails)

    response = await site.http.post(CHAT, json={"model": "m", "messages": USER})

    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "BOMB" not in response.text


async def test_an_error_can_quote_half_of_a_surrogate_pair(site: Site) -> None:
    site.model.scripts["m"] = lambda _: Reply(
        [b'{"error":{"message":"no \\ud83d"}}'], status=400, kind="application/json"
    )

    response = await site.http.post(CHAT, json={"model": "m", "messages": USER})

    assert response.status_code == 400
    assert response.json()["error"]["message"] == "no \ud83d"


async def test_no_redirect_leads_to_the_host_that_a_client_names(site: Site) -> None:
    response = await site.http.post(f"{CHAT}/", json={"model": "m", "messages": USER}, headers={"host": "other"})

    assert response.status_code == 404


async def test_parts_that_are_no_text_pass_if_the_setting_says_so() -> None:
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    async with serving(other_parts="pass") as site:
        site.model.script("m", *said("fine"), DONE)

        await site.chat("m", messages=[{"role": "user", "content": content}])

        assert site.guard.prompts == [("what is it?", [])]
        assert site.model.asked[0]["messages"][0]["content"] == content


BROKEN: list[tuple[list[Any], str]] = [
    (["reset"], "upstream_ended"),
    ([], "upstream_ended"),
    ([DONE], "upstream_ended"),
    ([b"data: {broken\n\n", DONE], "upstream_invalid"),
    ([b"data: [1]\n\n", DONE], "upstream_invalid"),
    ([b"data: \xff\n\n", DONE], "upstream_invalid"),
    ([chunk(7, content="other "), DONE], "upstream_invalid"),
    ([chunk(content=5), DONE], "upstream_invalid"),
    ([sse({"choices": {}}), DONE], "upstream_invalid"),
    ([chunk(0, "BOMB " * 60), DONE], "upstream_invalid"),
    ([sse({"choices": [5]}), DONE], "upstream_invalid"),
    ([sse({"error": {"message": "no memory", "code": "oom"}})], "oom"),
]


async def test_an_answer_that_breaks_off_ends_with_an_error(site: Site) -> None:
    for number, (steps, code) in enumerate(BROKEN):
        for begun in ([], [chunk(content="one ")]):
            model = f"m{number}{len(begun)}"
            site.model.script(model, *begun, *steps)

            with pytest.raises(openai.APIError) as failed:
                await site.chat(model)

            assert failed.value.code == code, steps
    await site.freed()


async def test_the_message_of_an_error_that_may_quote_the_answer_does_not_reach_the_client(site: Site) -> None:
    error = {"message": "cannot parse: BOMB", "type": "BOMB BOMB", "code": 500, "failed_generation": "BOMB"}
    site.model.script("breaks", chunk(content="one "), sse({"error": error}))
    site.model.script("says", sse({"error": "BOMB"}))
    site.model.scripts["fails"] = lambda _: Reply(
        [json.dumps({"error": error}).encode()], status=500, kind="application/json"
    )
    site.model.scripts["odd"] = lambda _: Reply([json.dumps({"error": error}).encode()], status=700)

    errors = []
    for model in ("breaks", "says", "fails", "odd"):
        with pytest.raises(openai.APIError) as failed:
            await site.chat(model)
        errors.append((failed.value.code, failed.value.type))
        assert "BOMB" not in json.dumps(failed.value.body)
    assert errors == [
        ("500", "server_error"),
        ("upstream_error", "server_error"),
        ("500", "server_error"),
        ("upstream_invalid", "server_error"),
    ]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_message_of_a_refusal_is_judged_and_short(site: Site, stream: bool) -> None:
    def refuses(message: str) -> Callable[[Json], Reply]:
        error = {"message": message, "code": "tool_use_failed", "failed_generation": "BOMB"}
        return lambda _: Reply([json.dumps({"error": error}).encode()], status=400, kind="application/json")

    said_by = {"long": "word " * 1_000, "quotes": "cannot parse: BOMB BOMB BOMB", "fine": "max_tokens is too large"}
    got = {}
    for model, message in said_by.items():
        site.model.scripts[model] = refuses(message)
        with pytest.raises(openai.BadRequestError) as refused:
            await site.client.chat.completions.create(model=model, messages=USER, stream=stream)
        body: Any = refused.value.body
        got[model] = body["message"]
        assert body["code"] == "tool_use_failed"
        assert "BOMB" not in json.dumps(body)

    assert got["fine"] == said_by["fine"]
    assert got["long"] == said_by["long"][:1_000]
    assert got["quotes"] == "the model server refuses the request"
    await site.freed()


async def test_a_model_server_that_hangs_is_given_up() -> None:
    never = asyncio.Event()
    async with serving({"first_byte_s": 0.2, "answer_s": 0.2}) as site:
        site.model.scripts["silent"] = lambda _: Reply([never], kind="application/json")
        with pytest.raises(openai.InternalServerError) as silent:
            await site.client.chat.completions.create(model="silent", messages=USER)
        await site.freed()
    async with serving({"answer_s": 0.5}) as site:
        pings: list[Step] = [b": ping\n\n", 0.1]
        site.model.script("endless", *pings * 300)
        with pytest.raises(openai.APIError) as endless:
            await site.chat("endless")
        await site.freed()
    async with serving({"between_chunks_s": 0.2}) as site:
        site.model.script("stuck", chunk(content="one "), never)
        with pytest.raises(openai.APIError) as stuck:
            await site.chat("stuck")
        await site.freed()

    assert [failed.value.code for failed in (silent, endless, stuck)] == ["upstream_timeout"] * 3


async def test_a_model_server_that_is_down_or_refuses_is_reported(site: Site) -> None:
    site.model.scripts["busy"] = lambda _: Reply(
        [b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}'],
        status=429,
        kind="application/json",
        headers={"retry-after": "7", "set-cookie": "a=b", "x-ratelimit-limit-requests": "5"},
    )
    site.model.scripts["html"] = lambda _: Reply([b"<html>"], kind="text/html")
    site.model.scripts["moved"] = lambda _: Reply([], status=302, headers={"location": "http://127.0.0.1/"})

    with pytest.raises(openai.RateLimitError, match="slow down") as busy:
        await site.chat("busy")
    with pytest.raises(openai.NotFoundError, match="no such model"):
        await site.chat("unknown")
    for model in ("html", "moved"):
        with pytest.raises(openai.InternalServerError) as invalid:
            await site.chat(model)
        assert invalid.value.status_code == 502

    headers = busy.value.response.headers
    assert (headers["retry-after"], headers["x-ratelimit-limit-requests"]) == ("7", "5")
    assert "set-cookie" not in headers
    async with serving() as other:
        other.proxy._server._client.base_url = "http://127.0.0.1:9"
        with pytest.raises(openai.InternalServerError) as down, capture_logs() as lines:
            await other.chat("m")
    assert down.value.code == "upstream_unavailable"
    assert [line["event"] for line in lines] == [
        "the model server cannot be reached (gateway.upstream.url): ConnectError"
    ]


async def test_a_client_that_goes_away_ends_the_call_and_frees_the_session(site: Site) -> None:
    never = asyncio.Event()
    site.model.script("streams", *said("one ", "two ", "three ")[:-1], never)
    site.model.scripts["thinks"] = lambda _: Reply([never], kind="application/json")

    stream = await site.client.chat.completions.create(model="streams", messages=USER, stream=True)
    async for _ in stream:
        break
    await stream.close()
    await site.freed()
    asking = asyncio.create_task(site.http.post(CHAT, json={"model": "thinks", "messages": USER}))
    await until(lambda: len(site.model.asked) == 2)
    await gone(asking)
    await site.freed()

    assert site.model.ends == ["gone", "gone"]


async def test_a_client_that_leaves_while_its_prompt_is_judged_asks_nothing_of_the_model_server(site: Site) -> None:
    site.guard.hangs = asyncio.Event()

    asking = asyncio.create_task(site.http.post(CHAT, json={"model": "m", "messages": USER}))
    await until(lambda: len(site.guard.prompts) == 1)
    await gone(asking)
    await site.freed()
    assert site.model.asked == []


async def ask_by(client: socket.socket, site: Site) -> None:
    """Send a request for a stream by a socket that takes little before it is read."""
    body = json.dumps({"model": "m", "messages": USER, "stream": True}).encode()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", int(site.url.rpartition(":")[2])))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    await loop.sock_sendall(client, head.encode() + b"\r\n\r\n" + body)


async def rest_of(client: socket.socket) -> bytes:
    """Read until the connection ends, in whatever way."""
    found = b""
    with suppress(ConnectionResetError):
        while data := await asyncio.get_running_loop().sock_recv(client, 65_536):
            found += data
    return found


async def test_a_client_that_stops_reading_loses_its_connection_and_frees_everything() -> None:
    async with serving(write_s=0.3, send_bytes=4_096) as site:  # So that little waits in the kernel.
        site.model.script("m", *said(*["word " * 200] * 400)[:-1], asyncio.Event())
        with socket.socket() as client:
            await ask_by(client, site)

            await until(lambda: len(site.published) == 1)
            await site.freed()

            assert site.model.ends == ["gone"]
            assert [verdict.outcome for verdict, _ in site.published] == ["closed"]
            assert b"[DONE]" not in await rest_of(client)


async def test_an_answer_that_waits_for_its_client_too_long_is_no_failure_of_the_model_server() -> None:
    async with serving({"answer_s": 1}, send_bytes=4_096) as site:
        site.model.script("m", *said(*["word " * 200] * 400), DONE)
        site.policy = site.policy.model_copy(update={"hold_back": HoldBack(until="none")})
        with capture_logs() as lines, socket.socket() as client:
            await ask_by(client, site)
            await asyncio.sleep(2)

            assert b'"slow_client"' in await rest_of(client)
            await site.freed()
        assert [line for line in lines if "status" in line] == []


async def test_without_the_guard_nothing_is_allowed(site: Site) -> None:
    proceed = asyncio.Event()
    site.model.script("m", chunk(content="one two three "), proceed, *said("four five ", "six"), DONE)
    site.guard.is_down = True

    with pytest.raises(openai.InternalServerError) as refused:
        await site.chat("m")
    assert (refused.value.status_code, refused.value.code) == (503, "guard_unavailable")
    assert site.model.asked == []

    site.guard.is_down = False
    stream = await site.client.chat.completions.create(model="m", messages=USER, stream=True)
    chunks = [await anext(aiter(stream))]
    site.guard.is_down = True
    proceed.set()
    chunks += [one async for one in stream]

    assert "four" not in text_of(chunks)
    assert ends_of(chunks) == {0: "content_filter"}
    assert chunks[-1].choices[0].guardline["reason"] == "unavailable"


async def test_a_policy_may_allow_answers_without_the_guard_and_the_answer_says_so(site: Site) -> None:
    site.policy = site.policy.model_copy(update={"on_unavailable": "allow"})
    site.guard.is_down = True
    site.model.script("m", *said("one ", "two"), DONE)

    chunks = await site.chat("m")

    assert text_of(chunks) == "one two"
    assert ends_of(chunks) == {0: "stop"}
    assert chunks[-1].choices[0].guardline == {"reason": "unavailable"}


async def test_a_long_delta_is_judged_in_slices_and_cut_inside(site: Site) -> None:
    word = "word " * 20_000
    site.model.script("m", *said(word + "BOMB BOMB " + word, index=0), DONE)

    chunks = await site.chat("m")

    assert text_of(chunks) == word
    assert ends_of(chunks) == {0: "content_filter"}
    assert site.guard.longest <= 4_096
    assert len(site.guard.judged) < len(word) + 10_000


async def test_control_tokens_of_another_model_are_text(site: Site) -> None:
    texts = ["<|im_end|>", "<|im_start|>user\n", "</s> [INST] ", "\x00\u2028data: x\n\n", "\ud83d", "\ude00"]
    site.model.script("m", *said(*texts), DONE)

    chunks = await site.chat("m")

    assert text_of(chunks) == "".join(texts)
    assert ends_of(chunks) == {0: "stop"}


async def test_eight_choices_in_any_order_are_each_judged_alone(site: Site) -> None:
    site.model.script(
        "m",
        *(chunk(index, content=f"n{index} ") for _ in range(5) for index in reversed(range(8))),
        *(chunk(index, content="BOMB BOMB ") for index in (1, 6)),
        *(chunk(index, "stop") for index in range(8)),
        DONE,
    )

    chunks = await site.chat("m", n=8)

    assert [text_of(chunks, index) for index in range(8)] == [f"n{index} " * 5 for index in range(8)]
    assert ends_of(chunks) == {index: "content_filter" if index in (1, 6) else "stop" for index in range(8)}


async def test_a_drain_ends_streams_with_an_error_and_not_in_silence(site: Site) -> None:
    site.model.script("m", *said("one ", "two ", "three ")[:-1], asyncio.Event())

    stream = await site.client.chat.completions.create(model="m", messages=USER, stream=True)
    async for one in stream:
        if text_of([one]):
            break
    site.proxy.stop()
    with pytest.raises(openai.APIError) as ended:
        async for _ in stream:
            pass

    assert ended.value.code == "draining"
    await site.freed()


async def test_a_drain_also_ends_a_stream_whose_prompt_is_still_judged(site: Site) -> None:
    site.model.script("m", *said("one ", "two ", "three ")[:-1], asyncio.Event())
    site.guard.hangs = asyncio.Event()

    asking = asyncio.create_task(site.chat("m"))
    await until(lambda: len(site.guard.prompts) == 1)
    site.proxy.stop()
    site.guard.hangs.set()
    with pytest.raises(openai.APIError) as ended:
        await asking

    assert ended.value.code == "draining"
    await site.freed()


async def test_a_client_gets_comments_while_everything_is_held_back() -> None:
    async with serving(keep_alive_s=0.05) as site:
        proceed = asyncio.Event()
        site.policy = site.policy.model_copy(update={"hold_back": HoldBack(until="all")})
        site.model.script("m", *said("one ", "two")[:-1], proceed, chunk(0, "stop"), DONE)

        async with site.http.stream("POST", CHAT, json={"model": "m", "messages": USER, "stream": True}) as response:
            text = ""
            async for part in response.aiter_text():
                text += part
                if ": keep-alive\n\n" in text:
                    proceed.set()

        assert text.index(": keep-alive") < text.index("one ")


async def test_with_no_hold_back_text_is_shown_before_it_is_judged(site: Site) -> None:
    site.policy = site.policy.model_copy(update={"hold_back": HoldBack(until="none")})
    site.model.script("m", *said("one ", "two "), DONE)
    stream = await site.client.chat.completions.create(model="m", messages=USER, stream=True)
    site.guard.hangs = asyncio.Event()

    texts = []
    async for one in stream:
        texts.append(text_of([one]))
        if "two " in texts:
            site.guard.hangs.set()

    assert "".join(texts) == "one two "


async def test_headers_and_keys_pass_as_the_settings_say(tmp_path: Any) -> None:
    (tmp_path / "key").write_text("secret\n")
    sent: Any = {
        "OpenAI-Organization": "org",
        "traceparent": "00-1",
        "Cookie": "a=b",
        "X-Other": "x",
        "X-Request-Id": "\u00e9".encode("latin-1"),
        "Authorization": "Bearer mine",
    }
    for upstream, authorization in (
        ({}, None),
        ({"key_file": tmp_path / "key"}, "Bearer secret"),
        ({"pass_authorization": True}, "Bearer mine"),
    ):
        async with serving(upstream) as site:
            site.model.scripts["m"] = lambda _: Reply(
                [*said("one"), DONE], headers={"x-request-id": "r1", "set-cookie": "c=d"}
            )

            response = await site.http.post(CHAT, json={"model": "m", "messages": USER, "stream": True}, headers=sent)

            got = site.model.headers[0]
            assert got.get("authorization") == authorization
            assert (got["openai-organization"], got["traceparent"]) == ("org", "00-1")
            # A header that is not ASCII cannot be passed on.
            assert not {"cookie", "x-other", "x-request-id"} & set(got)
            assert response.headers["x-request-id"] == "r1"
            assert "set-cookie" not in response.headers


async def test_a_key_that_the_model_server_refuses_is_the_clients_only_if_it_was_passed_on(tmp_path: Any) -> None:
    (tmp_path / "key").write_text("secret")
    for upstream, status, sentence in (
        ({}, 502, "the model server refuses a request without a key: set gateway.upstream.key_file"),
        ({"key_file": tmp_path / "key"}, 502, "the model server refuses the key of gateway.upstream.key_file"),
        ({"pass_authorization": True}, 401, "no such key"),
    ):
        async with serving(upstream) as site:
            site.model.scripts["m"] = lambda _: Reply(
                [b'{"error":{"message":"no such key"}}'], status=401, kind="application/json"
            )

            answer = await site.http.post(CHAT, json={"model": "m", "messages": USER})

            assert (answer.status_code, answer.json()["error"]["message"]) == (status, sentence)


async def test_the_models_of_the_model_server_are_listed(site: Site) -> None:
    listed: Any = {"object": "list", "data": [{"id": "org/m", "object": "model", "created": 1, "owned_by": "o"}]}
    for path, body in (("/v1/models", listed), ("/v1/models/org/m", listed["data"][0])):
        site.model.scripts[path] = partial(whole, body)

    assert [model.id async for model in site.client.models.list()] == ["org/m"]
    assert (await site.http.get("/v1/models/org/m")).json()["id"] == "org/m"
    for path in ("/v1/models/../files", "/v1/models/..%2Ffiles", "/v1/models/a%3Fb"):
        assert (await site.http.get(path)).status_code in (400, 404)
    assert len(site.model.asked) == 2


async def test_each_choice_has_one_verdict_however_its_request_ends(site: Site) -> None:
    site.policy = rules = site.policy.model_copy(update={"replacement": "[removed]"})
    site.model.script("ends", *said("one ", "two"), chunk(1, content="one BOMB BOMB two"), chunk(1, "stop"), DONE)
    site.model.script("hangs", *said("one ", "two ", "three ")[:-1], asyncio.Event())

    await site.chat("ends", n=2)
    with pytest.raises(openai.BadRequestError):
        await site.chat("ends", messages=[{"role": "user", "content": "a BOMB"}])
    stream = await site.client.chat.completions.create(model="hangs", messages=USER, stream=True)
    async for one in stream:
        if text_of([one]):
            break
    await stream.close()
    await site.freed()
    site.policy = site.policy.model_copy(update={"on_unavailable": "allow"})
    site.guard.is_down = True
    site.model.script("fine", *said("one"), DONE)
    await site.chat("fine")
    await site.freed()

    verdicts = [(verdict.kind, verdict.outcome) for verdict, _ in site.published]
    assert sorted(verdicts[:2]) == [("close", "closed"), ("close", "cut")]
    assert verdicts[2:] == [("user", "cut"), ("close", "closed"), ("close", "unavailable")]
    assert len({verdict.stream_id for verdict, _ in site.published}) == 5
    ((verdict, cut),) = [(v, i) for v, i in site.published if i is not None and i.reason == "unsafe"]
    assert cut is not None
    assert (cut.shown_chars, cut.replacement, cut.intervention_id) == (4, "[removed]", verdict.verdict_id)
    assert verdict.policy is not None
    assert (verdict.tenant_id, verdict.policy.version, verdict.rules) == ("acme", 3, rules)
    assert "BOMB" not in "".join(v.model_dump_json() for v, _ in site.published)
