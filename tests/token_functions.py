"""Functions that `kafka.token_provider` names in the tests: tokens that nobody signed."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

from tests.secured import USER

LIFETIME_S = 12.0
"""Long enough for librdkafka, which looks once a second whether it needs a new token."""

CALLS = "TEST_TOKEN_CALLS"
"""The variable that names a file: each call adds the time of the call as one line. A file beside it, with the ending
`.fails`, makes each call fail."""


def unsigned(lifetime_s: float, user: str = USER) -> tuple[str, float]:
    """Return a token and its expiry."""
    now = time.time()
    claims = {"sub": user, "iat": now, "exp": now + lifetime_s}
    return f"{_base64({'alg': 'none'})}.{_base64(claims)}.", now + lifetime_s


def _base64(value: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def short(_config: str) -> tuple[str, float]:
    """Return a token that is valid for `LIFETIME_S`."""
    calls = Path(os.environ[CALLS])
    with calls.open("a") as file:
        file.write(f"{time.time()}\n")
    token, expiry = unsigned(LIFETIME_S)
    if calls.with_suffix(".fails").exists():
        raise ConnectionError(f"no answer to {token}")
    return token, expiry


def of_nobody(_config: str) -> tuple[str, float, str, dict[str, str]]:
    """Return what brokers take for no token, with a principal and an extension."""
    return _base64({"alg": "none"}), time.time() + 60, "nobody", {"traceId": "1"}


not_a_function = 1
