"""Whether another review worker works for the group."""

from __future__ import annotations

from workers.errors import Unavailable
from workers.kafka import membership
from workers.kafka.clients import client_id
from workers.kafka.route import Route


def require_free(route: Route) -> None:
    """Check that no other worker works for the group. A process that was started with the same `worker.id` is replaced.

    Raises:
        Unavailable: another one works: this one can wait for the end of that one.
    """
    own = {route.worker_id, client_id(route.worker_id)} if route.is_static else set()
    others = sorted(member.name for member in membership.members(route.kafka) if member.name not in own)
    if others:
        raise Unavailable(
            f"another review worker ({', '.join(others)}) works for the group {route.group}: only one may. This "
            "one takes over when that one has ended, or kafka.session_timeout_s after it was killed"
        )
