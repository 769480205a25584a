"""A client of a Redis Cluster that fails as the client of a single Redis does.

The keys that a script or a command needs together have a hash tag, so that they are in one slot. All other keys spread
over the slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import ClusterError, RedisClusterException, RedisError, SlotNotCoveredError
from redis.exceptions import ConnectionError as NoConnection


class Cluster(RedisCluster):
    """A `RedisCluster` whose errors are redis-py's usual ones.

    Guarantee: after each outage it asks the nodes again who has which slots. When a node refuses a command, it keeps
    its connections.
    """

    async def initialize(self, *arguments: Any, **options: Any) -> RedisCluster:
        """Find the nodes, unless they are known."""
        try:
            return await super().initialize(*arguments, **options)
        except RedisClusterException as error:
            cause = _cause(error)
        # Outside of the block: the error is already a cause of the one that it would get as its context.
        raise cause

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Send a command to the node that has its keys."""
        with outages():
            return await super().execute_command(*arguments, **options)


@contextmanager
def outages() -> Iterator[None]:
    """Raise what is an outage of a cluster alone as a lost connection."""
    try:
        yield
    except (ClusterError, SlotNotCoveredError) as error:
        raise NoConnection(f"the cluster does not serve every key: {error}") from error


def _cause(error: BaseException) -> RedisError | OSError:
    """Return why no node told who has which slots: the client says only that none did."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, RedisError | OSError):
            return found
        found = found.__cause__ or found.__context__
    return NoConnection(str(error))
