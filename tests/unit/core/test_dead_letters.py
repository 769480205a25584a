"""What stands for an output that no broker takes."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from workers.core.dead_letters import MIN_DEAD_LETTER_BYTES, TRUNCATED_BYTES, too_large
from workers.core.records import Finished, Headers, Output, Source, TopicPartition

SOURCE = Source(TopicPartition("chat", 3), 1, 42)


def large(value: bytes, headers: Headers | None = None, key: bytes = b"k") -> Finished:
    return Finished(SOURCE, (Output("verdicts", key, b"small"), Output("review", key, value)), None, headers)


def test_it_has_the_beginning_the_length_the_digest_and_the_records_own_headers() -> None:
    value = b"x" * 1_000_000
    own: Headers = [("trace", b"\xff"), ("nothing", None)]
    (letter,) = too_large(large(value, own), "dead", 1_000_000).outputs
    assert letter.headers is not None
    headers = dict(letter.headers)
    assert letter.headers[:2] == own
    assert letter.value == value[:TRUNCATED_BYTES]
    assert headers["reason"] == b"output_too_large"
    assert headers["truncated.length"] == b"1000000"
    assert headers["truncated.sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert (headers["source.topic"], headers["source.partition"], headers["source.offset"]) == (b"chat", b"3", b"42")


@given(
    st.integers(MIN_DEAD_LETTER_BYTES, 200_000),
    st.integers(0, 300_000),
    st.lists(st.tuples(st.text(max_size=20), st.none() | st.integers(0, 100_000)), max_size=5),
    st.integers(0, 5_000),
)
def test_it_fits_the_dead_letter_topic(
    max_bytes: int, length: int, headers: list[tuple[str, int | None]], key: int
) -> None:
    """One that is too large itself would be refused at each try, and after each restart."""
    own: Headers = [(name, None if size is None else b"h" * size) for name, size in headers]
    (letter,) = too_large(large(b"x" * length, own, b"k" * key), "dead", max_bytes).outputs
    assert letter.headers is not None
    in_headers = sum(len(name.encode()) + len(value or b"") for name, value in letter.headers)
    assert len(letter.key) + len(letter.value or b"") + in_headers < max_bytes
