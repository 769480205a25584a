"""Holds Ctrl-C back during imports. It imports next to nothing itself, so that little runs before."""

from __future__ import annotations

import signal


class HeldBack:
    """Raises the KeyboardInterrupt of a Ctrl-C at the end of its block, and that of a second one at once.

    An exception of a signal handler may come out of an import as another one: Python 3.11 makes a RuntimeError of one
    that is raised in `__set_name__`. If SIGINT does not interrupt, as in a background job of a shell, nothing changes.
    In the main thread only.
    """

    def __enter__(self) -> None:
        """Begin."""
        self._is_noted = False
        self._interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._interrupts:
            signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        """Let Ctrl-C interrupt again.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed in the block.
        """
        if self._interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._is_noted:
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        self._is_noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
