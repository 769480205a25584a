"""Runs inside vLLM's own processes, as a vLLM plugin: ends them when the worker is gone, however it went.

vLLM ends its processes only when it is shut down in order; after a SIGKILL they would hold the GPU for ever.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

WORKER_VARIABLE = "_GUARDLINE_VLLM_WORKER"
"""The worker's process id; no setting, hence the underscore. vLLM loads plugins in whatever process runs it, and only
those below a worker are ours."""

REPORTS_VARIABLE = "_GUARDLINE_VLLM_REPORTS"
"""The folder in which a process says that it follows the worker; gone once the engine has started."""

FOLLOWER = "follow-worker"


def tie_to_worker() -> None:
    """Die with the worker, and leave the terminal's signals to it. A second call does nothing.

    vLLM calls it as a platform plugin too; to give nothing means that this is no platform.
    """
    worker = int(os.environ.get(WORKER_VARIABLE, "0"))
    is_tied = FOLLOWER in {thread.name for thread in threading.enumerate()}
    if sys.platform != "linux" or worker in (0, os.getpid()) or is_tied:
        return
    try:
        # Not the parent of this process: that may be another process of vLLM, and may be gone before this line.
        handle = os.pidfd_open(worker)
    except ProcessLookupError:
        _end()
    # Ctrl-C goes to the whole group of a terminal: the worker must still have an engine while it drains.
    if os.getsid(0) != os.getpid():  # Who leads a session has a group of its own already, and may not change it.
        os.setpgid(0, 0)

    def follow() -> None:
        select.select([handle], [], [])
        _end()

    threading.Thread(target=follow, name=FOLLOWER, daemon=True).start()
    if (reports := os.environ.get(REPORTS_VARIABLE)) is not None:
        with suppress(OSError):
            Path(reports, str(os.getpid())).touch()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
