"""A decision on the page of a real review worker, from the click to the verdict in Kafka."""

from __future__ import annotations

import signal

import pytest
from playwright.sync_api import Browser, expect

from tests.reviewing import Desk, now_ms, review_item, verdict_id
from tests.site import Site, eventually

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@pytest.fixture
def desk(site: Site) -> Desk:
    desk = Desk(site)
    desk.create_topics()
    desk.send([review_item(1, now_ms(), context=[])])
    desk.start()
    return desk


def test_each_click_becomes_one_superseding_verdict_in_kafka_also_over_a_kill(desk: Desk, chromium: Browser) -> None:
    address = desk.address
    eventually(lambda: desk.waiting() == 1, "the item waits")
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{address}/review/")
    page.get_by_label("Your token").fill(desk.tokens["ana"])
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Next item", exact=False).first.click()
    page.wait_for_selector("#decide")
    page.keyboard.press("v")
    expect(page.locator(".judged .text")).to_have_text("message 1")
    page.get_by_label("Note").fill("a threat")
    page.get_by_role("button", name="Block").click()
    expect(page.locator(".notice")).to_contain_text("Recorded: the item is decided now.")
    eventually(lambda: len(desk.superseding()) == 1, "the superseding verdict is in Kafka")
    ((verdict,),) = desk.superseding().values()
    assert (verdict["supersedes"], verdict["decision"], verdict["note"]) == (verdict_id(1), "block", "a threat")
    assert verdict["decided_by"] == "ana"
    actions = [record["action"] for _, record in desk.records("audit") if record is not None]
    assert {"leased", "viewed", "decided", "published"} <= set(actions)

    # The worker is killed while the next item is on the page. The session and the lease outlive it.
    desk.send([review_item(2, now_ms(), context=[])])
    eventually(lambda: desk.waiting() == 1, "the next item waits")
    page.get_by_role("button", name="Next item", exact=False).first.click()
    page.wait_for_selector("#decide")
    page.get_by_label("Note").fill("no threat")
    assert desk.process is not None
    desk.process.send(signal.SIGKILL)
    desk.process.wait()
    page.get_by_role("button", name="Allow").click()
    expect(page.locator(".problem")).to_have_text(
        "The review worker does not answer, and nothing was sent. Decide again in a moment."
    )
    desk.site.environment["GUARDLINE_REVIEW__PORT"] = address.rpartition(":")[2]  # The open page knows this port.
    desk.start()
    assert desk.address == address
    page.get_by_role("button", name="Allow").click()
    expect(page.locator(".notice")).to_contain_text("Recorded: the item is decided now.")
    eventually(lambda: len(desk.superseding()) == 2, "the second superseding verdict is in Kafka")
    (second,) = desk.superseding()[verdict_id(2)]
    assert (second["decision"], second["note"]) == ("allow", "no threat")
    page.close()
