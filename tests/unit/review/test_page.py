"""The page over HTTP, without a browser: sessions, forms, texts that others wrote, and what a refusal looks like."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from tests.page.local import LocalDesk, token_of
from tests.reviewing import verdict_id
from workers.core.records import Output

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{ 7*7 }} \u202emoc.live\u202c \x00\x1b[31m"
ITEM = f"/review/items/{verdict_id(1)}"


@pytest.fixture
def desk(tmp_path: Path) -> LocalDesk:
    return LocalDesk(tmp_path)


class Browser:
    """A person's browser without scripts: it sends each form as it is on the page."""

    def __init__(self, desk: LocalDesk, name: str | None = "mara") -> None:
        self.client = TestClient(desk.app(), base_url="https://review.example", follow_redirects=True)
        self.page = self.client.get("/review/sign-in")
        if name is not None:
            self.page = self.client.post("/review/sign-in", data={"token": token_of(name)})
            assert self.page.status_code == 200, self.page.text

    def get(self, path: str) -> Response:
        self.page = self.client.get(path)
        return self.page

    def hidden(self, action: str) -> dict[str, str]:
        """Give the hidden fields of a form of the page."""
        form = re.search(rf'<form[^>]*action="[^"]*{action}[^"]*".*?</form>', self.page.text, re.DOTALL)
        assert form is not None, f"no form {action} in {self.page.text}"
        pairs = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[0])
        return {name: unescape(value) for name, value in pairs}

    def send(self, action: str, **fields: str | list[str]) -> Response:
        found = re.search(rf'<form[^>]*action="([^"]*{action}[^"]*)"', self.page.text)
        assert found is not None
        self.page = self.client.post(unescape(found[1]), data={**self.hidden(action), **fields})
        return self.page


def taken(desk: LocalDesk, **changes: Any) -> Browser:
    """Let an item arrive, and give the browser of the person who took it."""
    desk.add(1, **changes)
    browser = Browser(desk)
    assert browser.send("/next").status_code == 200
    assert 'id="decide"' in browser.page.text
    return browser


def test_a_decision_is_recorded_and_the_next_item_is_shown_with_the_way_to_undo_it(desk: LocalDesk) -> None:
    browser = taken(desk)
    desk.add(2)
    page = browser.send("/decide", decision="block", note="a threat", severity="Controversial", categories=["PII"])
    assert page.url.path == f"/review/items/{verdict_id(2)}"
    assert "Blocked." in page.text
    pending = desk.desk.items[verdict_id(1)].pending
    assert pending is not None
    assert (pending.by, pending.decision, pending.note, pending.severity) == (
        "mara",
        "block",
        "a threat",
        "Controversial",
    )
    assert pending.categories == ("PII",)
    page = browser.send("/undo")
    assert page.url.path == ITEM
    assert "Undone." in page.text
    assert desk.desk.items[verdict_id(1)].pending is None


async def test_a_decision_becomes_one_superseding_verdict_after_the_time_to_undo(desk: LocalDesk) -> None:
    taken(desk).send("/decide", decision="allow")
    await desk.tick()
    assert desk.verdicts == []
    desk.ahead_ms = 31_000
    await desk.tick()
    (verdict,) = desk.verdicts
    assert (verdict["supersedes"], verdict["decision"], verdict["decided_by"]) == (verdict_id(1), "allow", "mara")


def test_a_form_that_is_sent_twice_counts_once(desk: LocalDesk) -> None:
    browser = taken(desk)
    fields = {**browser.hidden("/decide"), "decision": "allow"}
    for _ in range(2):
        assert browser.client.post(f"{ITEM}/decide", data=fields).status_code == 200
    assert [step.action for step in desk.desk.items[verdict_id(1)].history].count("decided") == 1


def test_the_second_of_two_people_reads_who_was_first_and_keeps_what_was_typed(desk: LocalDesk) -> None:
    mara = taken(desk)
    desk.ahead_ms = 121_000
    jonas = Browser(desk, "jonas")
    jonas.get(ITEM)
    jonas.send("/lease")
    jonas.send("/decide", decision="allow")
    page = mara.send("/decide", decision="block", note="my reason")
    assert page.status_code == 409
    assert "Jonas was first and has decided allow." in page.text
    pending = desk.desk.items[verdict_id(1)].pending
    assert pending is not None
    assert pending.by == "jonas"


@pytest.mark.parametrize("fault", ["is_down", "is_silent"])
def test_a_form_that_kafka_did_not_store_keeps_its_note_and_its_key_without_the_text(
    tmp_path: Path, fault: str
) -> None:
    desk = LocalDesk(tmp_path, answer_s=1)
    browser = taken(desk)
    key, audited = browser.hidden("/decide")["key"], len(desk.outputs)
    setattr(desk, fault, True)
    # The worker refuses the last one itself. Kafka would have to record that the person sees the text again.
    for decision, status in (("block", 503), ("nothing", 422)):
        page = browser.send("/decide", decision=decision, note="my reason")
        assert (page.status_code, browser.hidden("/decide")["key"]) == (status, key)
        assert ">my reason</textarea>" in page.text
        assert "message 1" not in page.text
        assert ("Not recorded yet" in page.text) == (status == 503)
    assert (desk.desk.items[verdict_id(1)].pending, len(desk.outputs)) == (None, audited)
    setattr(desk, fault, False)
    assert "Blocked." in browser.send("/decide", decision="block", note="my reason").text


def test_skip_and_escalate_leave_the_item_to_others(desk: LocalDesk) -> None:
    page = taken(desk).send("/decide", decision="skip")
    assert page.url.path == "/review/"
    assert desk.desk.items[verdict_id(1)].skipped_by == ("mara",)
    desk.add(2)
    browser = Browser(desk, "jonas")
    browser.client.post("/review/next", data=browser.hidden("/next"))
    browser.get(f"/review/items/{verdict_id(2)}")
    browser.send("/lease") if "/lease" in browser.page.text else None
    assert "Sent to a senior person." in browser.send("/decide", decision="escalate").text


def test_a_skip_that_is_recorded_does_not_look_refused_if_kafka_fails_after_it(desk: LocalDesk) -> None:
    browser = taken(desk)
    desk.add(2)
    send = desk._send
    skipped: list[Output] = []

    async def fail_after_one(output: Output) -> None:
        desk.is_down = bool(skipped)
        skipped.append(output)
        await send(output)

    desk.service._send = fail_after_one
    page = browser.send("/decide", decision="skip")
    assert (page.status_code, page.url.path) == (200, "/review/")
    assert "The skip is recorded. The next item could not be taken" in page.text
    assert "Not recorded" not in page.text
    assert (desk.desk.items[verdict_id(1)].skipped_by, len(skipped)) == (("mara",), 2)


def test_the_queue_stays_narrowed_from_item_to_item(desk: LocalDesk) -> None:
    for number, tenant in ((1, "arcade"), (2, "campus"), (3, "arcade"), (4, "campus")):
        desk.add(number, tenant_id=tenant)
    browser = Browser(desk)
    seen = [browser.client.post("/review/next", data={**browser.hidden("/next"), "tenant": "campus"})]
    browser.page = seen[0]
    seen.append(browser.send("/decide", decision="allow"))
    assert {page.url.path for page in seen} == {f"/review/items/{verdict_id(number)}" for number in (2, 4)}
    assert browser.send("/decide", decision="allow").url.path == "/review/"


@pytest.mark.parametrize(
    "place", [{"text": HOSTILE}, {"attributes": {HOSTILE: HOSTILE}}, {"tenant_id": HOSTILE}, {"author_id": HOSTILE}]
)
def test_what_others_wrote_is_shown_and_never_obeyed(desk: LocalDesk, place: dict[str, Any]) -> None:
    page = taken(desk, **place).page.text
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7*7 }}" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)
    assert ">U+202E<" in page or "\\u202e" in page


def test_every_answer_keeps_scripts_frames_and_caches_out(desk: LocalDesk) -> None:
    browser = taken(desk)
    for page in (
        browser.page,
        browser.get("/review/items/x"),
        browser.get("/review/"),
        Browser(desk, None).get("/review/"),
    ):
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?![^>]* src=)|\bstyle=|\bon\w+=|https?://", page.text)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(desk: LocalDesk) -> None:
    client = TestClient(desk.app(), base_url="https://review.example", follow_redirects=False)
    cookie = client.post("/review/sign-in", data={"token": token_of("mara")}).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Secure", "Path=/review"} <= {part.strip() for part in cookie.split(";")}
    local = TestClient(desk.app(), base_url="http://127.0.0.1:9470", follow_redirects=False)
    assert "Secure" not in local.post("/review/sign-in", data={"token": token_of("mara")}).headers["set-cookie"]


def test_a_form_without_the_value_of_the_session_changes_nothing(desk: LocalDesk) -> None:
    mara, jonas = taken(desk), Browser(desk, "jonas")
    foreign = jonas.hidden("/sign-out")["csrf"]
    for csrf in ("", "x", foreign):
        for path in (
            f"{ITEM}/decide",
            f"{ITEM}/heartbeat",
            f"{ITEM}/undo",
            f"{ITEM}/release",
            "/review/next",
            "/review/sign-out",
        ):
            assert mara.client.post(path, data={"csrf": csrf, "decision": "allow"}).status_code == 403
    item = desk.desk.items[verdict_id(1)]
    assert item.pending is None
    assert item.lease is not None


def test_a_form_from_another_site_is_refused(desk: LocalDesk) -> None:
    browser = taken(desk)
    fields = {**browser.hidden("/decide"), "decision": "allow"}
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert browser.client.post(f"{ITEM}/decide", data=fields, headers=headers).status_code == 403
    assert browser.client.post("/review/sign-in", data={"token": token_of("mara")}, headers=headers).status_code == 403


def test_a_session_ends_by_time_by_signing_out_and_with_its_token(desk: LocalDesk, tmp_path: Path) -> None:
    browser = taken(desk)
    cookies = dict(browser.client.cookies)
    desk.ahead_ms = 12 * 3_600_000 + 1_000
    page = browser.send("/decide", decision="allow")
    assert page.status_code == 401
    assert "Your session is over." in page.text
    desk.ahead_ms = 0
    browser.get("/review/")
    browser.send("/sign-out")
    copied = TestClient(browser.client.app, base_url="https://review.example", cookies=cookies)
    assert "Sign in" in copied.get("/review/").text
    again = Browser(desk)
    (tmp_path / "mara").write_text("another-token-" + "0" * 32)
    restarted = TestClient(desk.app(), base_url="https://review.example", cookies=dict(again.client.cookies))
    assert "Your session is over." in restarted.get("/review/").text


@pytest.mark.parametrize(
    "cookie", ["", "a", "a.b.c.d", "bWFyYQ.99999999999.00.aa", ".." * 20, "é.1.2.3", "bWFyYQ.٣.0.0"]
)
def test_a_made_up_cookie_is_no_session(desk: LocalDesk, cookie: str) -> None:
    client = TestClient(desk.app(), base_url="https://review.example")
    page = client.get("/review/", headers={b"Cookie": f"guardline_review={cookie}".encode()})
    assert "Sign in" in page.text


@pytest.mark.parametrize(
    ("to", "path"),
    [
        (ITEM, ITEM),
        ("https://evil.example/review/", "/review/"),
        ("//evil.example", "/review/"),
        ("/review//evil.example", "/review/"),
        ("/review/\\evil.example", "/review/"),
        ("/review/sign-out", "/review/"),
        ("/v1/queues", "/review/"),
    ],
)
def test_signing_in_leads_back_to_own_pages_only(desk: LocalDesk, to: str, path: str) -> None:
    client = TestClient(desk.app(), base_url="https://review.example", follow_redirects=False)
    answer = client.post("/review/sign-in", data={"token": token_of("mara"), "to": to})
    assert answer.headers["location"] == path


def test_only_people_sign_in_and_an_auditor_sees_no_text(desk: LocalDesk) -> None:
    client = TestClient(desk.app(), base_url="https://review.example")
    assert "for software" in client.post("/review/sign-in", data={"token": token_of("bot")}).text
    assert "not valid" in client.post("/review/sign-in", data={"token": "guessed"}).text
    desk.add(1, text="the hidden words")
    page = Browser(desk, "otto").get(ITEM).text
    assert "the hidden words" not in page
    assert "The role auditor does not see texts." in page
    assert "Take this item" not in page


def test_a_senior_reopens_a_decided_item_and_others_cannot(desk: LocalDesk, tmp_path: Path) -> None:
    at_once = LocalDesk(tmp_path, undo_s=0)
    taken(at_once).send("/decide", decision="block")
    assert "Reopen" not in Browser(at_once, "jonas").get(ITEM).text
    senior = Browser(at_once, "sena")
    assert "mara decided block." in senior.get(ITEM).text
    senior.send("/reopen", note="look again")
    assert at_once.desk.items[verdict_id(1)].status == "reopened"


@pytest.mark.parametrize(("change", "status"), [("reopen", "reopened"), ("appeal", "appealed")])
def test_a_note_to_reopen_or_appeal_stays_in_its_form_while_kafka_is_down(
    tmp_path: Path, change: str, status: str
) -> None:
    desk = LocalDesk(tmp_path, undo_s=0)
    taken(desk).send("/decide", decision="block")
    senior = Browser(desk, "sena")
    senior.get(ITEM)
    key = senior.hidden(f"/{change}")["key"]
    desk.is_down = True
    for _ in range(2):
        page = senior.send(f"/{change}", note="look <again>")
        assert (page.status_code, senior.hidden(f"/{change}")["key"]) == (503, key)
        assert page.text.count(">look &lt;again&gt;</textarea>") == 1
        assert "Not recorded yet" in page.text
        assert "message 1" not in page.text
    desk.is_down = False
    page = senior.send(f"/{change}", note="look <again>")
    assert (page.status_code, desk.desk.items[verdict_id(1)].status) == (200, status)


def test_the_second_of_two_people_does_not_see_what_the_first_decided(tmp_path: Path) -> None:
    desk = LocalDesk(tmp_path, undo_s=0, four_eyes=("Violent",))
    browser = taken(desk)
    assert "needs two people" in browser.page.text
    browser.send("/decide", decision="block", note="the first note")
    page = Browser(desk, "jonas").get(ITEM).text
    assert "second opinion" in page
    assert "the first note" not in page
    assert 'class="decision block"' not in page


def test_unknown_pages_and_items_have_a_page_with_the_way_back(desk: LocalDesk) -> None:
    browser = Browser(desk)
    for path in (f"/review/items/{verdict_id(9)}", "/review/items/x", "/review/nothing", "/review/items?id=zz"):
        page = browser.get(path)
        assert page.status_code == 404
        assert 'href="/review/"' in page.text
    assert (
        browser.client.post(f"/review/items/{verdict_id(9)}/decide", data=browser.hidden("/sign-out")).status_code
        == 404
    )


@pytest.mark.parametrize("fields", [{}, {"decision": "perhaps"}, {"decision": "allow", "severity": "Bad"}])
def test_a_form_that_the_page_did_not_make_is_refused(desk: LocalDesk, fields: dict[str, str]) -> None:
    browser = taken(desk)
    assert browser.send("/decide", **fields).status_code == 422
    assert desk.desk.items[verdict_id(1)].pending is None


def test_the_page_says_why_a_person_gets_no_item_although_items_wait(tmp_path: Path) -> None:
    desk = LocalDesk(tmp_path, undo_s=0)
    browser = taken(desk)
    browser.send("/decide", decision="skip")
    desk.ahead_ms = 2_000
    assert "No other item is for you now." not in browser.get("/review/").text
    assert 'id="decide"' in browser.send("/next").text
    browser.send("/decide", decision="escalate")
    desk.ahead_ms = 4_000
    browser.get("/review/")
    assert "No other item is for you now." in browser.send("/next").text


def test_an_undo_gives_back_the_item_that_was_shown_after_the_decision(desk: LocalDesk) -> None:
    browser = taken(desk)
    desk.add(2)
    browser.send("/decide", decision="block")
    assert desk.desk.items[verdict_id(2)].lease is not None
    page = browser.send("/undo")
    assert (page.url.path, "Undone." in page.text) == (ITEM, True)
    leases = {number: desk.desk.items[verdict_id(number)].lease for number in (1, 2)}
    assert [(number, lease is not None) for number, lease in leases.items()] == [(1, True), (2, False)]


def test_the_bare_address_leads_to_the_page(desk: LocalDesk) -> None:
    browser = Browser(desk)
    assert browser.get("/").url.path == "/review/"


def test_a_heartbeat_keeps_the_lease_and_says_when_it_is_lost(desk: LocalDesk) -> None:
    browser = taken(desk)
    csrf = {"csrf": browser.hidden("/decide")["csrf"]}
    desk.ahead_ms = 100_000
    assert browser.client.post(f"{ITEM}/heartbeat", data=csrf).json()["clock"].endswith("UTC")
    desk.ahead_ms = 200_000
    assert browser.client.post(f"{ITEM}/heartbeat", data=csrf).status_code == 200
    desk.ahead_ms = 400_000
    assert browser.client.post(f"{ITEM}/heartbeat", data=csrf).status_code == 409


def test_a_long_text_and_a_flood_of_hidden_characters_stay_small(desk: LocalDesk) -> None:
    page = taken(desk, text="\u202e" * 60_000 + "a\u200b" * 2_000).page.text
    assert "U+202E×60000" in page
    assert len(page) < 400_000
