"""As many micro-batches in flight as keep the engine busy."""

from __future__ import annotations

import math

import structlog

from workers.settings import Settings

log = structlog.get_logger(__name__)


def filled(settings: Settings, prompts_at_a_time: int | None) -> Settings:
    """Let `batch.in_flight` follow what the engine wishes, where it was left at its default.

    Where the settings say otherwise they win, and a line in the log says what they keep from the engine.
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
            f"batch.max_count x batch.in_flight keep {batch.max_count * batch.in_flight} events at the engine, and it "
            f"takes {prompts_at_a_time} prompts to be kept busy: leave batch.in_flight out, or set it to {wanted}"
        )
    return settings
