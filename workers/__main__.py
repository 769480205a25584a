"""The entry point of the `guardline` command: Ctrl-C prints no traceback, also during the imports."""

from __future__ import annotations

import sys

from workers.ctrl_c import HeldBack


def main() -> None:
    """Import the command and run it."""
    try:
        with HeldBack():
            from workers.cli.app import main as run
        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
