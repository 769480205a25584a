"""The reward route without an engine that answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.gateway.test_gate import KEY, error_of
from workers.errors import Fatal, Unavailable
from workers.gateway.application import create_app
from workers.gateway.gate import Gate
from workers.gateway.keys import Keys
from workers.gateway.rewarding import Rewarding
from workers.guard.guard import Request
from workers.settings import Batch, Gateway


class BrokenGuard:
    """Raises an error, or never answers."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error
        self.was_cancelled = False

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any]]:
        if self._error is not None:
            raise self._error
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return []


@pytest.mark.parametrize("error", [Unavailable("away"), Fatal("does not recover"), None])
async def test_without_an_answer_of_the_engine_there_is_no_reward(tmp_path: Path, error: Exception | None) -> None:
    (tmp_path / "key").write_text(KEY)
    settings = Gateway.model_validate({"keys": [{"name": "a", "tenant": "t", "file": tmp_path / "key"}]})
    failures: list[BaseException] = []
    guard = BrokenGuard(error)
    rewarding = Rewarding(guard, "m", batch=Batch(), answer_s=0.2, max_inputs=2, fail=failures.append)
    app = create_app(settings, Gate(Keys(settings)), [rewarding.router()])
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g", headers=headers) as client:
        answer = await client.post("/v1/reward", json={"prompts": ["a"], "completions": ["b"]})
        assert (answer.status_code, error_of(answer)["code"]) == (503, "engine_unavailable")
        assert not guard.was_cancelled
        assert failures == ([error] if isinstance(error, Fatal) else [])
        many = await client.post("/v1/reward", json={"prompts": ["a"] * 3, "completions": ["b"] * 3})
        assert (many.status_code, error_of(many)["param"]) == (400, "prompts")
