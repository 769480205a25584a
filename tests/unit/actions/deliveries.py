"""Deliveries and endpoints for the tests of this folder."""

from __future__ import annotations

import time
from typing import Any

from workers.actions.delivery import Delivery
from workers.core.records import Source, TopicPartition
from workers.settings import Endpoint


def delivery(number: int, key: str = "", *, partition: int = 0, epoch: int = 1) -> Delivery:
    source = Source(TopicPartition("moderation.verdicts", partition), epoch, number)
    own_key = (key or f"key-{number}").encode()
    now_ms = int(time.time() * 1000)
    return Delivery(source, own_key, f"id-{number}", "verdict", "acme", b'{"n":%d}' % number, now_ms)


def endpoint(url: str = "https://platform.example/hook", **changes: Any) -> Endpoint:
    given = {"name": "platform", "url": url, "secret_files": ["/unread"], "allow_http": True, **changes}
    return Endpoint.model_validate(given)
