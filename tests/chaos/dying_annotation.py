"""`guardline` with a guard that kills the process when a text contains MARKER, as a crash in native code would."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Sequence
from typing import Any

from tests.chaos.dying_worker import MARKER, THINKS_S
from workers.cli import app as cli
from workers.guard.guard import Guard, Refused, Request


def die_of(marker: str) -> None:
    assess = Guard.assess

    async def assess_or_die(
        self: Guard, requests: Sequence[Request], deadline: float = math.inf
    ) -> list[dict[str, Any] | Refused]:
        await asyncio.sleep(THINKS_S)
        if any(marker in request.text for request in requests):
            os.kill(os.getpid(), signal.SIGKILL)
        return await assess(self, requests, deadline)

    Guard.assess = assess_or_die  # type: ignore[method-assign]  # the fault


if __name__ == "__main__":
    die_of(MARKER)
    cli.main()
