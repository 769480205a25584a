"""The commands that write a lost superseding verdict again."""

from __future__ import annotations

from msgspec.structs import replace

from tests.unit.review.given import AT_ONCE, MINUTE, NOW, Case
from workers.review.item import MAX_STEPS, REPUBLISHED
from workers.review.reconcile import published_at, republication


def repaired(case: Case) -> str:
    wanted = republication(case.item, case.now)
    assert republication(case.item, case.now + 1).command_id == wanted.command_id
    assert case.item.step_of(wanted.command_id) is None, "the repair would change nothing"
    case.do("republish", command_id=wanted.command_id)
    return wanted.command_id


def test_each_repair_of_a_later_loss_is_a_new_command_also_when_the_history_is_full() -> None:
    case = Case()
    case.do("decide", "ana", decision="block")
    repairs = MAX_STEPS + 20
    assert len({repaired(case) for _ in range(repairs)}) == repairs
    assert sum(step.action == REPUBLISHED for step in case.item.history) < MAX_STEPS


def test_a_verdict_was_published_when_its_step_says_or_when_its_last_person_decided() -> None:
    case = Case(terms=AT_ONCE._replace(undo_ms=MINUTE))
    case.do("decide", "ana", decision="block")
    case.now += MINUTE
    case.do("settle")
    assert published_at(case.item) == NOW + MINUTE
    without = tuple(step for step in case.item.history if step.action != "published")
    assert published_at(replace(case.item, history=without)) == NOW
