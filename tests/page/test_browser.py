"""The page in a real browser: keys, blur, directions, heartbeats, contrast, and what works without scripts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.page.conftest import Person
from tests.page.local import LocalDesk, token_of
from tests.reviewing import verdict_id
from tests.site import eventually

pytestmark = pytest.mark.browser

Visit = Callable[..., Person]

ARABIC = "سأجدك أينما كنت. abc 123!"
HOSTILE = "<script>window.hit = 1</script><img src=x onerror='window.hit = 2'> \u202emoc.live\u202c zero\u200bwidth"
LONG_WORD = "w" * 4_000


def test_an_item_is_decided_by_keys_alone_and_the_decision_is_undone(desk: LocalDesk, visit: Visit) -> None:
    desk.add(1)
    desk.add(2)
    mara = visit(desk)
    page = mara.sign_in()
    page.keyboard.press("n")
    page.wait_for_selector("#decide")
    page.keyboard.press("v")
    page.keyboard.press("4")
    page.keyboard.press("t")
    page.keyboard.type("a threat, said with abs")
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    expect(page.locator(".notice")).to_contain_text("Blocked.")
    expect(page).to_have_url(re.compile(f"/items/{verdict_id(2)}"))
    pending = desk.desk.items[verdict_id(1)].pending
    assert pending is not None
    assert (pending.decision, pending.note, pending.categories) == ("block", "a threat, said with abs", ("PII",))
    page.keyboard.press("u")
    expect(page.locator(".notice")).to_contain_text("Undone.")
    assert desk.desk.items[verdict_id(1)].pending is None
    assert mara.complaints == []
    assert mara.hosts == {mara.address.removeprefix("http://"), "data"} - ({"data"} - mara.hosts)


def test_no_key_decides_what_is_not_on_the_screen_and_none_decides_twice(desk: LocalDesk, visit: Visit) -> None:
    desk.add(1)
    desk.add(2)
    person = visit(desk)
    person.sign_in()
    page = person.take()
    page.keyboard.press("b")
    page.keyboard.press("a")
    expect(page.locator("#said")).to_have_text("Show the text first: v")
    assert all(item.pending is None for item in desk.desk.items.values())
    page.keyboard.press("v")
    page.keyboard.press("Control+a")
    page.keyboard.down("a")
    page.wait_for_selector(".notice")
    # The key is still held down: the next item must not be decided, even if its text is shown.
    page.keyboard.press("v")
    page.keyboard.down("a")
    page.keyboard.up("a")
    page.wait_for_load_state()
    assert sum(item.pending is not None for item in desk.desk.items.values()) == 1


def test_the_text_is_blurred_and_hidden_from_readers_until_asked(desk: LocalDesk, visit: Visit) -> None:
    desk.add(1, text="the words themselves", context=[{"role": "user", "text": "the words before"}])
    person = visit(desk)
    person.sign_in()
    page = person.take()
    veil, text = page.locator(".judged .veil"), page.locator(".judged .text")
    assert "blur" in veil.evaluate("one => getComputedStyle(one).filter")
    expect(text).to_be_hidden()
    assert "the words" not in page.locator("main").aria_snapshot()
    page.locator("label[for=reveal]").click()
    expect(veil).to_be_hidden()
    expect(text).to_be_visible()
    assert "the words themselves" in page.locator("main").aria_snapshot()
    assert "the words before" in page.locator("main").aria_snapshot()


def test_hostile_text_is_shown_and_does_nothing(desk: LocalDesk, visit: Visit) -> None:
    desk.add(1, text=HOSTILE, attributes={"<b>name</b>": "<script>window.hit = 3</script>"}, context=[])
    person = visit(desk)
    person.sign_in()
    page = person.take()
    page.keyboard.press("v")
    page.get_by_text("Identifiers and attributes").click()
    shown = page.locator(".judged .text").inner_text()
    assert "<script>window.hit = 1</script>" in shown
    assert "U+202Emoc.liveU+202C" in shown
    assert page.evaluate("window.hit") is None
    assert page.locator(".judged .text script, .pairs b, main img").count() == 0
    assert person.complaints == []


@pytest.mark.parametrize(("text", "direction"), [(ARABIC, "rtl"), ("see you at 9", "ltr"), ("שלום world", "rtl")])
def test_a_text_runs_in_its_own_direction(desk: LocalDesk, visit: Visit, text: str, direction: str) -> None:
    desk.add(1, text=text, context=[])
    person = visit(desk)
    person.sign_in()
    page = person.take()
    page.keyboard.press("v")
    assert page.locator(".judged .text").evaluate("one => getComputedStyle(one).direction") == direction


def test_an_open_page_keeps_its_lease_and_says_when_it_is_lost(tmp_path: Path, visit: Visit) -> None:
    desk = LocalDesk(tmp_path, lease_s=3)
    desk.add(1)
    person = visit(desk)
    person.sign_in()
    page = person.take()
    first = desk.desk.items[verdict_id(1)].lease
    assert first is not None

    def is_longer() -> bool:
        page.wait_for_timeout(50)  # Playwright's own loop has to run.
        lease = desk.desk.items[verdict_id(1)].lease
        return lease is not None and lease.until > first.until

    eventually(is_longer, "a heartbeat made the lease longer")
    desk.ahead_ms = 60_000
    expect(page.locator(".lease")).to_have_text("This item is not yours any more: reload the page.", timeout=30_000)


def test_a_worker_that_hangs_makes_no_click_disappear_without_a_message(desk: LocalDesk, visit: Visit) -> None:
    desk.add(1)
    person = visit(desk)
    # The page waits for 5 seconds: here for 50 milliseconds.
    sooner = "const timeout = AbortSignal.timeout; AbortSignal.timeout = (ms) => timeout.call(AbortSignal, ms / 100);"
    person.page.add_init_script(sooner)
    person.sign_in()
    page = person.take()
    hangs: list[Route] = []

    def hang(route: Route) -> None:
        hangs.append(route)

    page.route("**/heartbeat", hang)
    for clicks in (1, 2):
        page.get_by_role("button", name="Skip").click()
        expect(page.locator(".problem")).to_contain_text("nothing was sent", timeout=30_000)
        assert len(hangs) == clicks
        page.locator(".problem").evaluate("one => { one.textContent = ''; }")
    page.unroute("**/heartbeat")
    page.get_by_role("button", name="Skip").click()
    page.wait_for_url("**/review/**none=1")


def test_the_basics_work_without_scripts(desk: LocalDesk, visit: Visit) -> None:
    desk.add(1)
    desk.add(2)
    person = visit(desk, java_script_enabled=False)
    person.sign_in()
    page = person.take()
    expect(page.locator(".judged .text")).to_be_hidden()
    page.locator("label[for=reveal]").click()
    expect(page.locator(".judged .text")).to_be_visible()
    page.get_by_label("Note").fill("a threat")
    page.get_by_role("button", name="Block").click()
    expect(page.locator(".notice")).to_contain_text("Blocked.")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".notice")).to_contain_text("Undone.")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_person_who_is_second_reads_who_was_first(desk: LocalDesk, visit: Visit) -> None:
    desk.add(1)
    mara, jonas = visit(desk), visit(desk)
    mara.sign_in()
    slow = mara.take()
    desk.ahead_ms = 121_000
    page = jonas.sign_in("jonas", f"/review/items/{verdict_id(1)}")
    page.get_by_role("button", name="Take this item").click()
    page.locator("label[for=reveal]").click()
    page.get_by_role("button", name="Allow").click()
    expect(page.locator(".notice")).to_contain_text("Allowed.")
    slow.locator("label[for=reveal]").click()
    slow.get_by_role("button", name="Block").click()
    expect(slow.locator(".notice.problem")).to_have_text("Jonas was first and has decided allow.")


def test_a_session_that_is_over_leads_back_to_the_page_after_signing_in(desk: LocalDesk, visit: Visit) -> None:
    desk.add(1)
    person = visit(desk)
    page = person.sign_in()
    desk.ahead_ms = 13 * 3_600_000
    page.goto(f"{person.address}/review/items/{verdict_id(1)}")
    expect(page.get_by_role("alert")).to_contain_text("Your session is over.")
    page.get_by_label("Your token").fill(token_of("mara"))
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(verdict_id(1)))


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_on_every_screen(desk: LocalDesk, visit: Visit, scheme: str, width: int) -> None:
    for number, text in enumerate((HOSTILE, LONG_WORD, ARABIC * 200), 1):
        desk.add(number, text=text, context=[{"role": "user", "text": LONG_WORD}], tenant_id=f"tenant-{number}" * 12)
    person = visit(desk, color_scheme=scheme, viewport={"width": width, "height": 800})
    page = person.page
    page.goto(f"{person.address}/review/")
    _is_readable(page)
    person.sign_in()
    _is_readable(page)
    for _ in range(3):
        page.keyboard.press("n") if page.locator("#decide").count() == 0 else None
        page.wait_for_selector("#decide")
        _is_readable(page)
        page.keyboard.press("v")
        page.keyboard.press("c")
        _is_readable(page)
        page.keyboard.press("b")
        page.wait_for_selector(".notice")
    page.goto(f"{person.address}/review/nothing")
    _is_readable(page)


CONTRAST = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r / 255) + .7152 * linear(g / 255) + .0722 * linear(b / 255);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const c = parts(getComputedStyle(one).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), one = walker.currentNode.parentElement;
    if (!text || !one.checkVisibility() || one.closest(".veil, .visually-hidden, .skip, kbd")) continue;
    const [high, low] = [light(parts(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    const ratio = (high + .05) / (low + .05);
    if (ratio < 4.5) found.push(`${text.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""


def _is_readable(page: Page) -> None:
    """Nothing is wider than the screen, each control has a name, and the contrast is that of WCAG AA (4.5 to 1)."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"
    assert page.locator("h1").count() == 1
    assert page.evaluate(CONTRAST) == []
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input:not([type=hidden]), textarea, button")]
          .filter((one) => !one.labels?.length && !one.textContent.trim() && !one.ariaLabel)
          .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
