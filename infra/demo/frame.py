"""What every demo has around it: its own settings, a temporary folder, Kafka and Valkey, and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from infra.demo.show import Show
from infra.devstack.stack import running
from workers.errors import GuardlineError

STACK_VARIABLES = ("GUARDLINE_CACHE", "GUARDLINE_MAVEN_URL")


def framed(run: Callable[[str, str, Path, Show], int]) -> int:
    """Start Kafka and Valkey, and run a demo with their addresses, a folder and its output. Returns the exit code."""
    for name in [name for name in os.environ if name.startswith("GUARDLINE_") and name not in STACK_VARIABLES]:
        del os.environ[name]  # The demo ignores the user's settings for other topics.
    try:
        with tempfile.TemporaryDirectory(prefix="guardline-demo-") as folder, Show() as show:
            show.say("starting Apache Kafka and Valkey, which takes some seconds")
            with running() as stack:
                return run(stack.kafka, stack.redis, Path(folder), show)
    except GuardlineError as error:
        sys.stderr.write(f"guardline: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
