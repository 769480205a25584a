"""The review worker with a real Kafka and real processes."""

from __future__ import annotations

import pytest

from tests.reviewing import Desk, now_ms, review_item
from tests.site import Site, eventually

pytestmark = pytest.mark.timeout(240)


def test_an_item_is_decided_and_its_superseding_verdict_is_published_once(site: Site) -> None:
    desk = Desk(site)
    desk.create_topics()
    desk.start()
    desk.send([review_item(number, now_ms()) for number in range(3)])
    with desk.client("ana") as ana, desk.client("bob") as bob:
        eventually(lambda: desk.waiting() == 3, "three items wait")
        first = ana.post("/v1/next", json={}).json()
        second = bob.post("/v1/next", json={}).json()
        assert first["verdict_id"] != second["verdict_id"]
        assert first["content"]["text"].startswith("message ")
        decided = ana.post(
            f"/v1/items/{first['verdict_id']}/decide",
            json={"decision": "block", "note": "A threat.", "severity": "Unsafe"},
            headers={"Idempotency-Key": "click-1"},
        )
        assert (decided.status_code, decided.json()["status"]) == (200, "decided")
        again = ana.post(
            f"/v1/items/{first['verdict_id']}/decide",
            json={"decision": "block", "note": "A threat.", "severity": "Unsafe"},
            headers={"Idempotency-Key": "click-1"},
        )
        assert again.json()["current"] == decided.json()["current"]
        late = bob.post(f"/v1/items/{first['verdict_id']}/decide", json={"decision": "allow"})
        assert (late.status_code, late.json()["by"]) == (409, "ana")
    (verdict,) = desk.superseding()[first["verdict_id"]]
    assert (verdict["decision"], verdict["decided_by"], verdict["note"]) == ("block", "ana", "A threat.")
    assert verdict["corrected"] == {"severity": "Unsafe", "categories": None}
    assert verdict["author_id"] == "u-17"
