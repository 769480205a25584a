"""The key that outputs carry."""

from __future__ import annotations

import pytest

from workers.core.records import record_key


@pytest.mark.parametrize("key", [b"room-7", b"", b"\x00\xff"])
def test_outputs_carry_the_key_of_their_record(key: bytes) -> None:
    assert record_key(key, 3) == key


def test_records_without_a_key_stay_together_with_their_partition() -> None:
    assert [record_key(None, partition) for partition in (0, 3, 12)] == [b"0", b"3", b"12"]
