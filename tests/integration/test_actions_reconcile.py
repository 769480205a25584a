"""`guardline actions`: what never arrived is found and made again, and statements of reasons are written to a file."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from typer.testing import CliRunner, Result

from tests.command import GUARDLINE
from tests.dsa_database import TOKEN, Database, errors_of, running
from tests.site import Site, eventually
from tests.verdicts import CANARY, superseding, verdict
from workers.cli.actions import app
from workers.kafka.reader import read
from workers.kafka.topics import create

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
REFUSED = 3
"""The number of the verdict that the receiver refuses."""


def id_of(number: int) -> str:
    return f"{number:032x}"


class Receiver(ThreadingHTTPServer):
    """Counts the ids that arrive, and refuses one of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.arrived: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        is_refused = self.headers["webhook-id"] == id_of(REFUSED)
        if not is_refused:
            self.server.arrived[self.headers["webhook-id"]] += 1
        self.send_response(422 if is_refused else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the output of the test free of it."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


def endpoints(site: Site, receiver: Receiver, database: Database) -> str:
    folder = Path(site.folder.name)
    (folder / "secret").write_text(SECRET)
    (folder / "token").write_text(TOKEN)
    name = site.settings().kafka.group
    common: dict[str, Any] = {
        "allow_http": True,
        "allow_networks": ["127.0.0.0/8"],
        "retry": {"first_s": 0.01, "max_s": 0.1},
    }
    return json.dumps(
        [
            {
                **common,
                "name": "platform",
                "url": f"http://127.0.0.1:{receiver.server_port}/hook",
                "secret_files": [str(folder / "secret")],
                "undelivered": f"{name}.undelivered.platform",
            },
            {
                **common,
                "name": "dsa",
                "format": "dsa",
                "url": database.url,
                "header_files": {"Authorization": str(folder / "token")},
                "statements": {"reference": "Rules, 3", "explanation": "Forbidden.", "territorial_scope": ["EU"]},
                "undelivered": f"{name}.undelivered.dsa",
            },
        ]
    )


def write(site: Site, *documents: dict[str, Any]) -> None:
    """Write verdicts to one partition, so that their offsets are known."""
    settings = site.settings()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for document in documents:
        producer.produce(settings.topics.verdicts, orjson.dumps(document), b"room", partition=0)
    assert producer.flush(30) == 0


def skip(site: Site, endpoint: str, offset: int) -> None:
    """Move the committed offset of an endpoint's group, as an operator may do."""
    kafka = site.settings().kafka
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": f"{kafka.group}.actions.{endpoint}"})
    try:
        place = TopicPartition(site.settings().topics.verdicts, 0, offset)
        eventually(lambda: bool(consumer.commit(offsets=[place], asynchronous=False)), "the offset is committed")
    finally:
        consumer.close()


def ended(site: Site) -> Counter[tuple[str, str]]:
    topic = site.settings().topics.deliveries
    found: Counter[tuple[str, str]] = Counter()
    for message in read(site.settings().kafka, [topic], from_beginning=True, follow=False):
        if message is not None:
            document = orjson.loads(message.value() or b"")
            found[(document["endpoint"], document["outcome"])] += 1
    return found


def command(site: Site, *arguments: str, code: int = 0) -> Result:
    """Run a command in this process: a process of its own would import everything again."""
    answer = CliRunner().invoke(app, arguments, env=site.environment)
    assert answer.exit_code == code, answer.output
    return answer


def states(site: Site, *arguments: str, code: int) -> tuple[dict[tuple[str, str], set[str]], str]:
    """Return the ids by endpoint and state, and the lines on standard error."""
    answer = command(site, "reconcile", "--json", *arguments, code=code)
    found: dict[tuple[str, str], set[str]] = {}
    for line in answer.stdout.splitlines():
        document = json.loads(line)
        found.setdefault((document["endpoint"], document["state"]), set()).add(document["id"])
    return found, answer.stderr


@pytest.mark.timeout(180)
def test_what_never_arrived_is_found_and_made_again_with_the_same_id(
    site: Site, receiver: Receiver, tmp_path: Path
) -> None:
    with running(Database()) as database:
        name = site.settings().kafka.group
        site.environment["GUARDLINE_TOPICS__DELIVERIES"] = f"{name}.deliveries"
        site.environment["GUARDLINE_ACTIONS__ENDPOINTS"] = endpoints(site, receiver, database)
        create(site.settings())
        early = [verdict(verdict_id=id_of(number)) for number in range(5)]
        early += [verdict(verdict_id=id_of(5), decision="review"), superseding("review", verdict_id=id_of(6))]
        write(site, *early)
        worker = site.worker(GUARDLINE, "worker", "actions")
        eventually(
            lambda: ended(site) == {("platform", "delivered"): 6, ("platform", "refused"): 1, ("dsa", "delivered"): 6},
            "every delivery has ended",
        )
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0, worker.text
        assert states(site, code=0) == ({("platform", "given up"): {id_of(REFUSED)}}, "")
        moved = json.loads(site.environment["GUARDLINE_ACTIONS__ENDPOINTS"])
        moved[0]["undelivered"] = f"{name}.undelivered.new"
        changed = {**site.environment, "GUARDLINE_ACTIONS__ENDPOINTS": json.dumps(moved)}
        warned = CliRunner().invoke(app, ["reconcile"], env=changed).stderr
        assert f"{name}.undelivered.new is missing" in warned
        assert warned.count("is missing") == 1

        late = [verdict(verdict_id=id_of(number)) for number in range(7, 12)]
        write(site, *late)
        for endpoint in ("platform", "dsa"):
            skip(site, endpoint, 9)
        lost, pending = {id_of(7), id_of(8)}, {id_of(number) for number in range(9, 12)}
        found, _ = states(site, code=3)
        assert found == {
            ("platform", "given up"): {id_of(REFUSED)},
            ("platform", "missing"): lost,
            ("platform", "pending"): pending,
            ("dsa", "missing"): lost,
            ("dsa", "pending"): pending,
        }
        found, said = states(site, "--resend", code=0)
        assert found[("platform", "missing")] == found[("dsa", "missing")] == lost
        assert "platform: made 2 of the 2 that were missing" in said
        assert receiver.arrived == Counter(map(id_of, [0, 1, 2, 4, 5, 6, 7, 8])), "each once"
        assert set(map(id_of, [0, 4, 6, 7, 8])) <= database.statements.keys()
        found, _ = states(site, "--endpoint", "dsa", code=0)
        assert found == {("dsa", "pending"): pending}

        file = tmp_path / "statements.jsonl"
        command(site, "statements", "--out", str(file), "--since", "2026-01-01T00:00:00Z")
        statements = [json.loads(line) for line in file.read_text().splitlines()]
        assert {one["puid"] for one in statements} == {id_of(number) for number in [*range(5), *range(6, 12)]}
        assert all(errors_of(one) == {} for one in statements)
        assert CANARY not in file.read_text()
        known = {one["puid"]: one for one in statements}
        assert all(database.statements[puid] == known[puid] for puid in database.statements), "the same, byte for byte"
