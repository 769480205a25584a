"""Records what a real server answers to the engine, as `Replay` gives it again in the everyday tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.unit.engines.cases import openai_engine
from tests.unit.engines.reference import COMPLETION_TOKENS, read_reference
from tests.unit.engines.replay import PROMPTS
from workers.guard.load import checkpoint_folder

Json = dict[str, Any]


async def exchanges_with(url: str, ask_path: str, refused: Sequence[Json]) -> list[Json]:
    """Run the engine against the server, send prompts that it has to refuse, and return every exchange once."""
    exchanges: list[Json] = []

    async def note(response: httpx.Response) -> None:
        await response.aread()
        asked = response.request
        sent = json.loads(asked.content) if asked.content else None
        exchange = {"method": asked.method, "path": asked.url.path, "sent": sent, "status": response.status_code}
        if sent is not None or asked.url.path not in [known["path"] for known in exchanges]:
            exchanges.append({**exchange, "answer": response.text})

    reference = read_reference()
    engine = openai_engine(url)
    send = httpx.AsyncClient.request

    async def noted(self: httpx.AsyncClient, *arguments: Any, **options: Any) -> httpx.Response:
        response = await send(self, *arguments, **options)
        await note(response)
        return response

    httpx.AsyncClient.request = noted  # type: ignore[method-assign]  # what is recorded is what the engine sends
    await engine.start()
    await engine.score(reference.prompts[:PROMPTS], reference.candidates)
    await engine.complete(reference.prompts[:PROMPTS], COMPLETION_TOKENS)
    await engine.close()
    async with httpx.AsyncClient(base_url=url) as client:
        for body in refused:
            await client.request("POST", ask_path, json=body)
    return exchanges


def write(file: str, exchanges: Sequence[Json], named: Callable[[str], str] = str) -> None:
    """Write the recording, without the names of this machine's folders."""
    folder = str(checkpoint_folder("guard-nano", engine="openai"))
    rows = [json.dumps(exchange, ensure_ascii=False) for exchange in exchanges]
    rows = [named(row.replace(folder, "/models/guard-nano")) for row in rows]
    path = Path(__file__).parents[1] / "unit" / "engines" / file
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
