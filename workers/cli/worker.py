"""`guardline worker`: run a worker process."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, NoReturn

import structlog
import typer

from workers import settings as settings_module
from workers.cli.report import report
from workers.errors import GuardlineError
from workers.process.logs import log_to_stderr
from workers.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Run a worker.")


@app.command("moderation")
def worker_moderation(
    worker_id: Annotated[str | None, typer.Option("--id", help="worker.id: two workers must not share it.")] = None,
    http_port: Annotated[int | None, typer.Option(help="http.port; 0 for any free one.")] = None,
) -> None:
    """Run one moderation worker until a signal. The first signal drains, a second one ends at once."""
    settings = settings_module.load(
        **({"worker": {"id": worker_id}} if worker_id else {}),
        **({"http": {"port": http_port}} if http_port is not None else {}),
    )
    log_to_stderr()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_work(settings))
        except GuardlineError as error:
            _leave(error)
        _leave(None)


def _leave(error: GuardlineError | None) -> NoReturn:
    """End a worker that has closed what it could. A normal exit waits for threads, and an engine may hang in one."""
    code = 0 if error is None else report(error)
    sys.stdout.flush()
    os._exit(code)


async def _work(settings: Settings) -> None:
    from workers.moderation.worker import Worker
    from workers.process.health import served

    worker = Worker(settings)
    async with served(settings.http, is_alive=lambda: worker.is_alive, is_ready=lambda: worker.is_ready) as port:
        structlog.get_logger().info("serving /livez, /readyz, /metrics", port=port)
        await worker.run()
