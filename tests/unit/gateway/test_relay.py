"""What leaves a relay, for any division of an answer into deltas and of its events into portions of bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.policy import HoldBack, StreamPolicy
from tests.scripted_streams import ScriptedEngine
from tests.servers.model_server import DONE, chunk
from tests.unit.gateway.words import WordGuard
from workers.gateway.choice import Choice
from workers.gateway.guarding import LiveGuard, Ruling, Session
from workers.gateway.relay import Relay
from workers.gateway.upstream import ModelServer
from workers.guard.tokens import Tokens
from workers.live.guard import LiveGuard as RealGuard
from workers.settings.upstream_sections import Proxy, Upstream

WORDS = st.lists(st.sampled_from(["one ", "two. ", "three", "\n\n", "BOMB ", "BOMB. ", "\ud83d", "é"]), max_size=14)
HOLD_BACKS = st.one_of(
    st.builds(HoldBack, until=st.just("tokens"), tokens=st.integers(0, 3)),
    st.sampled_from([HoldBack(until="sentence"), HoldBack(until="all")]),
)


class Portions:
    """A model server of which only the bytes of one stream matter."""

    def __init__(self, portions: Sequence[bytes]) -> None:
        self._portions = portions

    async def chunks(self, _: object) -> AsyncIterator[bytes]:
        for portion in self._portions:
            await asyncio.sleep(0)
            yield portion


class Noted:
    """A session that notes what its rulings permit to show, and is slow for some calls."""

    def __init__(self, session: Session, waits: Sequence[int]) -> None:
        self.session = session
        self.permitted = 0
        self._waits = list(waits)

    async def user(self, content: str, *, earlier: Sequence[tuple[str, str]]) -> Ruling:
        return await self.session.user(content, earlier=earlier)

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


async def relayed(
    guard: LiveGuard, portions: Sequence[bytes], policy: StreamPolicy, waits: Sequence[int]
) -> tuple[str, str | None]:
    """Relay a stream, and give its text and its end. Fails if a text leaves before its ruling permits it."""
    session = Noted(guard.open(policy), waits)
    choice = Choice("chat", 0, session)
    server = cast(ModelServer, Portions(portions))
    relay = Relay("chat", [choice], server, httpx.Response(200), Proxy(), Upstream(), policy, 0)
    text, end = "", None
    relay._out = cast(Any, Watched(session))
    async for data in relay.events():
        for line in data.decode().split("\n\n"):
            assert "error" not in line
            if line.startswith("data: {"):
                found = json.loads(line.removeprefix("data: "))["choices"][0]
                text += found["delta"].get("content", "")
                end = found["finish_reason"] or end
    await relay.close()
    await choice.close()
    return text, end


class Watched(asyncio.Queue[bytes | None]):
    """The queue of a relay, which checks each text at the moment at which it leaves."""

    def __init__(self, session: Noted) -> None:
        super().__init__(4)
        self._session = session
        self._shown = 0

    async def put(self, item: bytes | None) -> None:
        if item is not None and item.startswith(b"data: {") and b'"choices"' in item:
            fields = json.loads(item.removeprefix(b"data: "))["choices"][0]
            self._shown += len(fields["delta"].get("content", ""))
            assert self._shown <= self._session.permitted
        await super().put(item)


async def check(guard: LiveGuard, text: str, policy: StreamPolicy, data: st.DataObject) -> None:
    """Compare the outcome of any division with that of a single delta."""
    ended = [chunk(0, "stop"), DONE]
    expected = await relayed(guard, [chunk(content=text) + b"".join(ended)], policy, [])
    deltas = divided(text, data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    events = b"".join([*(chunk(content=delta) for delta in deltas), *ended])
    portions = divided(events, data.draw(st.lists(st.integers(0, len(events)), max_size=10)))
    waits = data.draw(st.lists(st.integers(0, 5), max_size=10))

    shown, end = await relayed(guard, portions, policy, waits)

    assert (shown, end) == expected
    assert text.startswith(shown)
    assert end == "content_filter" or shown == text


@settings(max_examples=80)
@given(words=WORDS, hold_back=HOLD_BACKS, data=st.data())
async def test_nothing_leaves_before_it_is_judged_and_no_division_changes_what_is_shown(
    words: list[str], hold_back: HoldBack, data: st.DataObject
) -> None:
    await check(WordGuard(), "".join(words), StreamPolicy(hold_back=hold_back), data)


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


REAL = RealGuard(ScriptedEngine(by_word), FOLDER, max_tokens=256, anchor_tokens=32, append_within_s=10)


@settings(max_examples=40)
@given(
    words=st.lists(
        st.sampled_from(["I", " will", " kill", " you", ".", " kilo", "\n", " 你好", "e\u0301"]), max_size=14
    ),
    hold_back=HOLD_BACKS,
    data=st.data(),
)
async def test_with_the_tokens_of_a_real_guard_no_division_changes_what_is_shown(
    words: list[str], hold_back: HoldBack, data: st.DataObject
) -> None:
    await REAL.start()
    await check(REAL, "".join(words), StreamPolicy(hold_back=hold_back), data)
