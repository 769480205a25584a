"""How a command ends that failed: one sentence, and an exit code that says whether waiting helps."""

from __future__ import annotations

import sys

from workers.errors import GuardlineError, Misconfigured


def report(error: GuardlineError) -> int:
    """Write the sentence; give the exit code."""
    sys.stderr.write(f"guardline: {error}\n")
    sys.stderr.flush()
    return 2 if isinstance(error, Misconfigured) else 1
