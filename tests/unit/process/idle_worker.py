"""A worker without work: `python -m tests.unit.process.idle_worker FOLDER START_WITHIN_S`.

Files in FOLDER steer it. Its start waits for `there`, and refuses `wrong`. While it runs, `bug` lets a background task
fail, and `drained` ends a drain. With `stuck`, its last part does not close.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import structlog

from workers.cli.worker import run_to_its_end
from workers.errors import Misconfigured, Unavailable
from workers.process.lifecycle import Lifecycle
from workers.process.logs import log_to_stderr
from workers.settings import Http

LEFT = 7
CLOSE_S = 0.2


async def work(folder: Path, start_within_s: float) -> None:
    async def connect() -> None:
        if (folder / "wrong").exists():
            raise Misconfigured("wrong: no wait heals this")
        if not (folder / "there").exists():
            raise Unavailable("it is not there")

    def part(name: str) -> None:
        async def close() -> None:
            if name == "last" and (folder / "stuck").exists():
                await asyncio.Event().wait()
            structlog.get_logger().info("closed", part=name)

        life.close_with(close, within_s=CLOSE_S)

    async def until(file: str) -> None:
        while not (folder / file).exists():  # noqa: ASYNC110 - a file tells of itself to nobody
            await asyncio.sleep(0.01)

    async def fail_on_request() -> None:
        await until("bug")
        raise ValueError("a bug")

    async def drain() -> None:
        await until("drained")
        life.end()

    async with Lifecycle(Http(port=0), start_within_s=start_within_s) as life:
        part("first")
        await life.wait_for(connect)
        life.watch(fail_on_request())
        part("last")
        await life.run(drain=lambda: life.watch(drain()), left=lambda: LEFT)


if __name__ == "__main__":
    log_to_stderr()
    run_to_its_end(work(Path(sys.argv[1]), float(sys.argv[2])))
