"""The gateway: makes the parts and wires them. The lifecycle starts and ends them in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from schemas.stream import Intervention, StreamVerdict
from workers import telemetry
from workers.errors import Misconfigured, to_install
from workers.gateway.failures import Failures
from workers.gateway.judging import Judging
from workers.gateway.keys import Keys
from workers.gateway.upstream import ModelServer
from workers.guard.load import NANO, NANO_JUDGES, load_guard
from workers.moderation.parts import Parts, start_parts
from workers.policy.document import DEFAULT
from workers.policy.policy import default_strict
from workers.process.lifecycle import Lifecycle
from workers.redis.policy_cache import PolicyCache
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.gateway.proxy import ModelProxy, Publish

log = structlog.get_logger(__name__)


class Gateway:
    """One process of the gateway. Any number may run, behind a load balancer.

    `run` returns after a drain. It raises `Misconfigured` or `Unavailable` at start and `Fatal` later, each with a
    sentence.
    """

    def __init__(self, settings: Settings) -> None:
        try:
            import fastapi  # noqa: F401  # The extra, before anything is connected.
            import httpx  # noqa: F401
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise Misconfigured(f"the gateway needs the extra gateway: {to_install('gateway')}") from error
        self._settings = settings

    async def run(self) -> None:
        """Start everything, run until a signal, drain."""
        from workers.gateway.application import create_app
        from workers.gateway.gate import Gate
        from workers.gateway.guard_routes import guard_routes
        from workers.gateway.off import GUARD_PATHS, NO_GUARD, NO_PROXY, PROXY_PATHS, off
        from workers.gateway.proxy_routes import router as proxy_router
        from workers.process.http_server import Server, listening

        settings, gateway = self._settings, self._settings.gateway
        keys = Keys(gateway)
        async with Lifecycle(settings.http, start_within_s=settings.worker.start_within_s) as life:
            guard = load_guard(settings.guard) if gateway.guard_routes else None
            listener = listening(gateway.host, gateway.port, "gateway")
            life.close_with(lambda: asyncio.to_thread(listener.close))
            gate, failures = Gate(keys), Failures()
            if guard is not None:
                parts = await start_parts(_while_a_client_waits(settings), guard, life)
                policies = parts.policies
                judging = judging_of(parts, settings, life)
                routers = guard_routes(
                    judging, guard, guard.model, gateway=gateway, batch=settings.batch, fail=life.end
                )
            else:
                policies = PolicyCache(settings.redis)
                await life.start(policies)
                telemetry.REDIS_UP.set_function(lambda: policies.healthy)
                routers = [off(GUARD_PATHS, NO_GUARD)]
            proxy: ModelProxy | None = None
            if gateway.upstream.url:
                proxy = await proxy_of(settings, policies, failures, life)
                routers.append(proxy_router(proxy))
            else:
                routers.append(off(PROXY_PATHS, NO_PROXY))
            server = Server(
                create_app(gateway, gate, routers, failures),
                listener,
                "the gateway",
                max_connections=gateway.max_connections,
                write_s=gateway.write_s,
            )
            life.watch(server.serve())
            if guard is not None and settings.guard.model == NANO:
                log.warning(NANO_JUDGES)
            models: dict[str, Any] = {} if guard is None else {"model": guard.model}
            if proxy is not None:
                models["streams_model"] = settings.streams.model
            log.info("gateway started", worker=settings.worker.id, **models)

            async def drain() -> None:
                # The socket stays open: who still sends here gets 503, and not a connection that is refused.
                gate.close()
                try:
                    async with asyncio.timeout(settings.worker.grace_s):
                        await gate.empty()
                except TimeoutError:
                    log.warning("requests did not end in time (worker.grace_s)", requests=gate.in_flight)
                    if proxy is not None:
                        proxy.stop()
                await server.stop()
                life.end()

            await life.run(drain=lambda: life.watch(drain()), left=lambda: gate.in_flight)


def judging_of(parts: Parts, settings: Settings, life: Lifecycle) -> Judging:
    """Make the pipeline of the moderation worker, and what submits the texts of requests to it."""
    judging = Judging(
        lambda events: pipeline.submit(events),
        parts.memories.add,
        answer_s=settings.gateway.answer_s,
        max_text_chars=settings.events.max_text_chars,
    )
    pipeline = parts.pipeline(is_current=judging.is_current, deliver=judging.deliver, fail=life.end)
    return judging


def _while_a_client_waits(settings: Settings) -> Settings:
    """Let the engine be asked as long as a client may wait: `hold` cannot hold a request."""
    answer_s = settings.gateway.answer_s
    worker = settings.worker.model_copy(update={"unavailable_after_s": answer_s, "hold_s": answer_s})
    return settings.model_copy(update={"worker": worker})


async def proxy_of(settings: Settings, policies: PolicyCache, failures: Failures, life: Lifecycle) -> ModelProxy:
    """Start the guard of streams, and make the proxy on it. `failures` logs streams that fail."""
    from workers.gateway.decided import Terms
    from workers.gateway.proxy import ModelProxy
    from workers.live.load import load_live_guard

    gateway = settings.gateway
    server = ModelServer(gateway.upstream)
    life.close_with(server.close)
    guard = load_live_guard(settings.streams)
    await life.start(guard)
    publish = await publishing_of(settings, life) if gateway.publish else None
    default = default_strict()

    def terms_of(tenant: str) -> Terms:
        known = policies.snapshot()
        policy = known.get(tenant, known.get(DEFAULT, default))
        return Terms(tenant, policy.stream_reference, guard.in_force(policy.stream))

    return ModelProxy(guard, server, terms_of, gateway.proxy, gateway.upstream, failures, publish)


async def publishing_of(settings: Settings, life: Lifecycle) -> Publish:
    """Connect to Kafka, and give what publishes the decisions of the proxy."""
    from workers.kafka.publishing import Publisher

    topics = settings.topics
    publisher = Publisher(settings.kafka)
    life.close_with(publisher.close)
    await life.wait_for(lambda: publisher.start(topics.stream_verdicts, topics.interventions))
    life.watch(publisher.serve())

    def publish(verdict: StreamVerdict, intervention: Intervention | None) -> None:
        key = verdict.stream_id.encode()
        publisher.publish(topics.stream_verdicts, key, verdict.model_dump_json().encode())
        if intervention is not None:
            publisher.publish(topics.interventions, key, intervention.model_dump_json().encode())

    return publish
