"""Shows the demo: live tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.demo.tally import Tally

STARTED = time.monotonic()


class Show:
    """Live tables on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=not sys.stdout.isatty())
        self._live: Live | None = None
        self._said = 0.0

    def __enter__(self) -> Show:
        """Begin."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(Text(f"{time.monotonic() - STARTED:5.1f} s  {line}"))

    def progress(self, tally: Tally, sent: int, waits_for: Sequence[str]) -> None:
        """Show the lag, what the demo waits for, decisions and samples."""
        done = len(tally.outputs)
        waits = f"; waiting for {', '.join(waits_for)}" if waits_for else ""
        line = f"{sent} events in, {done} answered, lag {sent - done}{waits}"
        if self._live is None:
            if time.monotonic() - self._said >= 1:
                self._said = time.monotonic()
                self.say(line)
            return
        samples = (Text(sample, overflow="ellipsis", no_wrap=True) for sample in tally.samples)
        self._live.update(Group(_decisions(tally, line), *samples))

    def summary(self, tally: Tally) -> None:
        """Show the final decisions. Later lines appear below them."""
        if self._live is not None:
            # The final counts replace the live table.
            self._live.transient = True
            self._live.stop()
            self._live = None
        self._console.print(_decisions(tally, "decisions"))


def _decisions(tally: Tally, title: str) -> Table:
    table = Table("tenant", "allow", "review", "block", title=title)
    for tenant, counts in sorted(tally.decisions.items()):
        table.add_row(tenant, *(str(counts[decision]) for decision in ("allow", "review", "block")))
    return table
