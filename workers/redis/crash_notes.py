"""Notes in Redis what is at the engine, so that a prompt that crashes the worker is found and not judged again.

A worker that crashes leaves its notes. The others, or the next one with its id, read from them what was at the engine.
A worker without a heartbeat for `ALIVE_TTL_S`, frozen or cut off from Redis, counts as crashed, because the others
cannot see the difference. Best effort: without Redis there are no notes, and the work continues. It must never decide
that content is allowed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import count

import structlog

from workers.errors import Misconfigured, Unavailable
from workers.redis.breaker import Breaker
from workers.redis.client import Client

log = structlog.get_logger(__name__)

SUSPECT = 2
"""Crashes after which content is judged alone. One crash says little: by default a thousand events are at the
engine."""

UNJUDGEABLE = 3
"""Content that was alone at the engine when the worker crashed. Crashes with other content count up to `SUSPECT` only:
otherwise a few quick crashes would exclude innocent content too."""

BEAT_S = 1.0
ALIVE_TTL_S = 5
"""A worker without a heartbeat for this time counts as crashed. It is below 6 s, the shortest session that brokers
allow by default, so that a crash is counted before another worker gets the partitions and the same content."""

MAX_CRASHES = 8_192
"""Contents whose crashes are stored. Beyond that all are dropped, and further crashes find them again."""

MAX_ENDED = 1_024
"""Notes whose removal failed. Beyond that they stay, and count as one crash when the worker ends."""

DIGEST_BYTES = 16
"""A content key ends in its digest. The prefix is the same for all keys and is not noted."""

IN_COMPANY, ALONE = b"c", b"a"
"""The first byte of a note; the digests follow."""

BEAT = """
local notes, crashes, alive = KEYS[1], KEYS[2], KEYS[3]
local session, former, alive_ttl, crashes_ttl, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
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
        if counted == 0 and redis.call('HLEN', crashes) > most then redis.call('DEL', crashes) end
        counted = counted + 1
        local before = tonumber(redis.call('HGET', crashes, digest) or 0) or 0
        local now = is_alone and unjudgeable or math.max(before, math.min(before + 1, suspect))
        redis.call('HSET', crashes, digest, now)
      end
    end
  end
end
redis.call('EXPIRE', notes, crashes_ttl)
if counted > 0 then redis.call('EXPIRE', crashes, crashes_ttl) end
return {counted, redis.call('HGETALL', crashes)}
"""


class CrashNotes:
    """One worker's notes, and the crashes that the notes of all workers show.

    Guarantee: each crash counts once for each content. No call raises an error of Redis or waits longer than
    `redis.timeout_s` for it. After a failed call no notes are written for `breaker.RETRY_AFTER_S`. A crash is stored
    for `crashes_ttl_s`.
    """

    def __init__(self, redis: Client, *, namespace: str, worker_id: str, crashes_ttl_s: int) -> None:
        self._redis = redis
        self._worker_id = worker_id
        self._session = f"{worker_id}:{secrets.token_hex(8)}"
        # On a cluster the tag in braces keeps all keys of the script in one slot.
        keys = f"{namespace}:{{crashes}}"
        self._notes = f"{keys}:at-engine"
        self._alive = f"{keys}:alive:"
        self._keys = [self._notes, keys, self._alive]
        self._crashes_ttl_s = crashes_ttl_s
        self._beat_script = redis.register_script(BEAT)
        self._crashes: dict[bytes, int] = {}
        self._numbers = count()
        self._open: set[str] = set()
        self._ended: set[str] = set()
        self._has_engine_died = False
        self._breaker = Breaker("redis_notes", "what is at the engine is not noted")
        self._beating: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether the last call was answered. The heartbeat makes a call every second, also without other work."""
        return self._breaker.is_up

    async def start(self) -> None:
        """Count the crashes of former workers, and keep doing so. Call it before the first judgement."""
        # An older worker with the same id has ended, or will be fenced: do not wait until its heartbeat has expired.
        await self._beat(former=self._worker_id)
        self._beating = asyncio.get_running_loop().create_task(self._beat_for_ever())

    async def watch(self) -> None:
        """Wait as long as the heartbeat runs. Raises the error that ended it: the others would see a crash."""
        if self._beating is not None:
            await asyncio.shield(self._beating)

    async def close(self) -> None:
        """Remove the notes, unless the engine crashed: then the next worker has to see them."""
        if self._beating is not None:
            self._beating.cancel()
        if not self._has_engine_died and (noted := self._open | self._ended):
            await self._breaker.ask(self._redis.hdel, self._notes, *noted)
        await self._breaker.ask(self._redis.delete, self._alive + self._session)

    def suspects(self, keys: Iterable[bytes]) -> set[bytes]:
        """Return the contents that must be judged alone, or not at all."""
        if not self._crashes:
            return set()
        return {key for key in keys if self._crashes.get(key[-DIGEST_BYTES:], 0) >= SUSPECT}

    def is_unjudgeable(self, key: bytes) -> bool:
        """Whether the content was alone at the engine when a worker crashed."""
        return self._crashes.get(key[-DIGEST_BYTES:], 0) >= UNJUDGEABLE

    @asynccontextmanager
    async def noted(self, keys: Sequence[bytes], *, is_alone: bool = False) -> AsyncIterator[None]:
        """Note the contents while the block runs. `is_alone`: nothing else is at the engine.

        If the block raises anything but Unavailable or Misconfigured, this counts as a crash of the engine, and the
        note stays. A key that all servers refuse is Misconfigured: the worker ends, and no content is the cause.
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
        """Remove the crashes of content that was judged alone without one: other content was the cause."""
        digest = key[-DIGEST_BYTES:]
        if self._crashes.pop(digest, None) is not None:
            await self._breaker.ask(self._redis.hdel, self._keys[1], digest)

    async def _take_back(self, field: str) -> None:
        # A removal that failed is repeated with the next one, because a note must not outlive its judgement.
        self._open.discard(field)
        if len(self._ended) >= MAX_ENDED:
            self._ended.clear()
        self._ended.add(field)
        ended = frozenset(self._ended)
        if await self._breaker.ask(self._redis.hdel, self._notes, *ended) is not None:
            self._ended -= ended

    async def _beat(self, former: str = "") -> None:
        arguments = [ALIVE_TTL_S, self._crashes_ttl_s, MAX_CRASHES, SUSPECT, UNJUDGEABLE, DIGEST_BYTES]
        answer = await self._breaker.ask(self._beat_script, self._keys, [self._session, former, *arguments])
        if answer is None:
            return
        counted, flat = answer
        self._crashes = {digest: _number(crashes) for digest, crashes in zip(flat[::2], flat[1::2], strict=True)}
        if counted:
            log.warning("a worker crashed while it judged: the content at its engine is watched", contents=counted)

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            await self._beat()


def _number(stored: bytes) -> int:
    """Parse a number of crashes. Invalid data counts as 0, because it must not end the heartbeat."""
    try:
        return int(stored)
    except ValueError:
        return 0
