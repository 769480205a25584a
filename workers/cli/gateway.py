"""`guardline gateway`: moderation by HTTP."""

from __future__ import annotations

import typer

from workers.cli.worker import HttpPort, WorkerId, run_to_its_end, started
from workers.ctrl_c import HeldBack

app = typer.Typer()


@app.command("gateway")
def gateway(worker_id: WorkerId = None, http_port: HttpPort = None) -> None:
    """Serve moderation by HTTP until a signal. The first signal drains the gateway; a second one ends it at once.

    With gateway.upstream.url, the gateway is also a proxy in front of a model server: it judges answers while they are
    written. It needs gateway.keys, or gateway.open for a trial: see docs/gateway.md.
    """
    settings = started(worker_id, http_port)
    with HeldBack():
        from workers.gateway.server import Gateway

    run_to_its_end(Gateway(settings).run())
