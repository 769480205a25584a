"""Reads what an HTTP status means for a delivery. Pure."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from workers.actions.delivery import Answer, Meaning, Result

MAX_RETRY_AFTER_S = 3_600.0
"""No endpoint can stop its calls for longer with one answer: a mistaken `Retry-After` would hold them for years."""

TRANSIENT = frozenset({408, 409, 425, 429})
"""The statuses of 400 to 499 after which the same call may succeed later."""

ABOUT_CONTENT = frozenset({400, 413, 415, 422})
"""The statuses that refuse one delivery. Others, such as 401 and 404, say that no delivery would be accepted."""

ACCEPTED = Result(Meaning.ACCEPTED)

REDIRECTED = "redirects are not followed, because they may lead to an internal address: set the url to the target"


def read_status(answer: Answer) -> Result:
    """Return the meaning of an answer. Its body does not count: 200 with any body is a success."""
    status = answer.status
    if 200 <= status < 300:
        return ACCEPTED
    said = f"the endpoint answered {status}{_phrase(status)}"
    if status == HTTPStatus.GONE:
        return Result(Meaning.GONE, f"{said}: it wants no more deliveries")
    if 300 <= status < 400:
        return Result(Meaning.REFUSED, f"{said}: {REDIRECTED}")
    if 400 <= status < 500 and status not in TRANSIENT:
        return Result(Meaning.REFUSED, said, is_about_content=status in ABOUT_CONTENT)
    after_s = wait_of(answer.retry_after, time.time()) if status in (429, 503) else None
    return Result(Meaning.FAILED, said, after_s)


def wait_of(retry_after: str | None, now_s: float) -> float | None:
    """Read the header `Retry-After`: seconds, or a date of HTTP. None: there is none, or it is not valid.

    The result is from 0 to `MAX_RETRY_AFTER_S`.
    """
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), MAX_RETRY_AFTER_S)
    try:
        wait_s = parsedate_to_datetime(text).timestamp() - now_s
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
