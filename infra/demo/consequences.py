"""What a verdict sets in motion, in the demo: strikes become a signal, a person decides, and a webhook says so."""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from infra.devstack import children
from workers.actions.signing import read_secret, signed_headers
from workers.settings import Settings

KINDS = ("aggregates", "review", "actions")
REVIEWER = "mara"
STRIKES = {"thresholds": [{"name": "repeated harm", "at": 3}]}
"""The part of a tenant's policy: three strikes of an author raise a signal."""


class Seen:
    """The signals and the verdicts of people that a reader has seen, by their ids. `say` prints the first of each."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.signals: dict[str, dict[str, Any]] = {}
        self.superseding: dict[str, dict[str, Any]] = {}
        self._say = say

    def take(self, topic: str, document: dict[str, Any], settings: Settings) -> bool:
        """Count a signal or a verdict of a person. Gives whether the record was one."""
        if topic == settings.topics.signals:
            is_first = not any(signal["kind"] == "author_strikes" for signal in self.signals.values())
            if document["kind"] == "author_strikes" and is_first:
                self._say(
                    f"signal: {document['subject']} of {document['tenant_id']} has {document['value']:g} strikes; "
                    f"{document['threshold_name']!r} begins at {document['threshold']:g}"
                )
            self.signals[document["signal_id"]] = document
            return True
        if topic == settings.topics.verdicts and document.get("supersedes"):
            if not self.superseding:
                self._say(
                    f"verdict {document['verdict_id'][:8]} supersedes {document['supersedes'][:8]}: "
                    f"{document['superseded_decision']}, then {document['decision']} by {document['decided_by']}"
                )
            self.superseding[document["verdict_id"]] = document
            return True
        return False


class Consequences:
    """Three more workers, a reviewer, and a receiver of webhooks, which serves from the beginning.

    Attributes:
        received: the valid calls that the receiver got, by their ids: the type of each.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.received: dict[str, str] = {}
        self._folder = folder
        self._say = say
        self._secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
        self._token = secrets.token_hex(32)
        self._receiver = _receiver(self._secret, self._take_call)
        # From here on, because `close` waits for a loop that serves, also if the demo ends before `start`.
        threading.Thread(target=self._receiver.serve_forever, daemon=True).start()

    def settings(self) -> dict[str, Any]:
        """Write the files of the secrets, and give the settings of the three workers."""
        token, secret = self._folder / "token", self._folder / "webhook-secret"
        token.write_text(self._token, encoding="utf-8")
        secret.write_text(self._secret, encoding="utf-8")
        port = self._receiver.server_address[1]
        return {
            "review": {"port": 0, "undo_s": 0, "tokens": [{"name": REVIEWER, "role": "reviewer", "file": str(token)}]},
            "actions": {
                "endpoints": [
                    {
                        "name": "platform",
                        "url": f"http://127.0.0.1:{port}/moderation",
                        "secret_files": [str(secret)],
                        "kinds": ["superseding"],
                        "decisions": ["allow", "review", "block"],
                        "allow_http": True,
                        "allow_networks": ["127.0.0.0/8"],
                    }
                ]
            },
        }

    def start(self, config: Path, command: Callable[[str, str], list[str]]) -> dict[str, subprocess.Popen[bytes]]:
        """Start the workers and the reviewer. `command` gives the command of a kind of worker with an id."""
        with_config = ["env", f"GUARDLINE_CONFIG={config}"]
        started = {
            kind: children.spawn([*with_config, *command(kind, kind)], self._folder / f"worker-{kind}.log")
            for kind in KINDS
        }
        threading.Thread(target=self._decide, daemon=True).start()
        return started

    def missing(self, seen: Seen) -> list[str]:
        """Name what has not come yet of a signal of strikes, a verdict of a person, and its webhook."""
        has_strikes = any(signal["kind"] == "author_strikes" for signal in seen.signals.values())
        has_webhook = bool(seen.superseding) and self.received.keys() >= seen.superseding.keys()
        wanted = {
            "a signal of strikes": has_strikes,
            "a reviewer's verdict": bool(seen.superseding),
            "its webhook": has_webhook,
        }
        return [what for what, is_there in wanted.items() if not is_there]

    def close(self) -> None:
        """Stop receiving."""
        self._receiver.shutdown()
        self._receiver.server_close()

    def _decide(self) -> None:
        """Decide one item, as soon as the review worker has one."""
        address = _address(self._folder / "worker-review.log")
        wait = threading.Event()
        while address is None:
            wait.wait(0.1)
            address = _address(self._folder / "worker-review.log")
        while (item := self._ask(f"{address}/v1/next", {})) is None:
            wait.wait(0.2)
        self._say(f"a reviewer reads an item of {item['tenant_id']} ({item['severity']}) and blocks it")
        self._ask(
            f"{address}/v1/items/{item['verdict_id']}/decide", {"decision": "block", "note": "the demo's decision"}
        )

    def _ask(self, url: str, body: dict[str, Any]) -> dict[str, Any] | None:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - this machine
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - this machine
            found: dict[str, Any] | None = json.loads(answer.read()) if answer.status == 200 else None
            return found

    def _take_call(self, message_id: str, body: bytes) -> None:
        kind = str(json.loads(body)["type"])
        if message_id not in self.received:
            self._say(f"webhook received: {kind}, webhook-id {message_id[:8]}; its signature is valid")
        self.received[message_id] = kind


def _address(log: Path) -> str | None:
    """Find where the review worker serves its API."""
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        if "serving the review API" in line:
            return f"http://127.0.0.1:{json.loads(line)['port']}"
    return None


def _receiver(secret: str, take: Callable[[str, bytes], None]) -> ThreadingHTTPServer:
    """Make a receiver as a platform has one: it checks the signature before it reads the call."""
    key = read_secret(secret)

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message_id, sent_at = self.headers["webhook-id"], int(self.headers["webhook-timestamp"])
            expected = signed_headers([key], message_id, sent_at, body)["webhook-signature"]
            is_valid = secrets.compare_digest(expected, self.headers["webhook-signature"])
            if is_valid:
                take(message_id, body)
            self.send_response(204 if is_valid else 401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
