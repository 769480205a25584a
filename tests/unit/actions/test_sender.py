"""Deliveries to a real server that answers as each test says: what ends, when, in which order, with how many calls."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as Reference
from structlog.testing import capture_logs

from tests.shown import shown
from tests.unit.actions.deliveries import delivery, endpoint
from workers.actions.breaker import OPENS_AFTER, State
from workers.actions.client import Client
from workers.actions.delivery import Call, Delivery
from workers.actions.formats import format_of
from workers.actions.redeliver import _make
from workers.actions.secrets import Secrets
from workers.actions.sender import MAX_REFUSALS, Sender
from workers.core.forgotten import Forgotten
from workers.core.records import Source

Answering = Callable[[str], Awaitable[int | web.Response] | int | web.Response]
"""Gives the status, or the whole answer, for a `webhook-id`."""

QUICK = {"first_s": 0.01, "max_s": 0.02}


class Receiver:
    """An endpoint: `calls` are the ids in the order of their arrival, `accepted` those answered with 200."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.calls: list[str] = []
        self.accepted: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.most_in_flight = self.in_flight = 0

    async def handle(self, request: web.Request) -> web.Response:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await request.read()
            id_ = request.headers["webhook-id"]
            self.calls.append(id_)
            self.headers.append(dict(request.headers))
            answer = self.answering(id_)
            if isinstance(answer, Awaitable):
                answer = await answer
            if isinstance(answer, int):
                answer = web.Response(status=answer)
            if answer.status == 200:
                self.accepted.append(id_)
            return answer
        finally:
            self.in_flight -= 1


class Place:
    """A sender, the receiver that it calls, and what has ended: each delivery with its reason."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.ended: list[tuple[str, str | None]] = []
        self.deliveries: dict[str, Delivery] = {}
        self.failures: list[BaseException] = []
        self.revoked: set[int] = set()
        self.forgotten: set[str] = set()
        self.times_gone = 0
        self.sender: Sender

    def submit(self, *deliveries: Delivery) -> None:
        self.deliveries |= {one.id: one for one in deliveries}
        self.sender.submit(deliveries)

    def note(self, one: Delivery, reason: str | None) -> None:
        self.ended.append((one.id, reason))

    def note_gone(self) -> None:
        self.times_gone += 1

    def is_current(self, source: Source) -> bool:
        return source.origin.partition not in self.revoked

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert not self.failures
            assert time.monotonic() < end, f"after 30 s still not: {what}; ended: {self.ended}"
            await asyncio.sleep(0.005)

    async def has_ended(self, count: int) -> None:
        await self.until(lambda: len(self.ended) >= count, f"{count} deliveries have ended")


@asynccontextmanager
async def place(tmp_path: Path, answering: Answering, **changes: Any) -> AsyncIterator[Place]:
    receiver = Receiver(answering)
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (tmp_path / "secret").write_text(secret(1))
    changes = {"secret_files": [str(tmp_path / "secret")], "retry": QUICK, **changes}
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    one = endpoint(url, allow_networks=["127.0.0.0/8"], **changes)
    form = format_of(one, Secrets(one))
    found = Place(receiver)
    async with Client(one, form.answer_bytes) as client:
        found.sender = Sender(
            one,
            form,
            client,
            ended=found.note,
            is_current=found.is_current,
            is_forgotten=lambda delivery: delivery.id in found.forgotten,
            gone=found.note_gone,
            fail=found.failures.append,
        )
        try:
            yield found
        finally:
            await found.sender.close()
            await runner.cleanup()


def secret(number: int) -> str:
    return "whsec_" + base64.b64encode(bytes([number]) * 32).decode()


async def test_deliveries_of_a_key_arrive_in_order_and_those_of_different_keys_together(tmp_path: Path) -> None:
    in_flight: set[str] = set()

    async def answer(id_: str) -> int:
        key = str(at.deliveries[id_].key)
        assert key not in in_flight
        in_flight.add(key)
        await asyncio.sleep(0.005)
        in_flight.remove(key)
        return 500 if at.receiver.calls.count(id_) == 1 and id_.endswith("3") else 200

    async with place(tmp_path, answer, concurrency=4) as at:
        at.submit(*(delivery(number, f"k{number % 5}") for number in range(60)))
        await at.has_ended(60)
        order: dict[bytes, list[int]] = defaultdict(list)
        for id_ in at.receiver.accepted:
            order[at.deliveries[id_].key].append(int(id_[3:]))
        assert all(numbers == sorted(numbers) for numbers in order.values())
        assert sorted(at.receiver.accepted) == sorted(at.deliveries)
        assert at.receiver.most_in_flight == 4
        assert {reason for _, reason in at.ended} == {None}


async def test_the_reference_library_verifies_the_calls_also_after_the_secret_has_changed(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    async with place(tmp_path, lambda _: 200) as at:
        secrets = Secrets(endpoint(secret_files=[str(tmp_path / "secret")]))
        form = format_of(endpoint(), secrets)
        one = delivery(1)
        for number in (1, 2):
            (tmp_path / "secret").write_text(secret(number) + "\n")
            assert secrets.read() == (number == 2)
            call = form.call([one], time.time())
            bodies.append(call.body)
            assert Reference(secret(number)).verify(call.body, call.headers) == {"n": 1}
        at.submit(one)
        await at.has_ended(1)
        assert Reference(secret(1)).verify(b'{"n":1}', at.receiver.headers[0]) == {"n": 1}
    assert bodies == [one.body, one.body]


async def test_a_changed_secret_signs_while_the_worker_runs_and_an_unreadable_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.actions.secrets.LOOK_S", 0.01)
    file = tmp_path / "secret"
    file.write_text(secret(1))
    held = Secrets(endpoint(secret_files=[str(file)]))
    watch = asyncio.create_task(held.watch())
    at = Place(Receiver(lambda _: 200))
    try:
        file.write_text("whsec_pass-word")
        await at.until(lambda: held._failure != "", "the file was refused")
        assert held.keys == (bytes([1]) * 32,)
        assert "pass-word" not in held._failure
        file.write_text(secret(2))
        await at.until(lambda: held.keys == (bytes([2]) * 32,), "the new secret signs")
    finally:
        watch.cancel()


async def test_a_refused_delivery_is_given_up_after_few_attempts_and_the_next_of_its_key_follows(
    tmp_path: Path,
) -> None:
    async with place(tmp_path, lambda id_: 422 if id_ == "id-0" else 200) as at:
        at.submit(delivery(0, "a"), delivery(1, "a"), delivery(2, "b"))
        await at.has_ended(3)
        assert dict(at.ended) == {"id-0": "refused", "id-1": None, "id-2": None}
        assert at.receiver.calls.count("id-0") == MAX_REFUSALS
        assert at.receiver.calls.index("id-1") > max(n for n, id_ in enumerate(at.receiver.calls) if id_ == "id-0")
        refused = at.deliveries["id-0"]
        assert (refused.status, refused.attempts) == (422, MAX_REFUSALS)
        assert refused.reason.startswith("the endpoint answered 422")


async def test_a_delivery_that_fails_while_others_are_accepted_is_given_up_after_its_attempts(tmp_path: Path) -> None:
    async with place(tmp_path, lambda id_: 500 if id_ == "id-0" else 200, retry={**QUICK, "max_attempts": 3}) as at:
        at.submit(delivery(0))
        number = 1
        while not any(reason == "expired" for _, reason in at.ended):
            at.submit(delivery(number))
            await at.has_ended(number)
            number += 1
        assert ("id-0", "expired") in at.ended
        assert at.deliveries["id-0"].alone == 3


async def test_an_endpoint_that_is_down_uses_up_no_attempts_and_everything_arrives_when_it_recovers(
    tmp_path: Path,
) -> None:
    is_down = True
    async with place(tmp_path, lambda _: 503 if is_down else 200, retry={**QUICK, "max_attempts": 1}) as at:
        at.submit(*(delivery(number, f"k{number % 10}") for number in range(30)))
        await at.until(lambda: len(at.receiver.calls) > 60, "it is probed again and again")
        assert at.ended == []
        assert shown("guardline_endpoint_breaker_open", endpoint="platform") == 1
        is_down = False
        await at.has_ended(30)
        assert {reason for _, reason in at.ended} == {None}
        assert at.sender.state is State.CLOSED


async def test_what_waits_is_sent_at_once_when_the_endpoint_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.actions.breaker.LONGEST_S", 0.05)
    is_down = True
    async with place(tmp_path, lambda _: 503 if is_down else 200, retry={"first_s": 300, "max_s": 300}) as at:
        at.submit(*(delivery(number) for number in range(OPENS_AFTER + 1)))
        await at.until(lambda: len(set(at.receiver.calls)) > OPENS_AFTER, "each has failed")
        is_down = False
        await at.has_ended(OPENS_AFTER + 1)


async def test_an_open_breaker_lets_one_call_through_at_a_time(tmp_path: Path) -> None:
    async with place(tmp_path, lambda _: 500, retry={"first_s": 0.05, "max_s": 0.05}, concurrency=50) as at:
        at.submit(*(delivery(number) for number in range(100)))
        await at.until(lambda: at.sender.state is State.OPEN and not at.receiver.in_flight, "it opens")
        before = len(at.receiver.calls)
        assert before < 50 + OPENS_AFTER
        at.receiver.most_in_flight = 0
        await at.until(lambda: len(at.receiver.calls) > before + 10, "it is probed")
        probes = at.receiver.calls[before:]
        assert at.receiver.most_in_flight == 1
        assert len(set(probes)) == len(probes), "each probe is another delivery"


async def test_a_delivery_is_given_up_after_its_time(tmp_path: Path) -> None:
    async with place(tmp_path, lambda _: 500, retry={**QUICK, "give_up_after_s": 0.1}) as at:
        at.submit(delivery(0, "a"), delivery(1, "a"))
        await at.has_ended(2)
        assert at.ended == [("id-0", "expired"), ("id-1", "expired")]
        for one in at.deliveries.values():
            assert one.last_attempt_ms - one.first_attempt_ms >= 100


async def test_410_ends_all_deliveries_without_further_calls(tmp_path: Path) -> None:
    async with place(tmp_path, lambda _: 410, concurrency=1) as at:
        at.submit(*(delivery(number, f"k{number % 3}") for number in range(20)))
        await at.has_ended(20)
        at.submit(delivery(20))
        await at.has_ended(21)
        assert {reason for _, reason in at.ended} == {"gone"}
        assert len(at.receiver.calls) == 1
        assert at.deliveries["id-20"].attempts == 0
        assert "410" in at.deliveries["id-20"].reason
        assert shown("guardline_endpoint_gone", endpoint="platform") == 1
        assert shown("guardline_endpoint_breaker_open", endpoint="platform") == 1


async def test_410_is_reported_once_for_all_calls_in_flight_and_a_command_logs_nothing(tmp_path: Path) -> None:
    async def answer(_: str) -> int:
        await at.until(lambda: at.receiver.in_flight == 4 or at.times_gone > 0, "four calls are in flight")
        return 410

    async with place(tmp_path, answer, concurrency=4) as at:
        at.submit(*(delivery(number) for number in range(4)))
        await at.has_ended(4)
        assert (len(at.receiver.calls), at.times_gone) == (4, 1)
        at.receiver.answering = lambda _: 410
        parts = at.sender._endpoint, at.sender._format, at.sender._client
        with capture_logs() as logs:
            await _make(*parts, [delivery(number) for number in range(4, 8)], at.note, Forgotten())
        assert (len(at.ended), logs) == (8, [])


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_stops_all_calls_to_the_endpoint(tmp_path: Path, status: int) -> None:
    first_at = 0.0

    def answer(_: str) -> web.Response:
        nonlocal first_at
        if not first_at:
            first_at = time.monotonic()
            return web.Response(status=status, headers={"Retry-After": "1"})
        assert time.monotonic() - first_at > 0.9
        return web.Response()

    async with place(tmp_path, answer, concurrency=1) as at:
        at.submit(*(delivery(number) for number in range(5)))
        await at.has_ended(5)
        assert {reason for _, reason in at.ended} == {None}
        assert len(at.receiver.calls) == 6


async def test_no_call_is_made_for_a_partition_that_was_revoked(tmp_path: Path) -> None:
    held = asyncio.Event()

    async def answer(_: str) -> int:
        await held.wait()
        return 200

    async with place(tmp_path, answer, concurrency=1) as at:
        at.submit(delivery(0, "a"), delivery(1, "a", partition=1), delivery(2, "a"), delivery(3, "b", partition=1))
        at.revoked.add(1)
        held.set()
        await at.has_ended(2)
        await at.until(lambda: at.sender.waiting == 0, "those of the revoked partition are dropped")
        assert at.receiver.calls == ["id-0", "id-2"]


async def test_an_error_of_this_program_in_a_call_fails_the_delivery_and_not_the_worker(tmp_path: Path) -> None:
    class Broken:
        async def send(self, call: Call) -> Any:
            raise KeyError("content of the call")

    async with place(tmp_path, lambda _: 200, retry={**QUICK, "give_up_after_s": 0.05}) as at:
        at.sender._client = Broken()
        at.submit(one := delivery(0))
        await at.has_ended(1)
        assert at.ended == [("id-0", "expired")]
        assert one.reason == "the call cannot be made because of an error in this program (KeyError)"


@pytest.mark.parametrize("status", [302, 401, 403, 404])
async def test_what_an_endpoint_refuses_altogether_waits_until_somebody_has_corrected_the_cause(
    tmp_path: Path, status: int
) -> None:
    is_wrong = True
    async with place(tmp_path, lambda _: status if is_wrong else 200) as at:
        at.submit(*(delivery(number, f"k{number % 3}") for number in range(20)))
        await at.until(lambda: len(at.receiver.calls) > 10 * MAX_REFUSALS, "it is probed again and again")
        assert at.ended == []
        assert at.sender.state is not State.CLOSED
        is_wrong = False
        await at.has_ended(20)
        assert {reason for _, reason in at.ended} == {None}


async def test_a_delivery_that_alone_is_refused_with_403_is_given_up(tmp_path: Path) -> None:
    async with place(tmp_path, lambda id_: 403 if id_ == "id-0" else 200) as at:
        at.submit(delivery(0), *(delivery(number, "other") for number in range(1, 400)))
        await at.has_ended(400)
        assert {id_ for id_, reason in at.ended if reason == "refused"} == {"id-0"}


async def test_no_call_is_made_for_an_author_who_was_forgotten_and_none_becomes_a_dead_letter(tmp_path: Path) -> None:
    async with place(tmp_path, lambda id_: 500 if id_ == "id-0" else 200) as at:
        at.forgotten.add("id-1")
        at.submit(delivery(0, "a"), delivery(1, "b"), delivery(2, "b"))
        await at.has_ended(2)
        at.forgotten.add("id-0")
        await at.has_ended(3)
        assert dict(at.ended) == {"id-0": "forgotten", "id-1": "forgotten", "id-2": None}
        assert "id-1" not in at.receiver.calls
    async with place(tmp_path, lambda _: 410, concurrency=1) as at:
        at.forgotten.add("id-1")
        at.submit(delivery(0), delivery(1))
        await at.has_ended(2)
        assert dict(at.ended) == {"id-0": "gone", "id-1": "forgotten"}


async def test_an_endpoint_that_wants_no_calls_for_long_holds_neither_a_drain_nor_a_command(tmp_path: Path) -> None:
    async with place(tmp_path, lambda _: web.Response(status=429, headers={"Retry-After": "3600"})) as at:
        at.submit(delivery(0, "a"), delivery(1, "a"))
        await at.until(lambda: at.deliveries["id-0"].attempts > 0 and not at.receiver.in_flight, "it was refused")
        at.submit(delivery(2, "b"))
        await at.until(lambda: at.sender.is_idle, "nothing can be sent now")
        assert at.sender.state is State.CLOSED
        assert at.sender.is_held(5)
        assert not at.sender.is_held(3_601)
        assert at.sender.waiting == 3
        async with asyncio.timeout(30):
            again = [delivery(3), delivery(4)]
            assert await _make(at.sender._endpoint, at.sender._format, at.sender._client, again, at.note, Forgotten())


async def test_an_answer_that_cannot_be_read_is_a_failure_and_does_not_end_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def misread(*_: object) -> Any:
        raise KeyError("content of the answer")

    async with place(tmp_path, lambda _: 200) as at:
        monkeypatch.setattr(at.sender._format, "read", misread)
        at.submit(one := delivery(0))
        await at.until(lambda: bool(one.reason), "it has failed")
        assert one.reason == "the answer 200 cannot be read because of an error in this program (KeyError)"
        monkeypatch.undo()
        await at.has_ended(1)
        assert at.ended == [("id-0", None)]


async def test_the_metrics_say_what_waits_and_how_old_it_is(tmp_path: Path) -> None:
    async with place(tmp_path, lambda _: 500) as at:
        old, new = delivery(0), delivery(1)
        old.at_ms -= 60_000
        at.submit(old, new)
        await at.until(lambda: len(at.receiver.calls) > OPENS_AFTER, "calls")
        assert shown("guardline_deliveries_waiting", endpoint="platform") == 2
        assert 60 <= shown("guardline_oldest_delivery_seconds", endpoint="platform") < 100
        assert shown("guardline_delivery_attempts_total", endpoint="platform", result="failed") > 0
