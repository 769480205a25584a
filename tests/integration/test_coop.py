"""Review items and appeals on their way to Coop, and back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from tests.command import GUARDLINE
from tests.coop import API_KEY, Coop, action_callback, appeal_callback
from tests.reviewing import Desk, now_ms, review_item, verdict_id
from tests.site import Site, eventually
from workers.kafka.reader import read

pytestmark = pytest.mark.timeout(120)


@contextmanager
def served(coop: Coop) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = coop.answer(self.path, dict(self.headers.items()), body)
            self.send_response(status)
            text = b"" if answer is None else json.dumps(answer).encode()
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/api/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def undelivered(site: Site) -> str:
    return f"{site.settings().kafka.group}.undelivered"


def actions_to(site: Site, url: str) -> None:
    """Let an actions worker of this site send review items and appeals to Coop."""
    endpoint = {
        "name": "coop",
        "url": url,
        "format": "coop",
        "kinds": ["review", "appeal"],
        "decisions": ["review"],
        "headers": {"X-API-KEY": API_KEY},
        "coop": {
            "item_type": "message-type",
            "user_type": "user-type",
            "fields": {"text": "content", "attributes.room": "room"},
            "actions": {"block": "action-block"},
        },
        "allow_http": True,
        "allow_networks": ["127.0.0.0/8"],
        "retry": {"first_s": 0.05, "max_s": 0.1},
        "undelivered": undelivered(site),
    }
    site.environment["GUARDLINE_ACTIONS__ENDPOINTS"] = json.dumps([endpoint])


def test_review_items_become_reports_and_a_refused_one_is_a_dead_letter(site: Site) -> None:
    coop = Coop()
    coop.item_types["message-type"] = {"content": "STRING", "room": "STRING"}
    with served(coop) as url:
        actions_to(site, url)
        topics = site.settings().topics
        site.create_topics(topics.forget, topics.review_state, topics.deliveries, undelivered(site))
        producer = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
        for number, attributes in ((1, {"room": "lobby"}), (2, {"room": ["no text"]}), (3, {})):
            item = review_item(number, now_ms(), attributes=attributes)
            producer.produce(topics.review, json.dumps(item).encode(), str(number))
        assert producer.flush(30) == 0
        site.worker(GUARDLINE, "worker", "actions")
        eventually(lambda: len(_read(site, topics.deliveries)) == 3, "each item has its outcome")
    reports = {document["reportedItem"]["id"]: document["reportedItem"]["data"] for _, document in coop.received}
    assert reports == {
        verdict_id(1): {"content": "message 1", "room": "lobby"},
        verdict_id(3): {"content": "message 3"},
    }
    assert [json.loads(one)["reportedItem"]["id"] for one in _read(site, undelivered(site))] == [verdict_id(2)]


def test_an_appeal_goes_to_coop_and_comes_back_as_a_superseding_verdict(site: Site) -> None:
    """Every step through Kafka: the report, the action, the appeal, and the decision about the appeal."""
    coop, key = Coop(), Path(site.folder.name) / "coop.pem"
    key.write_bytes(coop.public_key)
    desk = Desk(site, coop__public_key_file=str(key), coop__actions='{"action-block": "block"}')
    item = verdict_id(1)
    with served(coop) as url:
        actions_to(site, url)
        desk.create_topics()
        site.create_topics(site.settings().topics.deliveries, undelivered(site))
        site.worker(GUARDLINE, "worker", "actions")
        desk.start()
        desk.send([review_item(1, now_ms(), attributes={})])

        def sent(path: str) -> list[dict[str, Any]]:
            return [document for to, document in coop.received if to == path]

        def comes_back(document: dict[str, Any]) -> dict[str, Any]:
            body, headers = coop.signed(document)
            answer = httpx.post(f"{desk.address}/v1/coop/callback", content=body, headers=headers, timeout=30)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        eventually(lambda: len(sent("/api/v1/report")) == 1, "the item is a report in Coop")
        assert comes_back(action_callback(item))["decision"] == "block"
        (first,) = desk.superseding()[item]
        with desk.client("sue") as sue:
            assert sue.post("/v1/appeals", json={"verdict_id": item, "reason": "It was a quote."}).status_code == 200
        eventually(lambda: len(sent("/api/v1/report/appeal")) == 1, "the appeal is in Coop")
        (appeal,) = sent("/api/v1/report/appeal")
        assert (appeal["appealReason"], appeal["actionsTaken"]) == ("It was a quote.", ["action-block"])
        for _ in range(2):
            assert comes_back(appeal_callback(appeal["appealId"], item, "ACCEPT"))["decision"] == "allow"
    (second,) = desk.superseding()[first["verdict_id"]]
    assert (second["decision"], second["superseded_decision"]) == ("allow", "block")
    assert len(second["deciders"]) == 2
    assert [len(reports) for reports in (sent("/api/v1/report"), sent("/api/v1/report/appeal"))] == [1, 1]


def _read(site: Site, topic: str) -> list[bytes]:
    found = read(site.settings().kafka, [topic], from_beginning=True, follow=False)
    return [message.value() or b"" for message in found if message is not None]
