"""Runs a command for as long as standard input stays open, and leaves none of its processes behind.

The pipe closes when the process that started it ends, also after a crash. This process must lead its own process group.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

END_S = 20

if __name__ == "__main__":
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    select.select([sys.stdin, os.pidfd_open(server.pid)], [], [])
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(END_S)
    # SGLang's processes stay when their parent is ended while it starts. This one goes with them.
    os.killpg(0, signal.SIGKILL)
