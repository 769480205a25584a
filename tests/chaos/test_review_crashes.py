"""The review worker is killed, or cut off, while people click."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress

import httpx
import pytest

from tests.chaos.dying_review import MOMENTS
from tests.reviewing import Desk, address, now_ms, review_item, verdict_id
from tests.site import Site, eventually
from tests.stack import Stack

pytestmark = pytest.mark.timeout(280)

ITEMS = 40
KILLS = 4


class Clicking(threading.Thread):
    """A person who takes items and decides, and repeats each request with its key until it is answered."""

    def __init__(self, desk: Desk, name: str, urls: list[str], has_ended: threading.Event) -> None:
        """`urls`: the newest address of the worker comes last."""
        super().__init__(daemon=True)
        self._name, self._urls, self._has_ended = name, urls, has_ended
        self._headers = {"Authorization": f"Bearer {desk.tokens[name]}"}
        self.shown: list[str] = []
        self.decided: dict[str, str] = {}
        self.has_clicked = threading.Event()

    def run(self) -> None:
        for number in range(10_000):
            taken = self._post("/v1/next", {}, f"{self._name}-next-{number}")
            if taken is None:
                return
            if taken.status_code == 204:
                time.sleep(0.05)
                continue
            assert taken.status_code == 200, taken.text
            item = taken.json()["verdict_id"]
            self.shown.append(item)
            self.has_clicked.set()
            decision = "block" if number % 2 else "allow"
            answer = self._post(f"/v1/items/{item}/decide", {"decision": decision}, f"{self._name}-decide-{number}")
            if answer is None:
                return
            assert answer.status_code == 200, answer.text
            self.decided[item] = decision

    def _post(self, path: str, body: dict[str, str], key: str) -> httpx.Response | None:
        while not self._has_ended.is_set():
            with suppress(httpx.TransportError), httpx.Client(base_url=self._urls[-1], timeout=30) as client:
                answer = client.post(path, json=body, headers={**self._headers, "Idempotency-Key": key})
                if answer.status_code < 500:
                    return answer
            time.sleep(0.05)
        return None


def test_each_decision_has_one_superseding_verdict_over_kills_at_any_moment(site: Site) -> None:
    """Nothing is shown to two people, nothing is forgotten, and nothing is decided twice."""
    desk = Desk(site, undo_s="0", answer_s="3")
    desk.create_topics()
    desk.start()
    desk.send([review_item(number, now_ms()) for number in range(ITEMS)])
    has_ended = threading.Event()
    urls = [desk.address]
    people = [Clicking(desk, name, urls, has_ended) for name in ("ana", "bob")]
    for person in people:
        person.start()
    moments = random.Random(7)
    try:
        for kill in range(KILLS):
            # Most moments are between a click and its answer: the command is read, applied, or being committed.
            people[kill % 2].has_clicked.clear()
            assert people[kill % 2].has_clicked.wait(40), "people click"
            time.sleep(moments.random() * 0.15)
            assert desk.process is not None
            desk.process.send(signal.SIGKILL)
            desk.process.wait()
            desk.start()
            urls.append(desk.address)
        eventually(lambda: sum(len(person.decided) for person in people) >= ITEMS, "all items are decided", 60)
    finally:
        has_ended.set()
    for person in people:
        person.join(40)
        assert not person.is_alive()
    shown = [item for person in people for item in person.shown]
    assert sorted(shown) == sorted(verdict_id(number) for number in range(ITEMS))
    wanted = {item: decision for person in people for item, decision in person.decided.items()}
    eventually(lambda: len(desk.superseding()) == ITEMS, "all decisions are published")
    found: dict[str, list[str]] = defaultdict(list)
    for item, verdicts in desk.superseding().items():
        found[item] += [str(verdict["decision"]) for verdict in verdicts]
    assert found == {item: [decision] for item, decision in wanted.items()}
    published = [record for _, record in desk.records("audit") if record and record["action"] == "published"]
    assert len(published) == ITEMS


@pytest.mark.parametrize("undo_s", ["0", "0.5"], ids=["published by the click", "published after the time to undo"])
def test_a_kill_just_before_or_just_after_the_commit_publishes_one_superseding_verdict(site: Site, undo_s: str) -> None:
    """Fails if one of the outputs is produced outside the transaction, or if a repeated click takes effect again."""
    desk = Desk(site, undo_s=undo_s)
    desk.create_topics()
    clicked: list[str] = []

    def click(item: str) -> None:
        headers = {"Idempotency-Key": f"click-{item}"}
        with desk.client("ana") as ana:
            answer = ana.post(f"/v1/items/{item}/decide", json={"decision": "block"}, headers=headers)
        assert answer.status_code == 200, answer.text

    for number, moment in enumerate(MOMENTS):
        item = verdict_id(number)
        dying = desk.start(sys.executable, "-m", "tests.chaos.dying_review", moment, item)
        desk.send([review_item(number, now_ms())])
        with desk.client("aud") as aud:
            eventually(lambda item=item: aud.get(f"/v1/items/{item}").status_code == 200, "the item is there")  # type: ignore[misc]
        for earlier in clicked:
            click(earlier)
        clicked.append(item)
        # The verdict is published by the click itself, or after its answer.
        with pytest.raises(httpx.TransportError) if undo_s == "0" else suppress(httpx.TransportError):
            click(item)
        assert dying.wait() == -signal.SIGKILL
    desk.start()
    for _ in range(2):
        for item in clicked:
            click(item)
        eventually(lambda: len(desk.superseding()) == len(clicked), "all decisions are published")
    states, audit = desk.records("review_state"), [record for _, record in desk.records("audit") if record]
    for item in clicked:
        (verdict,) = desk.superseding()[item]
        assert (verdict["decision"], verdict["decided_by"]) == ("block", "ana")
        (decided,) = (state for _, state in states if state and state["verdict_id"] == item and state["settled"])
        assert (decided["status"], decided["current"]) == ("decided", verdict["verdict_id"])
        actions = [record["action"] for record in audit if record["verdict_id"] == item]
        assert sorted(actions) == ["arrived", "decided", "published"]


def test_a_worker_that_comes_back_after_it_was_cut_off_ends_and_another_one_goes_on(site: Site, stack: Stack) -> None:
    """Its items are old. It would fence its successor, and decide again what the successor has decided."""
    desk = Desk(site)
    site.environment |= {"GUARDLINE_KAFKA__SESSION_TIMEOUT_S": "6"}
    desk.create_topics()
    old = desk.start()
    desk.send([review_item(number, now_ms()) for number in range(6)])
    eventually(lambda: desk.waiting() == 6, "the items wait")
    with desk.client("ana") as ana:
        assert ana.post(f"/v1/items/{verdict_id(0)}/decide", json={"decision": "block"}).status_code == 200
        old.send(signal.SIGSTOP)
        try:
            # A broken connection is a reason to replace the producer.
            stack.kill_kafka()
            stack.restart_kafka()
            new = site.worker(*desk.command, GUARDLINE_WORKER__ID="other")
            headers = {"Authorization": f"Bearer {desk.tokens['bob']}"}
            with httpx.Client(base_url=address(new), headers=headers, timeout=30) as bob:
                for number in range(1, 5):
                    path = f"/v1/items/{verdict_id(number)}/decide"
                    assert bob.post(path, json={"decision": "block"}).status_code == 200
                old.send(signal.SIGCONT)

                def has_ended() -> bool:
                    with suppress(httpx.TransportError):
                        ana.post(f"/v1/items/{verdict_id(1)}/decide", json={"decision": "allow"})
                    return old.popen.poll() is not None

                eventually(has_ended, "the worker that was cut off ends")
                assert old.wait() == 1

            def is_decided() -> bool:
                # The old worker may join the group again before it ends. The group then rebalances, which ends the
                # successor too, and a supervisor starts it again.
                nonlocal new
                if new.popen.poll() is not None:
                    assert "another process may work for the group now" in new.text, new.text
                    new = site.worker(*desk.command, GUARDLINE_WORKER__ID="other")
                path = f"/v1/items/{verdict_id(5)}/decide"
                with (
                    suppress(httpx.TransportError),
                    httpx.Client(base_url=address(new), headers=headers, timeout=30) as bob,
                ):
                    return bob.post(path, json={"decision": "block"}).status_code in {200, 409}
                return False

            eventually(is_decided, "the successor goes on, at once or after a restart", 60)
        finally:
            old.send(signal.SIGCONT)
    assert old.end["state"] == "failed", old.text
    assert new.popen.poll() is None
    found = {item: [one["decided_by"] for one in verdicts] for item, verdicts in desk.superseding().items()}
    assert found == {verdict_id(number): ["bob" if number else "ana"] for number in range(6)}
