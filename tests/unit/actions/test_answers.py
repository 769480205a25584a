"""What a status means for a delivery, and how long `Retry-After` stops the calls."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from workers.actions.answers import MAX_RETRY_AFTER_S, read_status, wait_of
from workers.actions.delivery import Answer, Meaning

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (200, Meaning.ACCEPTED),
        (204, Meaning.ACCEPTED),
        (299, Meaning.ACCEPTED),
        (301, Meaning.REFUSED),
        (307, Meaning.REFUSED),
        (400, Meaning.REFUSED),
        (401, Meaning.REFUSED),
        (404, Meaning.REFUSED),
        (408, Meaning.FAILED),
        (409, Meaning.FAILED),
        (410, Meaning.GONE),
        (422, Meaning.REFUSED),
        (425, Meaning.FAILED),
        (429, Meaning.FAILED),
        (499, Meaning.REFUSED),
        (500, Meaning.FAILED),
        (503, Meaning.FAILED),
        (599, Meaning.FAILED),
        (999, Meaning.FAILED),
    ],
)
def test_a_status_has_one_meaning(status: int, meaning: Meaning) -> None:
    result = read_status(Answer(status, b"garbage"))
    assert result.meaning is meaning
    assert (str(status) in result.reason) == (meaning is not Meaning.ACCEPTED)


def test_a_redirect_says_why_it_is_not_followed() -> None:
    assert "redirects are not followed" in read_status(Answer(302)).reason


def test_only_a_refusal_of_the_content_says_nothing_about_the_endpoint() -> None:
    assert [read_status(Answer(status)).is_about_content for status in (400, 422, 401, 404, 302)] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("99999999999999999999999", MAX_RETRY_AFTER_S),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        (formatdate(NOW + 1e7, usegmt=True), MAX_RETRY_AFTER_S),
        ("Wed, 99 Oct 2026 07:28:00 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(header: str | None, wait_s: float | None) -> None:
    found = wait_of(header, NOW)
    assert found == (wait_s if wait_s is None else pytest.approx(wait_s))


def test_only_429_and_503_stop_the_calls() -> None:
    waits = [read_status(Answer(status, retry_after="5")).after_s for status in (429, 503, 500, 404)]
    assert waits == [5, 5, None, None]
