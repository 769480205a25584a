"""How `guardline load` reads its flags. What it does with them: tests/integration/test_load.py."""

from __future__ import annotations

import pytest

from workers.cli.load import weights
from workers.errors import Misconfigured


def test_a_weight_may_be_left_out() -> None:
    assert weights("--tenant", ["acme=3", "campus", "a=b=0.5"]) == {"acme": 3, "campus": 1, "a=b": 0.5}


@pytest.mark.parametrize("value", ["=3", "acme=", "acme=many", "acme=nan", "acme=inf"])
def test_a_weight_that_is_not_a_number_is_refused_with_an_example(value: str) -> None:
    with pytest.raises(Misconfigured, match=r"--tenant: .* is neither NAME nor NAME=WEIGHT, as in acme=3"):
        weights("--tenant", [value])
