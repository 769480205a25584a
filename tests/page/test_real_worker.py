"""A decision on the page of a real review worker, from the click to the verdict in Kafka."""

from __future__ import annotations

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


def test_a_click_becomes_one_superseding_verdict_in_kafka(desk: Desk, chromium: Browser) -> None:
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
    page.close()
