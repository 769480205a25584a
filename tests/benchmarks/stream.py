"""What a token of a stream costs: by the length of its context, by the number of sessions, and through the gateway.

`make bench-stream` measures onnxruntime, with the window of nano-stream and with full attention, and prints one JSON
object at last. `ENGINE=vllm` measures vLLM instead, and `CHECKPOINT=FOLDER` another checkpoint. All ratios are of
times that were measured in turns in one process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from tests.benchmarks import stream_gateway
from workers.engines.stream import Session, StreamEngine
from workers.guard.stream_convert import convert_stream
from workers.live.load import load_stream_engine, stream_folder
from workers.settings import Streams

SHORT, LONG = 64, 4_096
ROUNDS = 120
SESSIONS = (1, 8, 32)
CONTEXTS = (512, 2_048, 8_000)
RATE = 30.0
"""Tokens a second that arrive for each session: a fast model writes so."""
LIMIT_MS = 20.0
"""P95 of the time from a token's arrival to its judgement."""
PROBE_S = 3.0
APPENDS = 1_000
LENGTH = 8_191
VOCABULARY = 1_000
"""Ids below this number are used; all checkpoints have them, and the time does not depend on them."""

Make = Callable[[int], StreamEngine]


def ids(count: int, seed: int = 1) -> list[int]:
    """Give made-up tokens."""
    chance = random.Random(seed)
    return [chance.randrange(300, VOCABULARY) for _ in range(count)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the garbage collector out of what is measured."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def timed(work: Awaitable[Any]) -> float:
    """Give the milliseconds that a call takes."""
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1_000


async def token_at(engine: StreamEngine, contexts: tuple[int, ...], rounds: int = ROUNDS) -> dict[int, float]:
    """Give the median time of one more token behind contexts of these lengths, in ms. The contexts take turns."""
    sessions: dict[int, Session] = {}
    for context in contexts:
        sessions[context], _ = await engine.open(ids(context))
    times: dict[int, list[float]] = {context: [] for context in contexts}
    with quiet():
        for number in range(rounds):
            for context, session in sessions.items():
                token = ids(1, number)
                times[context].append(await timed(engine.append(session, token)))
    for session in sessions.values():
        await engine.end(session)
    return {context: statistics.median(found[5:]) for context, found in times.items()}


async def whole_again(engine: StreamEngine, context: int, rounds: int) -> float:
    """Give the median time of a token if the whole conversation runs again for it, in ms, as the shipped code does."""
    times = []
    for number in range(rounds):
        began = time.perf_counter()
        session, _ = await engine.open([*ids(context), *ids(1, number)])
        times.append((time.perf_counter() - began) * 1_000)
        await engine.end(session)
    return statistics.median(times)


async def throughput(engine: StreamEngine, sessions: int, chunk: int = 1, tokens: int = 2_000) -> float:
    """Give the tokens a second of sessions that each send the next chunk when the last one is judged."""
    opened = [(await engine.open(ids(SHORT)))[0] for _ in range(sessions)]
    each = max(20, tokens // sessions // chunk)

    async def run(session: Session) -> None:
        for number in range(each):
            await engine.append(session, ids(chunk, number))

    began = time.perf_counter()
    await asyncio.gather(*map(run, opened))
    took = time.perf_counter() - began
    for session in opened:
        await engine.end(session)
    return sessions * each * chunk / took


async def p95_ms(engine: StreamEngine, sessions: int, context: int, seconds: float = PROBE_S) -> float:
    """Give P95 of the time from arrival to judgement, in ms, where each session gets `RATE` tokens a second.

    The arrivals do not wait for the judgements (open loop). Tokens that arrive while one is judged are judged together,
    as the streams worker and the gateway do.
    """
    opened = [(await engine.open(ids(context)))[0] for _ in range(sessions)]
    latencies: list[float] = []
    begin = time.perf_counter() + 0.05

    async def run(session: Session, number: int) -> None:
        first = begin + number / sessions / RATE
        count = int(seconds * RATE)
        at = 0
        while at < count:
            arrival = first + at / RATE
            await asyncio.sleep(max(0.0, arrival - time.perf_counter()))
            due = min(count, max(at + 1, int((time.perf_counter() - first) * RATE) + 1))
            await engine.append(session, ids(due - at, at))
            now = time.perf_counter()
            latencies.extend((now - first - one / RATE) * 1_000 for one in range(at, due))
            at = due

    with quiet():
        await asyncio.gather(*(run(session, number) for number, session in enumerate(opened)))
    for session in opened:
        await engine.end(session)
    return statistics.quantiles(latencies, n=20)[-1]


async def most_sessions(engine: StreamEngine, context: int, most: int) -> int:
    """Give the largest number of sessions, up to `most`, whose P95 stays within `LIMIT_MS`. 0: not even one."""

    async def holds(sessions: int) -> bool:
        # One more try: another program on the machine may delay a probe.
        return (
            await p95_ms(engine, sessions, context) <= LIMIT_MS or await p95_ms(engine, sessions, context) <= LIMIT_MS
        )

    good, number = 0, 1
    while number <= most and await holds(number):
        good, number = number, 2 * number
    bad = min(number, most + 1)
    while bad - good > max(1, good // 8):
        middle = (good + bad) // 2
        if await holds(middle):
            good = middle
        else:
            bad = middle
    return good


async def flatness(engine: StreamEngine) -> float:
    """Give the median time of the last hundred of `APPENDS` appends to one session, over that of the first hundred."""
    session, _ = await engine.open(ids(SHORT))
    times = [await timed(engine.append(session, ids(1, number))) for number in range(APPENDS)]
    await engine.end(session)
    return statistics.median(times[-100:]) / statistics.median(times[:100])


async def measured(make: Make, *, has_window: bool) -> dict[str, Any]:
    """Measure one checkpoint on one engine. `make` gives an engine for so many sessions."""
    engine = make(max(SESSIONS))
    await engine.start()
    try:
        token_ms = await token_at(engine, (SHORT, LONG))
        found: dict[str, Any] = {
            "ratio": round(token_ms[LONG] / token_ms[SHORT], 2),
            "token_ms": {str(context): round(took, 3) for context, took in token_ms.items()},
            "flat": round(await flatness(engine), 2),
        }
        again = {context: await whole_again(engine, context, 5) for context in (SHORT, LONG)}
        found["whole_again_ms"] = {str(context): round(took, 2) for context, took in again.items()}
        found["tokens_per_s"] = {str(sessions): round(await throughput(engine, sessions)) for sessions in SESSIONS} | {
            f"{SESSIONS[-1]}, chunks of 16": round(await throughput(engine, SESSIONS[-1], 16, 8_000))
        }
        if has_window:
            found["sessions_at_20_ms"] = {
                str(context): await most_sessions(engine, min(context, engine.max_tokens - 200), max(SESSIONS))
                for context in CONTEXTS
            }
        return found
    finally:
        await engine.close()


def say(name: str, found: dict[str, Any]) -> None:
    sys.stderr.write(f"{name}: {json.dumps(found)}\n")


def prepared(checkpoint: Path, folder: Path, engine: str, *, is_full: bool, cache_texts: Sequence[str] = ()) -> Path:
    """Copy a checkpoint, without its window if `is_full`, and put it into the engine's form.

    With `cache_texts`, onnxruntime keeps keys and values in int8.
    """
    shutil.copytree(checkpoint, folder)
    if is_full:
        file = folder / "config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        layers = ["full_attention"] * config["num_hidden_layers"]
        config |= {"use_sliding_window": False, "sliding_window": None, "layer_types": layers}
        file.write_text(json.dumps(config), encoding="utf-8")
    if engine != "onnxruntime":
        return folder
    target = folder.with_name(f"{folder.name}-onnx")
    convert_stream(folder, target, "int8", cache_texts)
    return target


def sample() -> list[dict[str, Any]]:
    """Give the texts that come with guard-nano."""
    lines = (files("infra.nano") / "sample.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


async def run(engine: Literal["onnxruntime", "vllm", "transformers"], checkpoint: Path, threads: int | None) -> Any:
    result: dict[str, Any] = {"ratio": 0.0, "engine": engine}
    with TemporaryDirectory(prefix="guardline-bench-") as temporary:
        kinds: dict[str, tuple[bool, list[str]]] = {"window": (False, []), "full": (True, [])}
        if engine == "onnxruntime":
            kinds["full_int8_cache"] = (True, [line["text"] for line in sample()[:200]])
        for name, (is_full, cache_texts) in kinds.items():
            folder = prepared(checkpoint, Path(temporary) / name, engine, is_full=is_full, cache_texts=cache_texts)

            def make(sessions: int, folder: Path = folder) -> StreamEngine:
                settings = Streams(
                    engine=engine, model=str(folder), max_sessions=sessions, max_tokens=LENGTH, threads=threads
                )
                return load_stream_engine(settings, folder)

            result[name] = await measured(make, has_window=not is_full)
            say(name, result[name])
    result["ratio"] = result["window"]["ratio"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "vllm", "transformers"))
    parser.add_argument("--checkpoint", type=Path, help="a folder in Hugging Face's format; without it nano-stream")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    checkpoint = arguments.checkpoint or stream_folder(Streams(engine="transformers"))
    result = asyncio.run(run(arguments.engine, checkpoint, arguments.threads))
    if arguments.engine == "onnxruntime":
        result["gateway_added_ms"] = asyncio.run(stream_gateway.measured())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
