from __future__ import annotations

import pytest
from pydantic import ValidationError

from schemas.forget import Forget
from workers.core.forgotten import Forgotten

NOON_MS = 1_772_366_400_000


def request(author: str = "u-17", at: str = "2026-03-01T12:00:00Z", tenant: str = "acme") -> Forget:
    return Forget(forget_id="0" * 32, tenant_id=tenant, author_id=author, requested_at=at)


def test_a_request_covers_what_was_received_before_it_of_this_author_alone() -> None:
    forgotten = Forgotten()
    forgotten.add(request())
    assert forgotten.covers("acme", "u-17", None, NOON_MS)
    assert not forgotten.covers("acme", "u-17", None, NOON_MS + 1)
    assert not forgotten.covers("acme", "u-18", None, NOON_MS)
    assert not forgotten.covers("other", "u-17", None, NOON_MS)
    assert not forgotten.covers("acme", None, None, NOON_MS)


@pytest.mark.parametrize("at", ["2026-03-01T11:00:00Z", "2026-03-01T12:00:00+00:00", "2026-03-01t12:00:00z"])
def test_a_request_that_is_read_again_or_late_takes_nothing_back(at: str) -> None:
    forgotten = Forgotten()
    forgotten.add(request())
    forgotten.add(request(at=at))
    assert (forgotten.covers("acme", "u-17", None, NOON_MS), forgotten.covers("acme", "u-17", None, NOON_MS + 1)) == (
        True,
        False,
    )


def test_an_event_that_waited_in_its_topic_is_covered() -> None:
    forgotten = Forgotten()
    forgotten.add(request())
    assert forgotten.covers("acme", "u-17", NOON_MS, NOON_MS + 60_000)
    assert not forgotten.covers("acme", "u-17", NOON_MS + 1, NOON_MS + 60_000)


@pytest.mark.parametrize("at", ["2026-02-30T12:00:00Z", "soon", "2026-03-01T12:00:00"])
def test_a_request_without_a_time_is_none(at: str) -> None:
    with pytest.raises(ValidationError):
        request(at=at)


def test_a_leap_second_is_a_time() -> None:
    forgotten = Forgotten()
    forgotten.add(request(at="2026-03-01T11:59:60z"))
    assert forgotten.covers("acme", "u-17", None, NOON_MS - 1_000)
