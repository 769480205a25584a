"""The log of requests that fail by no fault of their client."""

from __future__ import annotations

import httpx
from fastapi import APIRouter
from structlog.testing import capture_logs

from workers.gateway.application import create_app
from workers.gateway.failures import SAY_AGAIN_S, Failures
from workers.gateway.gate import Gate
from workers.gateway.keys import Keys
from workers.gateway.problems import Problem
from workers.settings import Gateway

DOWN = Problem(502, "the model server cannot be reached (gateway.upstream.url)", code="upstream_unavailable")


def test_each_status_is_logged_once_in_a_while_with_the_number_of_the_others() -> None:
    failures = Failures()
    with capture_logs() as lines:
        for now in (0, 1, 2, SAY_AGAIN_S):
            failures.note(DOWN, "/v1/completions", now)
        failures.note(Problem(504, "too late"), "/v1/completions", 3)
        failures.note(Problem(429, "too many"), "/v1/completions", 4)
    assert [(line["event"], line["status"], line["others"]) for line in lines] == [
        (str(DOWN), 502, 0),
        (str(DOWN), 502, 2),
        ("too late", 504, 0),
    ]
    assert (lines[0]["log_level"], lines[0]["code"]) == ("warning", "upstream_unavailable")


def test_problems_that_have_a_line_of_their_own_get_no_second_one() -> None:
    failures = Failures()
    with capture_logs() as lines:
        failures.note(Problem(500, "the gateway failed", code="internal_error"), "/v1/completions", 0)
        failures.note(Problem(503, "the gateway ends", code="draining"), "/v1/completions", 0)
    assert lines == []


async def test_the_gateway_logs_the_failures_of_its_routes() -> None:
    router = APIRouter()

    @router.get("/v1/things/{name}")
    async def fail(name: str) -> None:
        raise DOWN

    gateway = Gateway(open="acme")
    app = create_app(gateway, Gate(Keys(gateway)), [router])
    with capture_logs() as lines:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            answers = [await client.get(f"/v1/things/{name}") for name in ("one", "two")]
    assert [answer.status_code for answer in answers] == [502, 502]
    (line,) = lines
    assert (line["event"], line["path"]) == (str(DOWN), "/v1/things/{name}")
