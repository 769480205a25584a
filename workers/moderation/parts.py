"""Starts the parts that judge texts: Redis, the guard, the policies, and what Redis remembers.

The moderation worker and the gateway judge by the same pipeline on these parts. They differ in what they submit to it,
and in who gets what it finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers import telemetry
from workers.core.marks import Marks
from workers.core.records import Finished, Source
from workers.guard.guard import Guard
from workers.guard.languages import Languages, load_languages
from workers.moderation.filling import filled
from workers.moderation.judge import Judge
from workers.moderation.pipeline import Pipeline
from workers.policy.policy import default_strict
from workers.process.lifecycle import Lifecycle
from workers.redis import client as redis_client
from workers.redis.crash_notes import CrashNotes
from workers.redis.dedup import Dedup
from workers.redis.memories import Memories
from workers.redis.policy_cache import PolicyCache
from workers.redis.strikes import StrikeLookups
from workers.settings import Settings
from workers.tracing.stages import UNTRACED, Stages

if TYPE_CHECKING:
    from workers.core.similarity import SimHashes  # Imports numpy.


@dataclass(frozen=True)
class Parts:
    """The parts, which run until the end of the lifecycle."""

    settings: Settings
    """Those that were given, with `batch.in_flight` as the engine needs it."""
    guard: Guard
    languages: Languages | None
    policies: PolicyCache
    notes: CrashNotes
    dedup: Dedup
    strikes: StrikeLookups
    memories: Memories

    def pipeline(
        self,
        *,
        is_current: Callable[[Source], bool],
        deliver: Callable[[list[Finished]], None],
        fail: Callable[[BaseException], None],
        marks: Marks | None = None,
        similarity: SimHashes | None = None,
        stages: Stages = UNTRACED,
    ) -> Pipeline:
        """Make the pipeline. `is_current`, `deliver` and `fail` are those of `Pipeline`."""
        settings = self.settings
        return Pipeline(
            settings,
            dedup=self.dedup,
            judge=Judge(
                self.guard,
                self.notes,
                batches_in_flight=settings.batch.in_flight,
                is_current=is_current,
                hangs_after_s=settings.worker.engine_hangs_after_s,
                stages=stages,
            ),
            strikes=self.strikes,
            policies=self.policies,
            default_policy=default_strict(),
            is_current=is_current,
            deliver=deliver,
            fail=fail,
            languages=self.languages,
            marks=marks,
            similarity=similarity,
            stages=stages,
        )


async def start_parts(settings: Settings, guard: Guard, life: Lifecycle) -> Parts:
    """Start the parts, and close them at the end of the lifecycle in the reverse order.

    Raises:
        Misconfigured: the engine, the language model or Redis cannot be used with these settings.
        Unavailable: one of them does not answer within `worker.start_within_s`.
    """
    redis = await life.wait_for(lambda: redis_client.connect(settings.redis))
    life.close_with(redis.aclose)
    telemetry.REDIS_UP.set(1)

    await life.start(guard)

    languages = load_languages(settings.language)
    if languages is not None:
        life.close_with(languages.close)
        await life.wait_for(languages.start)

    policies = PolicyCache(settings.redis)
    await life.start(policies)

    namespace = settings.redis.namespace
    notes = CrashNotes(
        redis, namespace=namespace, worker_id=settings.worker.id, crashes_ttl_s=settings.dedup.content_ttl_s
    )
    await notes.start()
    life.close_with(notes.close)
    life.watch(notes.watch())
    telemetry.REDIS_UP.set_function(lambda: notes.is_up and policies.healthy)

    dedup = Dedup(redis, settings.dedup, namespace=namespace, fingerprint=guard.fingerprint)
    memories = Memories(redis, settings.dedup, dedup.claims)
    life.watch(memories.write())
    life.close_with(memories.close)
    return Parts(
        settings=filled(settings, guard.prompts_at_a_time),
        guard=guard,
        languages=languages,
        policies=policies,
        notes=notes,
        dedup=dedup,
        strikes=StrikeLookups(redis, namespace=namespace, secret=settings.pseudonym_secret),
        memories=memories,
    )
