"""The receiver that docs/actions.md shows works."""

from __future__ import annotations

import builtins
import http.server
import io
import re
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.unit.actions.deliveries import delivery, endpoint
from workers.actions.formats import format_of
from workers.actions.secrets import Secrets

PAGE = Path(__file__).parents[3] / "docs" / "actions.md"
SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="


def receiver_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = re.search(r"```python\n(import http.server\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    monkeypatch.setattr(builtins, "open", lambda _: io.StringIO(f"{SECRET}\n"))
    exec(found[1], names)
    monkeypatch.undo()
    return names["Receiver"]


def test_the_receiver_of_the_documentation_takes_each_delivery_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    class Receiver(receiver_class(monkeypatch)):  # type: ignore[misc]
        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    (tmp_path / "secret").write_text(SECRET)
    form = format_of(endpoint(), Secrets(endpoint(secret_files=[str(tmp_path / "secret")])))
    value = b'{"verdict_id":"v","decision":"block","event_id":"e1"}'
    body = form.body("verdict", {}, value, 1_795_873_985_000)
    assert body is not None
    one = delivery(1)
    one.body = body
    crossed = b'{"signal_id":"s","state":"raised","subject":"u-17","threshold_name":"warn"}'
    signal = delivery(2)
    signal.body = form.body("signal", {}, crossed, 1_795_873_985_000) or b""

    def send(body: bytes) -> int:
        call = form.call([one], 0.0 if body == b"old" else time.time())
        sent = call.body if body == b"old" else body
        request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}/", sent, call.headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    try:
        call = form.call([signal], time.time())
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.server_port}/", call.body, call.headers, method="POST"
        )
        urllib.request.urlopen(request, timeout=10).close()
        assert [send(body), send(body), send(body + b" "), send(b"old")] == [204, 204, 401, 401]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert capsys.readouterr().out == "signal.changed raised u-17 warn\nverdict.created block e1\n"


def test_the_receiver_of_the_documentation_serves_when_it_is_run() -> None:
    found = re.search(r"```python\n(import http.server\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    assert found[1].rstrip().endswith("Receiver).serve_forever()")
