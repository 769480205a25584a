"""The entry point of the `guardline` command: Ctrl-C prints no traceback, also during the imports."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Import the command and run it."""
    try:
        from workers.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
