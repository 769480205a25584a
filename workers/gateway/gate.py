"""What every request passes before its route: drain, key and limits. Counts and times the requests.

It is middleware, so that a request counts as in flight until the last byte of its stream is sent, or its client is
gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workers import telemetry
from workers.gateway.keys import Caller, Keys
from workers.gateway.limits import Allowance
from workers.gateway.problems import LIMIT, Problem

DRAINS_S = 1.0
"""`Retry-After` of a gateway that ends: another one behind the same address answers at once."""


class Gate:
    """The requests in flight, and who may add one.

    Guarantee: after `close` no further request reaches a route.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._is_closed = False
        self._of_each: Counter[str] = Counter()
        self._allowances: dict[str, Allowance] = {}
        self._none_left = asyncio.Event()
        self._none_left.set()
        telemetry.GATEWAY_IN_FLIGHT.set_function(lambda: self.in_flight)

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return self._of_each.total()

    def close(self) -> None:
        """Refuse all further requests with 503."""
        self._is_closed = True

    async def empty(self) -> None:
        """Wait until no request is in flight."""
        await self._none_left.wait()

    def enter(self, authorization: str | None, now: float) -> Caller:
        """Let a request in. Call `leave` at its end.

        Raises:
            Problem: the gateway ends, the key is not valid, or its client has reached a limit.
        """
        if self._is_closed:
            raise Problem(503, "the gateway ends: send the request again", code="draining", retry_after_s=DRAINS_S)
        caller = self._keys.caller(authorization)
        if caller is None:
            raise Problem(
                401,
                "send a valid key of gateway.keys as `Authorization: Bearer KEY`",
                code="invalid_api_key",
            )
        if self._of_each[caller.name] >= caller.max_concurrent:
            telemetry.GATEWAY_LIMITED.labels("concurrent").inc()
            raise Problem(
                429,
                f"{caller.max_concurrent} requests of this client are in flight (gateway.max_concurrent)",
                kind=LIMIT,
                code="rate_limit_exceeded",
                retry_after_s=1,
            )
        if caller.requests_per_minute is not None:
            allowance = self._allowances.get(caller.name)
            if allowance is None:
                allowance = self._allowances[caller.name] = Allowance(caller.requests_per_minute, now)
            if wait_s := allowance.take(now):
                telemetry.GATEWAY_LIMITED.labels("per_minute").inc()
                raise Problem(
                    429,
                    f"{caller.requests_per_minute} requests a minute are allowed (gateway.requests_per_minute)",
                    kind=LIMIT,
                    code="rate_limit_exceeded",
                    retry_after_s=wait_s,
                )
        self._of_each[caller.name] += 1
        self._none_left.clear()
        return caller

    def leave(self, caller: Caller) -> None:
        """Count a request out."""
        self._of_each[caller.name] -= 1
        if not self.in_flight:
            self._none_left.set()


def route_of(scope: Scope) -> str:
    """Give the path of a request as its route has it, and `other` without a route: clients choose paths."""
    return str(getattr(scope.get("route"), "path", "other"))


class Admission:
    """The middleware of a gate."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass with its caller in `scope["state"]`, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        caller: Caller | None = None
        try:
            caller = self._gate.enter(Headers(scope=scope).get("authorization"), began)
        except Problem as problem:
            if problem.status == 401:
                problem.headers["WWW-Authenticate"] = "Bearer"
            await problem.answer()(scope, receive, noted)
        try:
            if caller is not None:
                scope.setdefault("state", {})["caller"] = caller
                await self._app(scope, receive, noted)
        finally:
            if caller is not None:
                self._gate.leave(caller)
            route = route_of(scope)
            telemetry.GATEWAY_REQUESTS.labels(route, str(status)).inc()
            telemetry.GATEWAY_SECONDS.labels(route).observe(time.monotonic() - began)
