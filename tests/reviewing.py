"""A review worker as a process, its clients, and what it has written."""

from __future__ import annotations

import json
import secrets
import time
from collections import defaultdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Producer

from tests.command import GUARDLINE
from tests.site import Process, Site, eventually
from workers.kafka.reader import read

ITEM = json.loads((Path(__file__).parent / "fixtures/contracts/review/1.3.json").read_text())

PEOPLE: dict[str, dict[str, Any]] = {
    "ana": {"role": "reviewer"},
    "bob": {"role": "reviewer"},
    "cem": {"role": "reviewer", "tenants": ["other"], "languages": ["de"]},
    "sue": {"role": "senior"},
    "aud": {"role": "auditor"},
    "coop": {"role": "service"},
}


def now_ms() -> int:
    return int(time.time() * 1000)


def verdict_id(number: int) -> str:
    return blake2b(str(number).encode(), digest_size=16).hexdigest()


def review_item(number: int, received_at: int = ITEM["timings"]["received_at"], **changes: Any) -> dict[str, Any]:
    """Give a review item as the moderation worker writes it. `received_at`: in milliseconds since 1970."""
    plain = {
        name: ITEM[name]
        for name in ITEM
        if name not in ("supersedes", "superseded_decision", "decided_by", "deciders", "note")
    }
    own = {"verdict_id": verdict_id(number), "event_id": f"e{number}", "text": f"message {number}", "corrected": None}
    return {**plain, **own, "timings": {"received_at": received_at, "judged_ms": 1.0}, **changes}


class Desk:
    """A site's review worker, and the tokens of some people."""

    command = (GUARDLINE, "worker", "review")

    def __init__(self, site: Site, **settings: str) -> None:
        self.site = site
        self.tokens = {name: secrets.token_hex(32) for name in PEOPLE}
        folder = Path(site.folder.name)
        for name, token in self.tokens.items():
            (folder / name).write_text(token)
        tokens = [{"name": name, "file": str(folder / name), **about} for name, about in PEOPLE.items()]
        site.environment |= {
            "GUARDLINE_REVIEW__PORT": "0",
            "GUARDLINE_REVIEW__TOKENS": json.dumps(tokens),
            "GUARDLINE_REVIEW__UNDO_S": "0",
            "GUARDLINE_WORKER__ID": "desk",
            **{f"GUARDLINE_REVIEW__{name.upper()}": value for name, value in settings.items()},
        }
        self.process: Process | None = None

    def create_topics(self) -> None:
        names = self.site.settings().topics
        self.site.create_topics(names.review_commands, names.review_state, names.audit, names.forget)

    def start(self, *program: str) -> Process:
        """Start the worker; `program` replaces the command."""
        self.process = self.site.worker(*(program or self.command))
        return self.process

    @property
    def address(self) -> str:
        assert self.process is not None
        return address(self.process)

    def client(self, name: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens[name]}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=30)

    def send(self, items: list[dict[str, Any]], topic: str | None = None) -> None:
        """Produce review items, with the key `room`, and their verdicts if no topic is given."""
        topics = self.site.settings().topics
        producer = Producer({"bootstrap.servers": self.site.settings().kafka.bootstrap_servers, "linger.ms": 5})
        for item in items:
            producer.produce(topic or topics.review, json.dumps(item).encode(), b"room")
            if topic is None:
                verdict = {name: value for name, value in item.items() if name not in ("text", "context")}
                producer.produce(topics.verdicts, json.dumps(verdict).encode(), b"room")
            producer.poll(0)
        assert producer.flush(30) == 0

    def records(self, topic: str) -> list[tuple[bytes, dict[str, Any] | None]]:
        """Give the keys and the values of the committed records of a topic, by its setting."""
        settings = self.site.settings()
        name = getattr(settings.topics, topic)
        return [
            (message.key() or b"", None if message.value() is None else json.loads(message.value() or b""))
            for message in read(settings.kafka, [name], from_beginning=True, follow=False)
            if message is not None
        ]

    def superseding(self) -> dict[str, list[dict[str, Any]]]:
        """Give the superseding verdicts by the id of the verdict that they supersede."""
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for _, value in self.records("verdicts"):
            if value is not None and value.get("supersedes"):
                found[value["supersedes"]].append(value)
        return found

    def waiting(self, name: str = "sue") -> int:
        with self.client(name) as client:
            return sum(queue["waiting"] for queue in client.get("/v1/queues").json()["queues"])


def address(process: Process) -> str:
    """Give the URL of the API, once it is served."""
    line: list[str] = []

    def is_served() -> bool:
        assert process.popen.poll() is None, process.text
        line[:] = [one for one in process.text.splitlines() if "serving the review API" in one]
        return bool(line)

    eventually(is_served, "the review API is served")
    return f"http://127.0.0.1:{json.loads(line[0])['port']}"
