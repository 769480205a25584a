"""Notes in Redis of what is at the engine, so that a prompt that kills the worker is found and judged no more.

A worker that dies leaves its notes; the others, or the next one with its id, read from them what was at the engine.
A worker that is silent for `ALIVE_TTL_S`, frozen or cut off from Redis, counts as dead: nobody can tell the difference.
Best effort: without Redis nothing is noted and the work goes on. It must never decide that content is allowed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import count

import structlog
from redis.asyncio import Redis

from workers.errors import Misconfigured, Unavailable
from workers.redis.breaker import Breaker

log = structlog.get_logger(__name__)

SUSPECT = 2
"""Deaths after which content is judged alone. One says little: by default a thousand events are at the engine."""

UNJUDGEABLE = 3
"""Content that was alone at the engine when the worker died. Company never brings anything further than `SUSPECT`:
in a quick succession of deaths the neighbours would be condemned with the culprit."""

BEAT_S = 1.0
ALIVE_TTL_S = 5
"""A worker that was silent for so long is dead. Below the 6 s that brokers allow as the shortest session, so that a
death is counted before its partitions, and the culprit with them, come to another worker."""

MAX_DEATHS = 8_192
"""Contents whose deaths are remembered; past it all are forgotten, and found again by further deaths."""

MAX_ENDED = 1_024
"""Notes to take back that Redis did not hear of; past it they are left, and count as one death when the worker ends."""

DIGEST_BYTES = 16
"""A content key ends in its digest; the prefix is the same for all and is not noted."""

IN_COMPANY, ALONE = b"c", b"a"
"""What a note begins with; the digests follow."""

BEAT = """
local notes, deaths, alive = KEYS[1], KEYS[2], KEYS[3]
local session, former, alive_ttl, deaths_ttl, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local suspect, unjudgeable, bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
redis.call('SET', alive .. session, '', 'EX', alive_ttl)
local is_dead, is_counted, counted = {}, {}, 0
for _, field in ipairs(redis.call('HKEYS', notes)) do
  local owner = string.match(field, '^(.*)/')
  if is_dead[owner] == nil then
    is_dead[owner] = owner ~= session
      and (string.match(owner, '^(.*):') == former or redis.call('EXISTS', alive .. owner) == 0)
  end
  if is_dead[owner] then
    local note = redis.call('HGET', notes, field)
    redis.call('HDEL', notes, field)
    local is_alone = string.sub(note, 1, 1) == 'a'
    for at = 2, #note, bytes do
      local digest = string.sub(note, at, at + bytes - 1)
      if not is_counted[owner .. digest] then
        is_counted[owner .. digest] = true
        if counted == 0 and redis.call('HLEN', deaths) > most then redis.call('DEL', deaths) end
        counted = counted + 1
        local before = tonumber(redis.call('HGET', deaths, digest) or 0) or 0
        local now = is_alone and unjudgeable or math.max(before, math.min(before + 1, suspect))
        redis.call('HSET', deaths, digest, now)
      end
    end
  end
end
redis.call('EXPIRE', notes, deaths_ttl)
if counted > 0 then redis.call('EXPIRE', deaths, deaths_ttl) end
return {counted, redis.call('HGETALL', deaths)}
"""


class Deaths:
    """One worker's notes, and the deaths that the notes of all workers tell of.

    Guarantee: each death counts once for each content. No call raises for Redis or waits longer than `redis.timeout_s`
    for it, and after a failed call notes are left out for `breaker.RETRY_AFTER_S`. A death is remembered for
    `deaths_ttl_s`.
    """

    def __init__(self, redis: Redis, *, namespace: str, worker_id: str, deaths_ttl_s: int) -> None:
        self._redis = redis
        self._worker_id = worker_id
        self._session = f"{worker_id}:{secrets.token_hex(8)}"
        self._notes = f"{namespace}:at-engine"
        self._alive = f"{namespace}:alive:"
        self._keys = [self._notes, f"{namespace}:deaths", self._alive]
        self._deaths_ttl_s = deaths_ttl_s
        self._beat_script = redis.register_script(BEAT)
        self._deaths: dict[bytes, int] = {}
        self._numbers = count()
        self._open: set[str] = set()
        self._ended: set[str] = set()
        self._has_engine_died = False
        self._breaker = Breaker("what is at the engine is not noted")
        self._beating: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether the last call was answered: the sign of life asks each second, whatever else is done."""
        return self._breaker.is_up

    async def start(self) -> None:
        """Read what former workers died of, and go on doing so. Call it before anything is judged."""
        # A worker of the same id is gone, or will be fenced: no need to wait until its sign of life has expired.
        await self._beat(former=self._worker_id)
        self._beating = asyncio.get_running_loop().create_task(self._beat_for_ever())

    async def watch(self) -> None:
        """Wait for as long as the sign of life is given. Raises what ended that: others would see a death."""
        if self._beating is not None:
            await asyncio.shield(self._beating)

    async def close(self) -> None:
        """Take the notes back, unless the engine died: then the next worker has to see them."""
        if self._beating is not None:
            self._beating.cancel()
        if not self._has_engine_died and (noted := self._open | self._ended):
            await self._breaker.ask(self._redis.hdel, self._notes, *noted)
        await self._breaker.ask(self._redis.delete, self._alive + self._session)

    def suspects(self, keys: Iterable[bytes]) -> set[bytes]:
        """Give those of the contents that must be judged alone, if at all."""
        if not self._deaths:
            return set()
        return {key for key in keys if self._deaths.get(key[-DIGEST_BYTES:], 0) >= SUSPECT}

    def is_unjudgeable(self, key: bytes) -> bool:
        """Whether the content was alone at the engine when a worker died."""
        return self._deaths.get(key[-DIGEST_BYTES:], 0) >= UNJUDGEABLE

    @asynccontextmanager
    async def noted(self, keys: Sequence[bytes], *, is_alone: bool = False) -> AsyncIterator[None]:
        """Note the contents for as long as the block lasts. `is_alone`: nothing else is at the engine.

        A block that raises anything but Unavailable or Misconfigured is the engine's death, and leaves its note. A key
        that all servers refuse is Misconfigured: the worker ends, and no content is to blame.
        """
        field = f"{self._session}/{next(self._numbers)}"
        note = (ALONE if is_alone else IN_COMPANY) + b"".join([key[-DIGEST_BYTES:] for key in keys])
        self._open.add(field)
        await self._breaker.ask(self._redis.hset, self._notes, field, note)
        try:
            yield
        except (Unavailable, Misconfigured):
            await self._take_back(field)
            raise
        except Exception:
            self._has_engine_died = True
            raise
        await self._take_back(field)

    async def absolve(self, key: bytes) -> None:
        """Forget the deaths of content that was judged alone: it was only in bad company."""
        digest = key[-DIGEST_BYTES:]
        if self._deaths.pop(digest, None) is not None:
            await self._breaker.ask(self._redis.hdel, self._keys[1], digest)

    async def _take_back(self, field: str) -> None:
        # What Redis did not hear of is said again with the next one: a note must not outlive its judgement.
        self._open.discard(field)
        if len(self._ended) >= MAX_ENDED:
            self._ended.clear()
        self._ended.add(field)
        ended = frozenset(self._ended)
        if await self._breaker.ask(self._redis.hdel, self._notes, *ended) is not None:
            self._ended -= ended

    async def _beat(self, former: str = "") -> None:
        arguments = [ALIVE_TTL_S, self._deaths_ttl_s, MAX_DEATHS, SUSPECT, UNJUDGEABLE, DIGEST_BYTES]
        answer = await self._breaker.ask(self._beat_script, self._keys, [self._session, former, *arguments])
        if answer is None:
            return
        counted, flat = answer
        self._deaths = {digest: _number(deaths) for digest, deaths in zip(flat[::2], flat[1::2], strict=True)}
        if counted:
            log.warning("a worker died while it judged: what was at the engine is watched", contents=counted)

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._beat()


def _number(stored: bytes) -> int:
    """Read a number of deaths. What is none says nothing; it must not end the sign of life."""
    try:
        return int(stored)
    except ValueError:
        return 0
