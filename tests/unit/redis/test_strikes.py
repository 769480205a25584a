"""Authors' strikes on a real Valkey: what is stored, for how long, and that nothing depends on Redis."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from schemas.policy import Policy, Strikes
from tests.shown import shown
from tests.site import Site
from tests.unit.redis.test_dedup import event_at
from workers.core.keys import TAGS, StrikeKeys
from workers.core.records import Event
from workers.policy.policy import CompiledPolicy, default_strict
from workers.policy.strikes import MAX_CONTRIBUTIONS, CompiledStrikes, Contribution, Standing
from workers.redis.strikes import Author, StoredStrikes, StrikeLookups

HOUR_MS = 3_600_000
AUTHOR = Author("acme", "u-17")
ASKING = CompiledPolicy(
    Policy.model_validate(
        {"id": "acme", "strikes": {}, "rules": [{"severity": "Safe", "min_strikes": 2, "decision": "block"}]}
    )
)


@pytest.fixture
async def redis(site: Site) -> AsyncIterator[Redis]:
    client = Redis.from_url(site.environment["GUARDLINE_REDIS__URL"], socket_timeout=0.5)
    yield client
    await client.aclose()


@pytest.fixture
def namespace(site: Site) -> str:
    return site.settings().redis.namespace


@pytest.fixture
def stored(redis: Redis, namespace: str) -> StoredStrikes:
    return StoredStrikes(redis, namespace=namespace, secret="s")


def now_ms() -> int:
    return int(time.time() * 1_000)


def standing_of(*weights: float, age_ms: int = 0, **rules: Any) -> Standing:
    strikes, at_ms = CompiledStrikes(Strikes.model_validate(rules)), now_ms() - age_ms
    held = [Contribution(str(number), at_ms, weight) for number, weight in enumerate(weights)]
    return strikes.standing(held, now_ms())


async def test_what_is_written_is_read_by_tenant_and_author(stored: StoredStrikes) -> None:
    one, other = standing_of(1, 2), standing_of(4, half_life_hours=5)
    await stored.write({AUTHOR: one, Author("other", "u-17"): other})
    found = await stored.read([AUTHOR, Author("acme", "u-18"), Author("other", "u-17")])
    assert [standing and standing.value(now_ms()) for standing in found] == [3, 0, pytest.approx(4, abs=0.01)]
    assert (found[0], found[2]) == (one, other)


async def test_an_entry_ends_with_the_last_strike(stored: StoredStrikes, redis: Redis, namespace: str) -> None:
    await stored.write(
        {AUTHOR: standing_of(1, window_hours=2), Author("acme", "fading"): standing_of(1, half_life_hours=2)}
    )
    keys = StrikeKeys(namespace, secret="s")
    assert 7_190 < await redis.ttl(keys.of(*AUTHOR)) <= 7_200
    assert 71_990 < await redis.ttl(keys.of("acme", "fading")) <= 72_000


async def test_an_author_without_strikes_left_has_no_entry(stored: StoredStrikes, redis: Redis, namespace: str) -> None:
    await stored.write({AUTHOR: standing_of(1)})
    await stored.write({AUTHOR: standing_of()})
    assert await redis.keys(f"{namespace}:*") == []


async def test_many_authors_without_strikes_left_lose_their_entries_with_one_command(
    stored: StoredStrikes, redis: Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as authors whom requests to forget name. Their keys have different hash tags."""
    authors = [Author("acme", f"author-{number}") for number in range(200)]
    await stored.write({**dict.fromkeys(authors, standing_of(1)), AUTHOR: standing_of(2)})
    assert len(await redis.keys(f"{namespace}:strikes:*")) == 201
    commands: list[str] = []
    execute: Any = redis.execute_command

    async def noting(*arguments: Any, **named: Any) -> Any:
        commands.append(str(arguments[0]))
        return await execute(*arguments, **named)

    monkeypatch.setattr(redis, "execute_command", noting)
    await stored.write({**dict.fromkeys(authors, standing_of()), Author("acme", "new"): standing_of()})
    assert commands == ["DEL"]
    assert len(await redis.keys(f"{namespace}:strikes:*")) == 1


async def test_a_deletion_says_whether_there_was_an_entry(stored: StoredStrikes) -> None:
    await stored.write({AUTHOR: standing_of(1)})
    assert [await stored.delete(AUTHOR), await stored.delete(AUTHOR)] == [True, False]


async def test_an_entry_holds_no_id_and_is_small(stored: StoredStrikes, redis: Redis, namespace: str) -> None:
    strikes = CompiledStrikes(Strikes(window_hours=8_784))
    step_ms = strikes.decay.lasts_ms // (MAX_CONTRIBUTIONS + 1)
    held = [Contribution(str(age), now_ms() - age * step_ms, math.pi * 100) for age in range(MAX_CONTRIBUTIONS)]
    await stored.write({AUTHOR: strikes.standing(held, now_ms())})
    (key,) = await redis.keys(f"{namespace}:strikes:*")
    assert b"acme" not in key
    assert b"u-17" not in key
    assert 100 < await redis.strlen(key) < 1_200


@pytest.mark.parametrize(
    "entry",
    [b"", b"\xff", b"3", b"{}", b'{"decay":{"window_ms":1,"half_life_ms":null},"steps":[["now",1]]}', b"[" * 5_000]
    + [
        msgspec.json.encode({"decay": {"window_ms": 9, "half_life_ms": None}, "steps": [[1, weight]]})
        for weight in (-1, None)
    ]
    + [msgspec.json.encode({"decay": {"window_ms": 9, "half_life_ms": None}, "steps": [[1, 1]] * 33})],
)
async def test_an_invalid_entry_is_unknown_and_not_a_number(
    stored: StoredStrikes, redis: Redis, namespace: str, entry: bytes
) -> None:
    await redis.set(StrikeKeys(namespace, secret="s").of(*AUTHOR), entry)
    assert await stored.read([AUTHOR]) == [None]


def test_a_key_depends_on_namespace_secret_tenant_and_author_and_the_keys_spread() -> None:
    keys = StrikeKeys("n", secret="s")
    others = {
        StrikeKeys("m", secret="s").of("a", "b"),
        StrikeKeys("n", secret="t").of("a", "b"),
        keys.of("a", "c"),
        keys.of("b", "b"),
        keys.of("a", "b"),
    }
    assert len(others) == 5
    tags = {keys.of("a", str(number)).partition(b"{")[2][:2] for number in range(2_000)}
    assert len(tags) == TAGS


class TestLookUps:
    async def looked_up(
        self, redis: Redis, namespace: str, *events: Event, **policies: CompiledPolicy
    ) -> list[float | None]:
        lookups = StrikeLookups(redis, namespace=namespace, secret="s")
        await lookups.look_up(events, policies, default_strict())
        return [event.strikes for event in events]

    async def test_each_event_of_a_tenant_that_asks_gets_the_strikes_of_its_author(
        self, redis: Redis, namespace: str, stored: StoredStrikes
    ) -> None:
        await stored.write({AUTHOR: standing_of(1, 1.5), Author("other", "u-17"): standing_of(9)})
        before = shown("guardline_strikes_looked_up_total", result="known")
        events = [
            event_at(0, author_id="u-17"),
            event_at(1, author_id="new"),
            event_at(2),
            event_at(3, author_id="u-17"),
            event_at(4, author_id="u-17", tenant_id="other"),
        ]
        assert await self.looked_up(redis, namespace, *events, acme=ASKING) == [2.5, 0, None, 2.5, None]
        assert shown("guardline_strikes_looked_up_total", result="known") - before == 3

    async def test_the_default_policy_may_ask_too(self, redis: Redis, namespace: str, stored: StoredStrikes) -> None:
        await stored.write({AUTHOR: standing_of(2)})
        event = event_at(0, author_id="u-17")
        await StrikeLookups(redis, namespace=namespace, secret="s").look_up([event], {}, ASKING)
        assert event.strikes == 2

    async def test_redis_is_not_called_if_no_policy_asks(self, namespace: str) -> None:
        """The client leads nowhere: a call would fail, and be counted."""
        before = shown("guardline_failed_attempts_total", at="redis")
        async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
            assert await self.looked_up(nowhere, namespace, event_at(0, author_id="u-17")) == [None]
        assert shown("guardline_failed_attempts_total", at="redis") == before

    async def test_without_redis_the_strikes_are_unknown_and_one_call_fails_for_many(self, namespace: str) -> None:
        failed = shown("guardline_failed_attempts_total", at="redis")
        unknown = shown("guardline_strikes_looked_up_total", result="unknown")
        async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere:
            lookups = StrikeLookups(nowhere, namespace=namespace, secret="s")
            for offset in range(3):
                event = event_at(offset, author_id="u-17")
                await lookups.look_up([event], {"acme": ASKING}, default_strict())
                assert event.strikes is None
        assert shown("guardline_failed_attempts_total", at="redis") - failed == 1
        assert shown("guardline_strikes_looked_up_total", result="unknown") - unknown == 3

    async def test_an_invalid_entry_leaves_the_strikes_of_the_others(
        self, redis: Redis, namespace: str, stored: StoredStrikes
    ) -> None:
        await stored.write({AUTHOR: standing_of(2)})
        await redis.set(StrikeKeys(namespace, secret="s").of("acme", "broken"), b"three")
        events = [event_at(0, author_id="broken"), event_at(1, author_id="u-17")]
        assert await self.looked_up(redis, namespace, *events, acme=ASKING) == [None, 2]
