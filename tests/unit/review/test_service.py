"""Requests that come at the same time, and a worker that could get none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from schemas.review_command import ReviewRole
from tests.page.local import LocalDesk
from workers.errors import Misconfigured
from workers.review.people import Person
from workers.review.queues import Reader
from workers.review.refusal import Refusal
from workers.review.views import ItemView
from workers.review.worker import Worker
from workers.settings import Settings

ANA = Person("ana", ReviewRole.REVIEWER, Reader("ana", is_senior=False))


async def test_a_person_has_no_more_items_than_allowed_however_many_requests_come_at_once(tmp_path: Path) -> None:
    desk = LocalDesk(tmp_path, max_leases=3)
    ids = [desk.add(number) for number in range(9)]
    answers = await asyncio.gather(*(desk.service.next(ANA) for _ in range(7)), return_exceptions=True)
    given = [answer.verdict_id for answer in answers if isinstance(answer, ItemView)]
    refused = [answer.sentence for answer in answers if isinstance(answer, Refusal)]
    assert (len(set(given)), len(given), len(refused)) == (3, 3, 4)
    assert all("review.max_leases" in sentence for sentence in refused)
    assert len(desk.desk.queues) == 6
    free = next(one for one in ids if one not in given)
    (by_id,) = await asyncio.gather(desk.service.lease(ANA, free), return_exceptions=True)
    assert isinstance(by_id, Refusal)
    await desk.service.release(ANA, given[0])
    assert (await desk.service.lease(ANA, free)).verdict_id == free


async def test_a_worker_that_nobody_could_use_does_not_start() -> None:
    with pytest.raises(Misconfigured, match=r"review\.tokens is empty"):
        await Worker(Settings()).run()


async def test_a_request_that_its_topic_does_not_take_is_not_to_be_sent_again(tmp_path: Path) -> None:
    desk = LocalDesk(tmp_path, max_bytes={"moderation.review-commands": 1_000}, undo_s=0)
    item = desk.add(0)
    with pytest.raises(Refusal, match=r"too large for topics\.review_commands") as refused:
        await desk.service.decide(ANA, item, "block", note="n" * 2_000)
    assert refused.value.status == 413
    assert (await desk.service.decide(ANA, item, "block")).status == "decided"


async def test_the_same_request_twice_at_once_takes_one_item(tmp_path: Path) -> None:
    desk = LocalDesk(tmp_path)
    for number in range(3):
        desk.add(number)
    first, second = await asyncio.gather(*(desk.service.next(ANA, "key") for _ in range(2)))
    assert first is not None
    assert second is not None
    assert first.verdict_id == second.verdict_id
    assert (desk.desk.leases, len(desk.desk.queues)) == (1, 2)
