from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["starlette"] = sys.modules["fastapi"] = sys.modules["uvicorn"] = None
from workers.errors import Misconfigured
from workers.gateway.server import Gateway
from workers.settings import Settings
try:
    Gateway(Settings())
except Misconfigured as error:
    print(error)
"""


def test_without_its_extra_the_gateway_says_what_is_missing() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert "make extra NAME=gateway" in run.stdout
