"""The pinned requirements: the image has the versions that the tests run with."""

from __future__ import annotations

import re
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
PIN = re.compile(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)", re.MULTILINE)


def pins(name: str) -> set[tuple[str, str]]:
    return set(PIN.findall((REQUIREMENTS / name).read_text()))


def test_the_image_has_the_versions_that_the_tests_run_with() -> None:
    assert len(pins("image.txt")) > 50
    assert pins("image.txt") <= pins("dev.txt"), "make lock pins both"
