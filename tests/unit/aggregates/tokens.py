"""A function for `kafka.token_provider`."""

from __future__ import annotations

import time


def token(config: str) -> tuple[str, float]:
    return f"token for {config}", time.time() + 300
