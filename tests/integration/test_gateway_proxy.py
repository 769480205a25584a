"""`guardline gateway` as a process before a model server: streams, a drain, a kill, and what it writes to Kafka."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from schemas.stream import Intervention, StreamVerdict
from tests.checkpoints.stream import WINDOW, write_stream
from tests.command import GUARDLINE
from tests.servers.model_server import DONE, ModelServer, model_server, said
from tests.site import Process, Site, eventually
from tests.stack import Stack
from workers.guard.stream_convert import convert_stream
from workers.kafka.reader import read

pytestmark = pytest.mark.timeout(240)

MODEL = "models/{model}"
USER: Any = [{"role": "user", "content": "hello"}]
POLICIES = {
    "mild": {"stream": {"cut_prompt": None, "cut_unsafe": None}},
    # The checkpoint has random weights: every position counts as Unsafe.
    "strict": {"stream": {"cut_prompt": None, "cut_unsafe": 1, "threshold": 0.0001, "replacement": "[removed]"}},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = write_stream(tmp_path_factory.mktemp("stream"), window=WINDOW)
    converted = written / "converted"
    convert_stream(written, converted, "float32")
    return converted


class Gateways:
    """Gateways before one model server, with a client of each tenant."""

    def __init__(self, site: Site, folder: Path, model: ModelServer, checkpoint: Path) -> None:
        self._site = site
        self._keys = {tenant: secrets.token_hex(32) for tenant in POLICIES}
        for tenant, policy in POLICIES.items():
            (folder / tenant).write_text(self._keys[tenant])
            (folder / f"{tenant}.json").write_text(json.dumps(policy))
            site.command("policy", "set", tenant, folder / f"{tenant}.json")
        keys = [{"name": tenant, "tenant": tenant, "file": str(folder / tenant)} for tenant in POLICIES]
        self._changes = {
            "GUARDLINE_GATEWAY__KEYS": json.dumps(keys),
            "GUARDLINE_GATEWAY__PORT": "0",
            "GUARDLINE_GATEWAY__PUBLISH": "true",
            # The guard of texts is not loaded: there is none.
            "GUARDLINE_GATEWAY__GUARD_ROUTES": "false",
            "GUARDLINE_GUARD__MODEL": str(folder / "no-model"),
            "GUARDLINE_GATEWAY__UPSTREAM__URL": f"http://127.0.0.1:{model.port}",
            "GUARDLINE_STREAMS__MODEL": str(checkpoint),
            "GUARDLINE_STREAMS__THREADS": "1",
            "GUARDLINE_WORKER__GRACE_S": "1",
        }

    def start(self) -> tuple[Process, openai.AsyncOpenAI, openai.AsyncOpenAI]:
        """Start a gateway, and give it with the clients of both tenants."""
        process = self._site.worker(GUARDLINE, "gateway", **self._changes)
        eventually(lambda: "serving the gateway" in process.text or process.popen.poll() is not None, "it serves")
        (line,) = [line for line in process.text.splitlines() if "serving the gateway" in line]
        url = f"http://127.0.0.1:{json.loads(line)['port']}/v1"
        mild, strict = (
            openai.AsyncOpenAI(base_url=url, api_key=self._keys[tenant], max_retries=0) for tenant in POLICIES
        )
        return process, mild, strict


async def test_a_gateway_cuts_drains_publishes_and_never_ends_a_stream_in_silence(
    site: Site, stack: Stack, tmp_path: Path, checkpoint: Path
) -> None:
    topics = site.settings().topics
    site.create_topics(topics.stream_verdicts, topics.interventions)
    async with model_server() as model:
        model.script("ends", *said("one ", "two ", "three"), DONE)
        model.script("hangs", *said(*["word "] * 50)[:-1], asyncio.Event())
        gateways = Gateways(site, tmp_path, model, checkpoint)

        process, mild, strict = gateways.start()
        assert await whole(mild, "ends") == ("one two three", "stop")
        assert await whole(strict, "ends") == ("[removed]", "content_filter")
        assert await served(mild) == {f"/v1/{path}" for path in ("chat/completions", "completions", "models", MODEL)}
        with pytest.raises(openai.NotFoundError, match=r"/v1/moderations is off: gateway\.guard_routes"):
            await mild.moderations.create(input="hello")
        drained = await begun(mild)
        process.send(signal.SIGTERM)
        with pytest.raises(openai.APIError) as ended:
            await rest_of(drained)
        assert ended.value.code == "draining"
        assert await asyncio.to_thread(process.wait) == 0
        await mild.close()
        await strict.close()

        process, mild, strict = gateways.start()
        with stack.frozen_kafka():  # No answer waits for Kafka, and no cut.
            assert await whole(mild, "ends") == ("one two three", "stop")
            assert await whole(strict, "ends") == ("[removed]", "content_filter")
            await asyncio.to_thread(eventually, lambda: "Kafka does not store" in process.text, "the log says so")
            assert process.metric("guardline_gateway_unpublished_records") == 3
            assert process.get("/readyz")[0] == 200
        await asyncio.to_thread(
            eventually, lambda: process.metric("guardline_gateway_unpublished_records") == 0, "all is written"
        )
        killed = await begun(mild)
        process.send(signal.SIGKILL)
        with pytest.raises((httpx.TransportError, openai.APIError)):
            await rest_of(killed)
        await asyncio.to_thread(eventually, lambda: model.ends[5:] == ["gone"], "the call of the model server ended")
        await mild.close()
        await strict.close()

    def published(topic: str) -> list[bytes]:
        found = read(site.settings().kafka, [topic], from_beginning=True, follow=False)
        return [message.value() or b"" for message in found if message is not None]

    verdicts = [StreamVerdict.model_validate_json(value) for value in published(topics.stream_verdicts)]
    cuts = [Intervention.model_validate_json(value) for value in published(topics.interventions)]
    assert [(one.tenant_id, one.outcome) for one in sorted(verdicts, key=lambda one: one.source.timestamp or 0)] == [
        ("mild", "closed"),
        ("strict", "cut"),
        ("mild", "closed"),
        ("mild", "closed"),
        ("strict", "cut"),
    ]
    assert [(cut.tenant_id, cut.shown_chars, cut.replacement) for cut in cuts] == [("strict", 0, "[removed]")] * 2
    assert "word" not in process.text


async def served(client: openai.AsyncOpenAI) -> set[str]:
    """Give the paths that the gateway itself documents."""
    document = await client.get("../openapi.json", cast_to=httpx.Response)
    return set(document.json()["paths"])


async def begun(client: openai.AsyncOpenAI) -> Any:
    """Give a stream of which a text has arrived."""
    stream = await client.chat.completions.create(model="hangs", messages=USER, stream=True)
    async for one in stream:
        if one.choices[0].delta.content:
            break
    return stream


async def rest_of(stream: Any) -> list[Any]:
    return [one async for one in stream]


async def whole(client: openai.AsyncOpenAI, model: str) -> tuple[str, str | None]:
    chunks = await rest_of(await client.chat.completions.create(model=model, messages=USER, stream=True))
    return "".join(one.choices[0].delta.content or "" for one in chunks), chunks[-1].choices[0].finish_reason
