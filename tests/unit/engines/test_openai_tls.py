"""The engine for servers behind HTTPS: certificates of one's own, on either side, and the key."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.unit.engines.cases import openai_engine
from tests.unit.engines.reference import read_reference
from tests.unit.engines.replay import KINDS, PROMPTS, Kind, Replay
from workers.errors import Misconfigured, Unavailable


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """What the server listens with; a test may ask more of it before the first connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def server(request: pytest.FixtureRequest, tls: ssl.SSLContext) -> AsyncIterator[Replay]:
    kind: Kind = request.param
    server = Replay(kind)
    runner = await server.start(tls)
    yield server
    await runner.cleanup()


async def assert_it_scores(server: Replay, **options: Any) -> None:
    engine = openai_engine(server.url, **options)
    await engine.start()
    reference = read_reference()
    rows = await engine.score(reference.prompts[:PROMPTS], reference.candidates)
    assert rows[0] == pytest.approx(reference.scores[0], abs=1e-3)
    await engine.close()


async def test_a_certificate_of_ones_own_authority_is_trusted_and_the_key_goes_along(
    server: Replay, ca_file: Path
) -> None:
    await assert_it_scores(server, ca_file=ca_file, api_key="secret")
    assert set(server.headers) == {"Bearer secret"}


async def test_an_unknown_authority_is_refused_and_nothing_is_sent(server: Replay, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    for ca_file in (None, other):
        with pytest.raises(
            Misconfigured, match=r"guard\.openai\.ca_file: .* is not trusted: .*CERTIFICATE_VERIFY_FAILED"
        ):
            await openai_engine(server.url, ca_file=ca_file, api_key="secret").start()
    assert server.asked == []


async def test_a_certificate_for_another_name_is_refused(server: Replay, ca_file: Path) -> None:
    named_otherwise = server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(Misconfigured, match=r"guard\.openai\.ca_file: .*not valid for 'localhost'"):
        await openai_engine(named_otherwise, ca_file=ca_file).start()
    assert server.asked == []


async def test_a_server_may_ask_for_a_certificate_of_ours(
    server: Replay, authority: trustme.CA, tls: ssl.SSLContext, ca_file: Path, tmp_path: Path
) -> None:
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    with pytest.raises(Unavailable, match=r"misses a certificate of ours \(guard\.openai\.cert_file\)"):
        await openai_engine(server.url, ca_file=ca_file).start()
    ours = authority.issue_cert("worker.inside")
    cert, key, both = (tmp_path / name for name in ("cert.pem", "key.pem", "both.pem"))
    ours.cert_chain_pems[0].write_to_path(str(cert))
    ours.private_key_pem.write_to_path(str(key))
    ours.private_key_and_cert_chain_pem.write_to_path(str(both))
    await assert_it_scores(server, ca_file=ca_file, cert_file=cert, key_file=key)
    await assert_it_scores(server, ca_file=ca_file, cert_file=both)


@pytest.mark.parametrize(
    ("setting", "name"),
    [("ca_file", "none.pem"), ("ca_file", "empty.pem"), ("cert_file", "empty.pem"), ("key_file", "x")],
)
async def test_a_file_that_cannot_be_used_is_a_sentence(tmp_path: Path, setting: str, name: str) -> None:
    (tmp_path / "empty.pem").write_text("")
    options: dict[str, Any] = {setting: tmp_path / name}
    with pytest.raises(Misconfigured, match=rf"guard\.openai\.{setting}: "):
        await openai_engine("https://127.0.0.1:1", **options).start()
