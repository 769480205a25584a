"""Runs inside vLLM's own processes, as vLLM plugins: ends them when the worker ends, also after a crash.

vLLM ends its processes only in an orderly shutdown. After a SIGKILL of the worker they would keep the GPU for ever.
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
"""The worker's process id; the underscore shows that it is not a setting. vLLM loads plugins in every process that runs
it, and only the child processes of a worker are ours."""

REPORTS_VARIABLE = "_GUARDLINE_VLLM_REPORTS"
"""The folder in which a process reports that it follows the worker; removed when the engine has started."""

STREAMS_VARIABLE = "_GUARDLINE_VLLM_STREAMS"
"""Set while an engine for streams starts: only its processes need the model class."""

FOLLOWER = "follow-worker"


def tie_to_worker() -> None:
    """End this process with the worker, and let only the worker get the terminal's signals. A second call does nothing.

    vLLM also calls it as a platform plugin; returning None means that it adds no platform.
    """
    worker = int(os.environ.get(WORKER_VARIABLE, "0"))
    is_tied = FOLLOWER in {thread.name for thread in threading.enumerate()}
    if sys.platform != "linux" or worker in (0, os.getpid()) or is_tied:
        return
    try:
        # The worker, not the parent: the parent may be another vLLM process, and may end before this line.
        handle = os.pidfd_open(worker)
    except ProcessLookupError:
        _end()
    # Ctrl-C goes to the whole process group of a terminal, and the worker needs its engine during the drain.
    if os.getsid(0) != os.getpid():  # A session leader has its own group already, and must not change it.
        os.setpgid(0, 0)

    def follow() -> None:
        select.select([handle], [], [])
        _end()

    threading.Thread(target=follow, name=FOLLOWER, daemon=True).start()
    if (reports := os.environ.get(REPORTS_VARIABLE)) is not None:
        with suppress(OSError):
            Path(reports, str(os.getpid())).touch()


def register_stream_model() -> None:
    """Tell vLLM which class runs Qwen3Guard-Stream, in the processes of an engine for streams; in others do nothing."""
    if os.environ.get(STREAMS_VARIABLE):
        from vllm import ModelRegistry

        ModelRegistry.register_model("Qwen3ForGuardModel", "workers.engines.stream_vllm_model:Qwen3ForGuardModel")


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
