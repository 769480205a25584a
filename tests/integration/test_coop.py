"""An actions worker makes a report in Coop of each review item, and a refused one becomes a dead letter."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka import Producer

from tests.command import GUARDLINE
from tests.coop import API_KEY, Coop
from tests.reviewing import now_ms, review_item, verdict_id
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


def test_review_items_become_reports_and_a_refused_one_is_a_dead_letter(site: Site) -> None:
    coop = Coop()
    coop.item_types["message-type"] = {"content": "STRING", "room": "STRING"}
    with served(coop) as url:
        group = site.settings().kafka.group
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
            },
            "allow_http": True,
            "allow_networks": ["127.0.0.0/8"],
            "retry": {"first_s": 0.05, "max_s": 0.1},
            "undelivered": f"{group}.undelivered",
        }
        site.environment["GUARDLINE_ACTIONS__ENDPOINTS"] = json.dumps([endpoint])
        topics = site.settings().topics
        site.create_topics(topics.forget, topics.review_state, topics.deliveries, f"{group}.undelivered")
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
    assert [json.loads(one)["reportedItem"]["id"] for one in _read(site, f"{group}.undelivered")] == [verdict_id(2)]


def _read(site: Site, topic: str) -> list[bytes]:
    found = read(site.settings().kafka, [topic], from_beginning=True, follow=False)
    return [message.value() or b"" for message in found if message is not None]
