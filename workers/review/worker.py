"""The review worker: makes the parts and wires them. The lifecycle starts and ends them in order.

All items are in the memory of one process: a second one waits until the first one has ended, or fences it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from workers.core.marks import marks_of
from workers.core.records import Finished
from workers.errors import Misconfigured, to_install
from workers.kafka import hang_watch, registry, topics
from workers.kafka.clients import LOOK_S
from workers.kafka.decoding import Decoding
from workers.kafka.forgetting import forgotten
from workers.kafka.loop import LEAVE_S, KafkaThread
from workers.kafka.route import Route
from workers.kafka.single import SingleRecords
from workers.policy.document import DEFAULT
from workers.policy.policy import CompiledPolicy, default_strict
from workers.process.lifecycle import Lifecycle
from workers.redis.policy_cache import PolicyCache
from workers.review import sizes
from workers.review.desk import Desk
from workers.review.people import Tokens
from workers.review.processing import Processor
from workers.review.reading import Reading, Work
from workers.review.rebuilding import rebuilt
from workers.review.service import Service
from workers.review.sizes import with_room
from workers.review.standby import require_free
from workers.review.terms import HOUR_MS, TenantRules, Terms
from workers.review.ticking import Ticking
from workers.settings import Commit, Review, Settings

log = structlog.get_logger(__name__)

COMMIT_AGE_S = IDLE_POLL_S = 0.01
"""People wait for the commit of their command, so it does not wait for others, nor for the end of an idle poll."""

NO_TOKENS = (
    "review.tokens is empty, so nobody can use the API or the page: name the people, each with a file that holds the "
    "token (docs/review.md#start), or set review.coop.public_key_file if only Coop decides"
)


def of_review(settings: Settings) -> Route:
    """Give the route of the review worker."""
    names = settings.topics
    kafka = with_room(settings.kafka).model_copy(update={"group": f"{settings.kafka.group}.review"})
    return Route(
        kafka=kafka,
        worker_id=settings.worker.id,
        inputs={
            names.review: "topics.review",
            names.review_commands: "topics.review_commands",
            names.forget: "topics.forget",
        },
        outputs={
            names.verdicts: "topics.verdicts",
            names.review_commands: "topics.review_commands",
            names.review_state: "topics.review_state",
            names.audit: "topics.audit",
            names.dead_letters: "topics.dead_letters",
        },
        dead_letters=names.dead_letters,
        is_static=settings.worker.has_name,
        is_single=True,
        batch=settings.batch,
        commit=Commit(max_count=settings.commit.max_count, max_age_s=min(COMMIT_AGE_S, settings.commit.max_age_s)),
        idle_poll_s=IDLE_POLL_S,
        target_s=settings.worker.target_s,
    )


def terms_of(settings: Settings) -> Terms:
    """Give what the settings say of items."""
    review = settings.review
    return Terms(
        lease_ms=int(review.lease_s * 1000),
        undo_ms=int(review.undo_s * 1000),
        keep_decided_ms=int(review.keep_decided_hours * HOUR_MS),
        keep_history_ms=int(review.keep_history_hours * HOUR_MS),
        max_leases=review.max_leases,
        carry_attributes=settings.events.carry_attributes,
    )


def tenant_rules(policy: CompiledPolicy, review: Review) -> TenantRules:
    """Give what a tenant's policy says of review, or the settings where it does not say."""
    own = policy.review
    return TenantRules(
        sla_ms=int((own.sla_minutes or review.sla_minutes) * 60_000),
        retention_ms=int((own.retention_hours or review.retention_hours) * HOUR_MS),
        four_eyes=frozenset(category.value for category in own.four_eyes),
        reach_attribute=review.reach_attribute,
    )


def _now_ms() -> int:
    return int(time.time() * 1000)


class Worker:
    """The one process of the review group that works.

    `run` returns after a drain. It raises `Misconfigured` or `Unavailable` at start and `Fatal` later, each with a
    sentence.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            import fastapi  # noqa: F401  # The extra, before anything is connected.
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise Misconfigured(f"the review worker needs the extra review: {to_install('review')}") from error
        self._settings = settings

    async def run(self) -> None:
        """Start everything, run until a signal, drain."""
        from workers.process.http_server import Server, listening
        from workers.review.application import application

        settings, route = self._settings, of_review(self._settings)
        review = settings.review
        tokens = Tokens(review.tokens)
        if not review.tokens and review.coop.public_key_file is None:
            raise Misconfigured(NO_TOKENS)
        async with Lifecycle(settings.http, start_within_s=settings.worker.start_within_s) as life:
            checked = await life.wait_for(lambda: asyncio.to_thread(topics.check, route, LOOK_S))
            await life.wait_for(lambda: asyncio.to_thread(sizes.check, settings))
            frames = await life.wait_for(lambda: asyncio.to_thread(registry.frames, settings))
            policies = PolicyCache(settings.redis)
            await life.start(policies)

            def rules_of(tenant_id: str) -> TenantRules:
                snapshot = policies.snapshot()
                return tenant_rules(snapshot.get(tenant_id) or snapshot.get(DEFAULT) or default_strict(), review)

            early: list[Work] = []
            take: Callable[[list[Work]], None] = early.extend
            settle: Callable[[Sequence[Finished]], None] = _settle_nothing
            await life.wait_for(lambda: asyncio.to_thread(require_free, route))
            # Before the predecessor is fenced: if it runs on this host, it goes on, and this process ends.
            listener = listening(review.host, review.port, "review")
            life.close_with(lambda: asyncio.to_thread(listener.close))
            kafka: KafkaThread[Work] = await life.wait_for(
                lambda: asyncio.to_thread(
                    KafkaThread,
                    route,
                    checked,
                    decode=Decoding(route.dead_letters, Reading(settings.topics)),
                    submit=life.from_thread(lambda works: take(works)),
                    committed=life.from_thread(lambda records: settle(records)),
                    ended=life.from_thread(life.end),
                )
            )
            # The predecessor is fenced from here on, so the state does not change while it is read. The thread polls
            # meanwhile, because the group removes a member that does not; what it reads waits, up to the water mark.
            kafka.start()
            life.close_with(kafka.close, within_s=LEAVE_S)
            life.watch(hang_watch.watch(kafka, route.kafka))
            desk = Desk()
            began = time.monotonic()
            items = await life.wait_for(lambda: asyncio.to_thread(rebuilt, settings))
            desk.load(items, _now_ms() + int(review.lease_s * 1000))
            log.info("review items read", items=len(desk.items), waiting=len(desk.queues), s=time.monotonic() - began)

            known = await life.wait_for(lambda: asyncio.to_thread(forgotten, settings))
            processor = Processor(
                desk,
                settings.topics,
                terms=terms_of(settings),
                rules_of=rules_of,
                pipeline=settings.worker.pipeline,
                now_ms=_now_ms,
                deliver=kafka.deliver,
                marks=marks_of(settings, frames),
                forgotten=known,
                max_bytes=checked.max_bytes,
            )
            sender = SingleRecords(route.kafka, timeout_s=review.answer_s)
            life.close_with(sender.close)
            service = Service(desk, processor, sender.send, review, settings.topics, _now_ms)
            ticking = Ticking(desk, sender.send, settings.topics, _now_ms)
            server = Server(application(service, tokens, review, _now_ms), listener, "the review API")
            take, settle = processor.submit, processor.committed
            take(early)
            life.watch(ticking.run())
            life.watch(server.serve())
            log.info("worker started", worker=settings.worker.id, group=route.group)

            async def drain() -> None:
                await server.stop()
                kafka.stop(settings.worker.grace_s)

            await life.run(drain=lambda: life.watch(drain()), left=lambda: kafka.left)


def _settle_nothing(records: Sequence[Finished]) -> None:
    """Until the items are there, only dead letters are committed."""
