from __future__ import annotations

import threading
from pathlib import Path

from infra.demo.consequences import Consequences


def test_consequences_that_never_started_close(tmp_path: Path) -> None:
    """The demo may end before it starts the three further workers: by Ctrl-C, or because nothing could be produced."""
    consequences = Consequences(tmp_path, lambda line: None)
    closing = threading.Thread(target=consequences.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
