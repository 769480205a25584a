"""Child processes that cannot outlive their parent, even if the parent is killed with SIGKILL."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_TIMEOUT_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
    """Start `command`, output appended to `log`; the kernel kills it when the calling thread ends.

    Call it from a main thread only: the kernel watches the thread that forked, not its process. On macOS, which has no
    such signal, the child outlives a SIGKILL of its parent.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,
        )


def stop(process: subprocess.Popen[bytes], *, at_once: bool = False) -> None:
    """End `process` and wait until it has ended: SIGTERM with ten seconds of grace, or SIGKILL `at_once`."""
    if process.poll() is None and not at_once:
        process.send_signal(signal.SIGTERM)
        # A suspended process does not get SIGTERM before it continues.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            at_once = True
    if at_once:
        process.kill()
    process.wait()
