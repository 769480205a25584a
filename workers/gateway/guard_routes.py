"""The routes that need the guard of texts (`guard.model`): moderations, classify and reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter

from workers.gateway.classify import Classifying
from workers.gateway.judging import Judging
from workers.gateway.moderations import Moderations
from workers.gateway.rewarding import Rewarding
from workers.reward.rewards import Assessor
from workers.settings import Batch, Gateway


def guard_routes(
    judging: Judging,
    guard: Assessor,
    model: Mapping[str, str],
    *,
    gateway: Gateway,
    batch: Batch,
    fail: Callable[[BaseException], None],
) -> list[APIRouter]:
    """Make the routes. `model` is `Guard.model`. `fail` ends the gateway if the engine does not recover."""
    name = model["name"]
    return [
        Moderations(judging, name, gateway.max_inputs).router(),
        Classifying(judging, model).router(),
        Rewarding(
            guard, name, batch=batch, answer_s=gateway.answer_s, max_inputs=gateway.max_inputs, fail=fail
        ).router(),
    ]
