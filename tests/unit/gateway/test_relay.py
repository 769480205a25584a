"""What leaves a relay, for any division of an answer into deltas and of its events into portions of bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.policy import HoldBack, StreamPolicy
from tests.scripted_streams import ScriptedEngine
from tests.servers.model_server import DONE, chunk
from tests.unit.gateway.words import WordGuard
from workers.gateway.choice import Choice
from workers.gateway.guarding import LiveGuard, Ruling, Session
from workers.gateway.relay import Relay
from workers.gateway.rollback import Rollback
from workers.gateway.turns import Prompt
from workers.gateway.upstream import ModelServer
from workers.guard.tokens import Tokens
from workers.live.guard import LiveGuard as RealGuard
from workers.settings.upstream_sections import Proxy, Upstream

WORDS = st.lists(st.sampled_from(["one ", "two. ", "three", "\n\n", "BOMB ", "BOMB. ", "\ud83d", "é"]), max_size=14)
HOLD_BACKS = st.one_of(
    st.builds(HoldBack, until=st.just("tokens"), tokens=st.integers(0, 3)),
    st.sampled_from([HoldBack(until="sentence"), HoldBack(until="all")]),
)


Draw = Callable[[st.SearchStrategy[Any]], Any]


class Portions:
    """A model server, and its answer, of which only the bytes of one stream matter."""

    def __init__(self, portions: Sequence[bytes]) -> None:
        self._portions = portions

    async def chunks(self, response: object) -> AsyncIterator[bytes]:
        assert isinstance(response, Portions)
        for portion in response._portions:
            await asyncio.sleep(0)
            yield portion

    async def aclose(self) -> None:
        self._portions = []


class Noted:
    """A session that notes what its rulings permit to show, and is slow for some calls."""

    def __init__(self, session: Session, waits: Sequence[int]) -> None:
        self.session = session
        self.permitted = 0
        self.begun = 0
        """The characters of the answer that the client had seen before."""
        self._waits = list(waits)

    async def user(self, content: str, *, earlier: Sequence[tuple[str, str]]) -> Ruling:
        return await self._noted(await self.session.user(content, earlier=earlier))

    async def delta(self, content: str) -> Ruling:
        return await self._noted(await self.session.delta(content))

    async def finish(self) -> Ruling:
        return await self._noted(await self.session.finish())

    async def close(self) -> None:
        await self.session.close()

    async def _noted(self, ruling: Ruling) -> Ruling:
        for _ in range(self._waits.pop() if self._waits else 0):
            await asyncio.sleep(0)
        self.permitted = ruling.shown_chars
        return ruling


def divided(text: str | bytes, at: Sequence[int]) -> list[Any]:
    borders = sorted({min(position, len(text)) for position in at})
    return [text[begin:end] for begin, end in zip([0, *borders], [*borders, len(text)], strict=True)]


class Client:
    """What a client gets. Fails if a text leaves before the ruling on it permits that."""

    def __init__(self, guard: LiveGuard, policy: StreamPolicy, draw: Draw) -> None:
        self._guard = guard
        self._policy = policy
        self._draw = draw
        self._session: Noted
        self._shown_before = 0
        self.shown = 0

    def attempt(self, text: str, begun: int = 0) -> tuple[Choice, Portions]:
        """Give a choice, and a model server that writes this text in any deltas."""
        self._session = Noted(self._guard.open(self._policy), self._draw(st.lists(st.integers(0, 5), max_size=10)))
        self._session.begun = begun
        self._shown_before = self.shown
        deltas = self._divided(text)
        ended = [chunk(0, "stop"), DONE]
        return Choice("chat", 0, self._session), Portions(
            self._divided(b"".join([chunk(role="assistant"), *(chunk(content=delta) for delta in deltas), *ended]))
        )

    def sees(self, text: str) -> None:
        self.shown += len(text)
        assert self.shown - self._shown_before <= max(0, self._session.permitted - self._session.begun)

    def _divided(self, text: str | bytes) -> list[Any]:
        return divided(text, self._draw(st.lists(st.integers(0, len(text)), max_size=10)))


async def relayed(
    guard: LiveGuard, texts: Sequence[str], policy: StreamPolicy, draw: Draw
) -> tuple[str, str | None, int]:
    """Relay a stream. `texts`: what the model server writes at first, and where it is asked again.

    Returns the text that leaves, its end, and how often the model server was asked.
    """
    client = Client(guard, policy, draw)
    left = list(texts[1:])

    async def ask(body: dict[str, Any], shown: str) -> Any:
        white = shown[len(shown.rstrip()) :]
        choice, portions = client.attempt(white + left.pop(0), begun=len(shown))
        await choice.prompt(Prompt("hello", begun=shown))
        return choice, portions

    choice, portions = client.attempt(texts[0])
    body = {"messages": [{"role": "user", "content": "hello"}]}
    rollback = Rollback("chat", body, len(left), ask, continues_chats=True)
    relay = Relay("chat", [choice], cast(ModelServer, portions), portions, Proxy(), Upstream(), policy, 0, rollback)  # type: ignore[arg-type]
    text, end = "", None
    relay._out = cast(Any, Watched(client))
    async for data in relay.events():
        for line in data.decode().split("\n\n"):
            assert "error" not in line
            if line.startswith("data: {"):
                found = json.loads(line.removeprefix("data: "))["choices"][0]
                text += found["delta"].get("content", "")
                end = found["finish_reason"] or end
    await relay.close()
    return text, end, len(texts) - len(left)


class Watched(asyncio.Queue[bytes | None]):
    """The queue of a relay, which checks each text at the moment at which it leaves."""

    def __init__(self, client: Client) -> None:
        super().__init__(4)
        self._client = client

    async def put(self, item: bytes | None) -> None:
        if item is not None and item.startswith(b"data: {") and b'"choices"' in item:
            fields = json.loads(item.removeprefix(b"data: "))["choices"][0]
            self._client.sees(fields["delta"].get("content", ""))
        await super().put(item)


async def check(guard: LiveGuard, texts: Sequence[str], policy: StreamPolicy, data: st.DataObject) -> None:
    """Compare the outcome of any division with that of a single delta."""
    expected = await relayed(guard, texts, policy, lambda _: [])

    found = await relayed(guard, texts, policy, data.draw)

    assert found == expected
    shown, end, asked = found
    if asked == 1:
        assert texts[0].startswith(shown)
    assert end == "content_filter" or shown.endswith(texts[asked - 1])
    assert end == "stop" or asked == len(texts)


@settings(max_examples=80)
@given(texts=st.lists(WORDS.map("".join), min_size=1, max_size=3), hold_back=HOLD_BACKS, data=st.data())
async def test_nothing_leaves_before_it_is_judged_and_no_division_changes_what_is_shown(
    texts: list[str], hold_back: HoldBack, data: st.DataObject
) -> None:
    """Also not while the model server is asked again for what was cut."""
    await check(WordGuard(), texts, StreamPolicy(hold_back=hold_back), data)


FOLDER = Path(str(files("infra.nano") / "checkpoint" / "hf"))
KILL = set(Tokens(FOLDER).content([" kill"])[0])


def by_word(ids: list[int]) -> Sequence[float]:
    """Find the token of a bad word, and the one after it."""
    return (0.1, 0.2, 0.7) if KILL & set(ids[-2:]) else (0.9, 0.06, 0.04)


class Hanging(Portions):
    """A model server that says nothing."""

    async def chunks(self, _: object) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""


async def test_a_drain_ends_a_stream_that_has_not_begun() -> None:
    policy = StreamPolicy()
    choice = Choice("chat", 0, WordGuard().open(policy))
    server = cast(ModelServer, Hanging([]))
    relay = Relay("chat", [choice], server, httpx.Response(200), Proxy(), Upstream(), policy, 0)

    relay.stop()
    async with asyncio.timeout(20):
        events = b"".join([data async for data in relay.events()])

    assert b"draining" in events


class Slow(asyncio.Queue[bytes | None]):
    """The queue of a relay whose client reads nothing until `reads` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Event()

    async def put(self, item: bytes | None) -> None:
        await self.reads.wait()
        await super().put(item)


async def to_a_slow_client(answer: Sequence[bytes], policy: StreamPolicy) -> tuple[str, list[str | None]]:
    """Relay an answer to a client that reads once the model server has said everything. Gives text and ends."""
    choice, portions = Choice("chat", 0, WordGuard().open(policy)), Portions(answer)
    relay = Relay("chat", [choice], cast(ModelServer, portions), portions, Proxy(), Upstream(), policy, 0)  # type: ignore[arg-type]
    queue = Slow()
    relay._out = cast(Any, queue)
    async with asyncio.timeout(20):
        reading = asyncio.create_task(read_all(relay))
        while relay._reader is None or not relay._reader.done():  # noqa: ASYNC110  # A task that does not exist yet.
            await asyncio.sleep(0)
        queue.reads.set()
        return await reading


async def read_all(relay: Relay) -> tuple[str, list[str | None]]:
    text = ""
    ends: list[str | None] = []
    for line in b"".join([data async for data in relay.events()]).decode().split("\n\n"):
        if line.startswith("data: {"):
            found = json.loads(line.removeprefix("data: "))
            if "error" in found:
                ends.append(found["error"]["code"])
            else:
                text += found["choices"][0]["delta"].get("content", "")
                ends += [end] if (end := found["choices"][0]["finish_reason"]) else []
    return text, ends


async def test_text_that_comes_while_a_client_does_not_take_the_role_is_judged_and_shown() -> None:
    answer = [chunk(role="assistant"), chunk(content="one two"), chunk(0, "stop"), DONE]

    assert await to_a_slow_client(answer, StreamPolicy()) == ("one two", ["stop"])


async def test_text_that_comes_while_a_client_does_not_take_the_role_may_be_cut() -> None:
    answer = [chunk(role="assistant"), chunk(content="one BOMB BOMB two"), chunk(0, "stop"), DONE]

    _, ends = await to_a_slow_client(answer, StreamPolicy())

    assert ends == ["content_filter"]


async def test_a_model_server_that_fails_after_a_cut_does_not_matter() -> None:
    answer = [chunk(content="BOMB BOMB one two "), b"data: no JSON\n\n"]

    _, ends = await to_a_slow_client(answer, StreamPolicy())

    assert ends == ["content_filter"]


async def test_a_further_attempt_that_takes_too_long_leaves_the_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = StreamPolicy()
    choice = Choice("chat", 0, WordGuard().open(policy))
    portions = Portions([chunk(role="assistant"), chunk(content="one BOMB BOMB two "), chunk(0, "stop"), DONE])
    loop, asked = asyncio.get_running_loop(), False

    async def ask(*_: object) -> Any:
        nonlocal asked
        asked, now = True, loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + 2 * Upstream().answer_s)
        await asyncio.Event().wait()

    rollback = Rollback("chat", {"messages": [{"role": "user", "content": "hi"}]}, 1, ask, continues_chats=True)
    relay = Relay("chat", [choice], cast(ModelServer, portions), portions, Proxy(), Upstream(), policy, 0, rollback)  # type: ignore[arg-type]

    _, ends = await read_all(relay)

    assert (asked, ends) == (True, ["content_filter"])


async def test_a_gateway_that_ends_does_not_ask_again_for_what_was_cut() -> None:
    policy = StreamPolicy()
    choice = Choice("chat", 0, WordGuard().open(policy))
    portions = Portions([chunk(content="one BOMB BOMB two "), chunk(0, "stop"), DONE])
    asked: list[dict[str, Any]] = []

    async def ask(body: dict[str, Any], _: str) -> Any:
        asked.append(body)
        await asyncio.Event().wait()

    rollback = Rollback("chat", {"messages": [{"role": "user", "content": "hi"}]}, 1, ask, continues_chats=True)
    relay = Relay("chat", [choice], cast(ModelServer, portions), portions, Proxy(), Upstream(), policy, 0, rollback)  # type: ignore[arg-type]
    close = choice.close

    async def close_while_the_gateway_ends() -> None:
        await close()
        relay.stop()

    choice.close = close_while_the_gateway_ends  # type: ignore[method-assign]
    async with asyncio.timeout(20):
        _, ends = await read_all(relay)

    assert (asked, ends) == ([], ["draining"])


REAL = RealGuard(ScriptedEngine(by_word), FOLDER, max_tokens=256, anchor_tokens=32, append_within_s=10)


@settings(max_examples=40)
@given(
    texts=st.lists(
        st.lists(
            st.sampled_from(["I", " will", " kill", " you", ".", " kilo", "\n", " 你好", "e\u0301"]), max_size=14
        ).map("".join),
        min_size=1,
        max_size=2,
    ),
    hold_back=HOLD_BACKS,
    data=st.data(),
)
async def test_with_the_tokens_of_a_real_guard_no_division_changes_what_is_shown(
    texts: list[str], hold_back: HoldBack, data: st.DataObject
) -> None:
    await REAL.start()
    await check(REAL, texts, StreamPolicy(hold_back=hold_back), data)
