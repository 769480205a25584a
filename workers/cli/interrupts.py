"""Keeps Ctrl-C out of confluent-kafka, for the commands that send records, and recognises it behind other errors.

An exception of a signal handler that runs in a callback of confluent-kafka 2.16 is lost: its call then fails with a
SystemError.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

NOTED = 2
"""How often Ctrl-C is only counted. The next one interrupts."""


class Interrupts:
    """Counts Ctrl-C while its block runs. In the main thread only."""

    def __init__(self, *, is_reading: bool = False) -> None:
        """`is_reading`: Ctrl-C interrupts at once until the first line of `reading` is there."""
        self.count = 0
        self._is_reading = is_reading

    def __enter__(self) -> Self:
        """Begin."""
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let Ctrl-C do what it did before."""
        signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: object) -> None:
        self.count += 1
        if self._is_reading or self.count > NOTED:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Interrupt now if Ctrl-C was pressed and confluent-kafka has lost the exception.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
        """
        if self.count:
            raise KeyboardInterrupt

    def reading(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Return the same lines until Ctrl-C. Blocks for the next one.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed since the last line, or while the next one is awaited.
        """
        source = iter(lines)
        while True:
            self._is_reading = True
            try:
                self.check()
                line = next(source, None)
            finally:
                self._is_reading = False
            if line is None:
                return
            yield line
