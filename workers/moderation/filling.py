"""Raises the number of micro-batches in flight until the engine is busy."""

from __future__ import annotations

import math

import structlog

from workers.settings import Settings

log = structlog.get_logger(__name__)


def filled(settings: Settings, prompts_at_a_time: int | None) -> Settings:
    """Set `batch.in_flight` to what the engine needs, if the settings do not set it.

    If the settings set it, their value stays, and a log line says when it is too small for the engine.
    """
    batch = settings.batch
    if prompts_at_a_time is None:
        return settings
    wanted = math.ceil(prompts_at_a_time / batch.max_count)
    if "in_flight" not in batch.model_fields_set:
        more = batch.model_copy(update={"in_flight": max(batch.in_flight, wanted)})
        return settings.model_copy(update={"batch": more})
    if batch.in_flight < wanted:
        log.warning(
            f"batch.max_count x batch.in_flight allow {batch.max_count * batch.in_flight} events at the engine, which "
            f"needs {prompts_at_a_time} prompts to be busy: leave batch.in_flight out, or set it to {wanted}"
        )
    return settings
