"""The policies in Redis: a hash of documents, and a stream of changes that also serves as the audit record.

Nothing here is on the hot path: workers hold every policy in memory (`workers.redis.policy_cache`).
"""

from __future__ import annotations

from typing import Any

import orjson

from schemas.policy import Policy
from workers.policy.document import MAX_VERSION, InvalidPolicy, check_id, is_spent, parse_stored, subject
from workers.redis.client import Client
from workers.redis.policy_keys import Keys

MAX_CHANGES = 10_000
"""The approximate number of entries that the stream of changes keeps. A worker further behind loads all policies."""

# The script writes the version in front of the document, which comes without one. It does not decode the document,
# because Lua would lose the difference between an empty list and an empty object. The next version is never below the
# time in seconds: if Redis lost its data and versions began at 1 again, workers would refuse them as older.
PUT = """
local current = 0
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  local ok, document = pcall(cjson.decode, stored)
  if ok and type(document) == 'table' then current = tonumber(document['version']) or 0 end
end
local version = tonumber(ARGV[2])
if current >= tonumber(ARGV[5]) then current = 0 end
if version == 0 then version = math.max(current + 1, tonumber(redis.call('TIME')[1])) end
if version <= current then return {0, string.format('%.0f', current)} end
local number = string.format('%.0f', version)
local document = '{"version":' .. number .. ',' .. string.sub(ARGV[3], 2)
redis.call('HSET', KEYS[1], ARGV[1], document)
local sequence = redis.call('INCR', KEYS[3])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*',
  'sequence', sequence, 'tenant', ARGV[1], 'version', number, 'document', document)
return {1, number}
"""


DELETED = b'{"deleted":true}'
"""Replaces the policy: a worker that missed the change finds it there, and later versions continue from it."""


class PolicyStore:
    """Reads and changes policies. Every call blocks until Redis answers, and raises its errors.

    The policy of all tenants without one is stored for the tenant `workers.policy.document.DEFAULT`.
    """

    def __init__(self, redis: Client, namespace: str = "guardline") -> None:
        self._redis = redis
        self._keys = Keys(namespace)
        self._put = redis.register_script(PUT)

    async def put(self, tenant: str, policy: Policy) -> int:
        """Store a tenant's policy and return its version.

        Guarantee: the document and the entry in the stream of changes are written together or not at all. A policy of
        version 0 gets the next version: one more than the last, and at least the Unix time in seconds.

        Raises:
            InvalidPolicy: the policy is another tenant's, its version is not above the one in force, or there would be
                no version above it.
            redis.RedisError: Redis failed. After a lost connection it is unknown whether the policy is in force.
        """
        check_id(tenant, policy)
        if is_spent(policy.version):
            raise InvalidPolicy(
                f"{subject(tenant)}: version {policy.version} leaves no room for a next one: it has to be below "
                f"{MAX_VERSION}; leave the version out to get the next one"
            )
        # Only the given fields are stored. The others follow the preset, also when a release changes the preset.
        document = orjson.dumps(
            {"id": policy.id, **policy.model_dump(mode="json", exclude_unset=True, exclude={"version"})}
        )
        is_stored, version = await self._write(tenant, policy.version, document)
        if not is_stored:
            raise InvalidPolicy(
                f"{subject(tenant)}: version {policy.version} is not above version {version}, the last one; "
                "leave the version out to get the next one"
            )
        return version

    async def delete(self, tenant: str) -> int | None:
        """Delete a tenant's policy and return the deletion's version. None if the tenant has no policy.

        Guarantee: as for `put`. The default decides from then on, and a later policy has a higher version.

        Raises:
            redis.RedisError: Redis failed. After a lost connection it is unknown whether the policy is deleted.
        """
        try:
            if await self.get(tenant) is None:
                return None
        except InvalidPolicy:
            pass  # The stored document is invalid, and can be deleted as well.
        return (await self._write(tenant, 0, DELETED))[1]

    async def _write(self, tenant: str, version: int, document: bytes) -> tuple[bool, int]:
        keys = [self._keys.policies, self._keys.changes, self._keys.sequence]
        answer: Any = await self._put(keys=keys, args=[tenant, version, document, MAX_CHANGES, MAX_VERSION])
        return bool(answer[0]), int(answer[1])

    async def get(self, tenant: str) -> Policy | None:
        """Return a tenant's policy. None if there is none, or if it was deleted.

        Raises:
            InvalidPolicy: the stored document is not a policy.
        """
        stored: Any = await self._redis.hget(self._keys.policies, tenant)
        found = None if stored is None else parse_stored(tenant, stored)
        return found if isinstance(found, Policy) else None

    async def list(self) -> dict[str, Policy | InvalidPolicy]:
        """Return every policy by tenant, or the error of an invalid stored document."""
        policies: dict[str, Policy | InvalidPolicy] = {}
        async for tenant, stored in self._redis.hscan_iter(self._keys.policies, count=500):
            name = tenant.decode() if isinstance(tenant, bytes) else tenant
            try:
                found = parse_stored(name, stored)
            except InvalidPolicy as error:
                policies[name] = error
                continue
            if isinstance(found, Policy):
                policies[name] = found
        return policies
