"""Ends a failed command: with one sentence, and an exit code that says whether waiting may help."""

from __future__ import annotations

import sys

from workers.errors import GuardlineError, Misconfigured
from workers.shown import shown


def report(error: GuardlineError) -> int:
    """Write the sentence, which may quote text of senders; return the exit code."""
    sys.stderr.write(f"guardline: {shown(str(error))}\n")
    sys.stderr.flush()
    return 2 if isinstance(error, Misconfigured) else 1
