"""Every policy in memory, kept up to date by the stream of changes. The hot path reads a dict and never waits.

An invalid or older document is refused with a log line, and the last valid one stays. It also stays while Redis is
down.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from workers import telemetry
from workers.errors import Misconfigured, Unavailable
from workers.policy.document import DEFAULT, Deleted, InvalidPolicy, is_spent, parse_stored, subject
from workers.policy.policy import CompiledPolicy
from workers.redis.client import client_of
from workers.redis.failures import failure, said_of, what_redis_does
from workers.redis.policy_keys import Keys
from workers.settings import Redis as RedisSettings

log = structlog.get_logger(__name__)

MAX_POLICIES = 100_000
"""Policies held in memory, about 4 KiB each. Further tenants get the default."""

BLOCK_S = 2.0
"""How long one read waits for a change. After each read without changes, the sequence shows whether entries were
trimmed before they were read."""

_TIMEOUT_S = BLOCK_S + 3.0
_CONNECT_TIMEOUT_S = 2.0
_LOAD_STEP = 500
_BACK_OFF_S = (0.05, 2.0)


class PolicyCache:
    """Follows the policies of one namespace over its own connection.

    Guarantee: `snapshot` never waits and never fails. A change is in force within milliseconds while Redis answers.

    Attributes:
        last_error: the last error, a sentence; None if there was none.
        refused: the number of documents that were refused.
    """

    def __init__(self, settings: RedisSettings) -> None:
        # A blocking read would exceed the timeout of a shared client, and the loop below does the retries.
        self._redis = client_of(
            settings,
            decode_responses=False,
            protocol=2,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._keys = Keys(settings.namespace)
        self._policies: dict[str, CompiledPolicy] = {}
        self._snapshot: Mapping[str, CompiledPolicy] = MappingProxyType(self._policies)
        self._deleted: dict[str, int] = {}
        self._last_id = b"0-0"
        self._sequence = 0
        self._task: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()
        self._is_answered = False
        self.last_error: str | None = None
        self.refused = 0

    @property
    def is_loaded(self) -> bool:
        """Whether all policies were read at least once."""
        return self._loaded.is_set()

    @property
    def healthy(self) -> bool:
        """Whether changes are followed and Redis answered the last read. If not, the policies may be out of date."""
        return self._is_answered and self._task is not None and not self._task.done()

    def snapshot(self) -> Mapping[str, CompiledPolicy]:
        """Return the policies in force, by tenant. A snapshot never changes.

        Other tenants get the policy of `workers.policy.document.DEFAULT`, and without one the strict default.
        """
        return self._snapshot

    async def start(self, timeout_s: float = 10.0) -> None:
        """Load every policy and follow the changes.

        Raises:
            Unavailable: Redis did not answer in time. The background task keeps retrying until `close`.
            Misconfigured: Redis refuses a required command.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="policy-cache")
        loaded = asyncio.create_task(self._loaded.wait())
        await asyncio.wait([loaded, self._task], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        loaded.cancel()
        if self._task.done():
            self._task.result()
        if not self.is_loaded:
            raise Unavailable(f"redis.url: policies could not be loaded within {timeout_s:g} s: {self.last_error}")

    async def watch(self) -> None:
        """Wait as long as changes are followed. Raises the error that ended it: policies would become out of date."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Stop following. The last snapshot stays valid."""
        if self._task is not None:
            # A client that is connecting can swallow a cancellation, and the task would run for ever: cancel again.
            while not self._task.done():
                self._task.cancel()
                await asyncio.wait([self._task], timeout=0.1)
            self._task = None
        await self._redis.aclose()

    async def _follow(self) -> None:
        back_off_s = _BACK_OFF_S[0]
        while True:
            try:
                await self._load()
                back_off_s = _BACK_OFF_S[0]
                while await self._read_changes():
                    pass
                log.warning("policy changes were trimmed before they were read: loading every policy again")
            except (RedisError, OSError) as error:
                if not self.is_loaded and isinstance(cause := failure(error), Misconfigured):
                    raise cause from error
                if self._is_answered or self.last_error is None:
                    log.warning(f"{what_redis_does(error)}: the last good policies stay", reason=said_of(error))
                self._is_answered = False
                self.last_error = said_of(error)
                await self._redis.aclose()
                # Spread over time, so that many workers do not reconnect at once.
                await asyncio.sleep(back_off_s * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret
                back_off_s = min(2 * back_off_s, _BACK_OFF_S[1])

    async def _load(self) -> None:
        # Read the position in the stream first: a change during the load is then seen twice, and never missed.
        newest: Any = await self._redis.xrevrange(self._keys.changes, count=1)
        last_id = newest[0][0] if newest else b"0-0"
        sequence = _number(await self._redis.get(self._keys.sequence))
        policies = dict(self._policies)
        count = 0
        async for tenant, document in self._redis.hscan_iter(self._keys.policies, count=_LOAD_STEP):
            self._take(policies, tenant, document)
            count += 1
            if count % _LOAD_STEP == 0:
                await asyncio.sleep(0)
        # Does not wait: if Redis refuses to let this user read the stream, the start has to fail.
        await self._redis.xread({self._keys.changes: last_id}, count=1)
        self._publish(policies)
        self._last_id, self._sequence = last_id, sequence
        telemetry.POLICY_CHANGE.set(sequence)
        self._is_answered = True
        self._loaded.set()
        log.info("policies loaded", count=len(policies))

    async def _read_changes(self) -> bool:
        """Take the changes; False if some were missed."""
        after: dict[Any, Any] = {self._keys.changes: self._last_id}
        answer: Any = await self._redis.xread(after, count=_LOAD_STEP, block=int(BLOCK_S * 1_000))
        if not answer:
            if _number(await self._redis.get(self._keys.sequence)) == self._sequence:
                return True
            # A change that was written between the two reads is there now. One that was trimmed is not.
            answer = await self._redis.xread(after, count=_LOAD_STEP)
            if not answer:
                return False
        policies = dict(self._policies)
        is_whole = True
        for entry_id, fields in answer[0][1]:
            sequence = _number(fields.get(b"sequence"))
            # A lower one is read a second time, because it was written between the two reads of a load.
            is_whole = is_whole and sequence <= self._sequence + 1
            self._sequence = max(self._sequence, sequence)
            self._last_id = entry_id
            if b"tenant" in fields:
                self._take(policies, fields[b"tenant"], fields.get(b"document", b""))
            else:
                self._refuse("a change of a policy names no tenant")
        self._publish(policies)
        telemetry.POLICY_CHANGE.set(self._sequence)
        return is_whole

    def _publish(self, policies: dict[str, CompiledPolicy]) -> None:
        self._policies = policies
        self._snapshot = MappingProxyType(policies)
        telemetry.POLICIES.set(len(policies))

    def _take(self, policies: dict[str, CompiledPolicy], tenant: Any, document: Any) -> None:
        name = bytes(tenant).decode("utf-8", "replace")
        current = policies.get(name)
        last = self._deleted.get(name, 0) if current is None else current.version
        try:
            found = parse_stored(name, bytes(document))
            policy = None if isinstance(found, Deleted) else CompiledPolicy(found)
        except InvalidPolicy as error:
            return self._refuse(str(error))
        if is_spent(last):
            last = 0
        if found.version < last:
            return self._refuse(
                f"{subject(name)}: version {found.version} is older than the last one; give it a version above {last}"
            )
        if policy is None:
            if current is None or found.version > last:
                policies.pop(name, None)
                self._deleted[name] = found.version
                if len(self._deleted) > MAX_POLICIES:
                    del self._deleted[next(iter(self._deleted))]
            return None
        if current is None:
            if len(policies) >= MAX_POLICIES and name != DEFAULT:
                return self._refuse(f"{subject(name)}: a worker holds {MAX_POLICIES} policies at most")
        elif policy.version == current.version:
            if policy.digest != current.digest:
                self._refuse(
                    f"{subject(name)}: version {policy.version} is in force with other contents; "
                    f"give it a version above {current.version}"
                )
            return None
        policies[name] = policy
        return None

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        self.last_error = reason
        telemetry.POLICIES_REFUSED.inc()
        log.warning("policy refused: the last good one stays", reason=reason)


def _number(stored: bytes | str | None) -> int:
    """Parse a sequence number. An invalid one is 0: its change is taken, and a later gap is still detected."""
    try:
        return int(stored or 0)
    except ValueError:
        return 0
