"""What stands for an output that no broker takes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.dead_letters import (
    HEADER_OVERHEAD_BYTES,
    MAX_KEY_BYTES,
    MIN_DEAD_LETTER_BYTES,
    RECORD_OVERHEAD_BYTES,
    TRUNCATED_BYTES,
    Letter,
    dead_letter,
    note_of,
    noted_offset,
    read_letter,
    size_of,
    too_large,
)
from workers.core.records import Finished, Headers, Memory, Output, Source, TopicPartition, record_key
from workers.errors import Undecodable

SOURCE = Source(TopicPartition("chat", 3), 1, 42)


def large(value: bytes, headers: Headers | None = None, key: bytes = b"k") -> Finished:
    return Finished(SOURCE, (Output("verdicts", key, b"small"), Output("review", key, value)), (), headers)


def test_a_truncated_dead_letter_has_the_beginning_the_length_and_the_digest() -> None:
    value = b"x" * 1_000_000
    own: Headers = [("trace", b"\xff"), ("nothing", None)]
    record = too_large(large(value, own), "dead", 1_000_000)
    assert record.source == SOURCE
    (letter,) = record.outputs
    assert letter.headers is not None
    headers = dict(letter.headers)
    assert letter.headers[:2] == own
    assert letter.value == value[:TRUNCATED_BYTES]
    assert headers["reason"] == b"output_too_large"
    assert headers["detail"] == b"an output for review is larger than the broker takes"
    assert headers["truncated.length"] == b"1000000"
    assert headers["truncated.sha256"] == hashlib.sha256(value).hexdigest().encode()
    assert (headers["source.topic"], headers["source.partition"], headers["source.offset"]) == (b"chat", b"3", b"42")


def test_no_duplicate_names_a_verdict_that_a_dead_letter_replaced() -> None:
    """What was judged is remembered: the content is as it was."""
    memory = Memory(b"event", b"content", "id", b"{}")
    replaced = too_large(
        Finished(SOURCE, (Output("review", b"k", b"x" * 9_000),), (memory,)), "dead", MIN_DEAD_LETTER_BYTES
    )
    assert replaced.memories == (Memory(b"event", b"content", "id", b"{}", has_verdict=False),)


@given(
    st.integers(MIN_DEAD_LETTER_BYTES, 200_000),
    st.integers(0, 300_000),
    st.lists(st.tuples(st.text(max_size=20), st.none() | st.integers(0, 100_000)), max_size=5),
    st.integers(0, 5_000),
)
def test_a_truncated_dead_letter_fits_its_topic(
    max_bytes: int, length: int, headers: list[tuple[str, int | None]], key: int
) -> None:
    """One that is too large itself would be refused at each try, and after each restart."""
    own: Headers = [(name, None if size is None else b"h" * size) for name, size in headers]
    (letter,) = too_large(large(b"x" * length, own, b"k" * key), "dead", max_bytes).outputs
    assert letter.headers is not None
    in_headers = sum(len(name.encode()) + len(value or b"") for name, value in letter.headers)
    assert len(letter.key) + len(letter.value or b"") + in_headers < max_bytes
    assert (letter.topic, letter.key) == ("dead", b"k" * min(key, MAX_KEY_BYTES))
    # As much of the value as there is room for.
    assert size_of(letter) <= max_bytes
    assert len(letter.value or b"") == min(max(length, len(b"small")), TRUNCATED_BYTES) or size_of(letter) == max_bytes


def test_an_output_that_is_too_large_by_its_key_alone_keeps_no_value() -> None:
    record = Finished(SOURCE, (Output("verdicts", b"k" * 100_000, None),))
    (letter,) = too_large(record, "dead", MIN_DEAD_LETTER_BYTES).outputs
    assert (letter.key, letter.value) == (b"k" * MAX_KEY_BYTES, b"")
    assert ("truncated.length", b"0") in (letter.headers or ())


@pytest.mark.parametrize(("more", "stays"), [(0, True), (1, False)])
def test_the_records_own_headers_stay_unless_they_fill_half_of_the_room(more: int, stays: bool) -> None:
    max_bytes = 100_000
    room = max_bytes // 2 - MIN_DEAD_LETTER_BYTES // 2
    own: Headers = [("trace", b"h" * (room - len("trace") - HEADER_OVERHEAD_BYTES + more))]
    (letter,) = too_large(large(b"x" * 1_000_000, own), "dead", max_bytes).outputs
    assert letter.headers is not None
    assert (letter.headers[0] == own[0]) == stays


def test_a_size_counts_key_value_and_headers() -> None:
    bare = RECORD_OVERHEAD_BYTES + len(b"key")
    assert size_of(Output("t", b"key", None)) == bare
    assert size_of(Output("t", b"key", b"value")) == bare + len(b"value")
    headers: Headers = [("é", b"xy"), ("n", None)]
    assert (
        size_of(Output("t", b"key", b"value", headers)) == bare + len(b"value") + 2 + 2 + 1 + 2 * HEADER_OVERHEAD_BYTES
    )


def test_a_dead_letter_has_the_value_the_reason_and_the_position() -> None:
    own: Headers = [("trace", b"\xff"), ("reason", None)]
    error = Undecodable("not_json", "line \ud800 " + "x" * 2_000)
    record = dead_letter("dead", SOURCE, b"k", b"\xffraw", own, error)
    assert (record.source, record.headers, record.memories) == (SOURCE, own, ())
    (letter,) = record.outputs
    assert (letter.topic, letter.key, letter.value) == ("dead", b"k", b"\xffraw")
    assert letter.headers == [
        *own,
        ("reason", b"not_json"),
        ("detail", (b"line \\ud800 " + b"x" * 2_000)[:1024]),
        ("source.topic", b"chat"),
        ("source.partition", b"3"),
        ("source.offset", b"42"),
    ]


headers_of_senders = st.lists(
    st.tuples(
        st.sampled_from(
            ["trace", "reason", "detail", "source.topic", "source.offset", "source.keyless", "truncated.sha256"]
        ),
        st.none() | st.binary(max_size=5),
    ),
    max_size=8,
)


@given(headers_of_senders, st.booleans())
def test_a_dead_letter_is_read_back_whatever_headers_its_record_had(own: Headers, is_truncated: bool) -> None:
    error = Undecodable("not_json", "no JSON at all")
    if is_truncated:
        record = too_large(large(b"x" * 9_000, own), "dead", 8_000)
    else:
        record = dead_letter("dead", SOURCE, b"k", b"{", own, error)
    letter = read_letter(record.outputs[0].headers or [])
    assert letter is not None
    assert (letter.own, letter.is_truncated, letter.position) == (own, is_truncated, "chat/3/42")
    assert letter.reason == ("output_too_large" if is_truncated else "not_json")
    assert noted_offset(record.outputs[0].headers or []) is None


@given(headers_of_senders, st.sampled_from([None, b"", b"k", b"30"]))
def test_a_truncated_dead_letter_says_whether_its_record_had_no_key(own: Headers, key: bytes | None) -> None:
    record = too_large(large(b"x" * 9_000, own, record_key(key, 3)), "dead", 8_000)
    letter = read_letter(record.outputs[0].headers or [])
    assert letter is not None
    assert (letter.own, letter.is_truncated, letter.is_keyless) == (own, True, key is None)


@given(headers_of_senders, st.none() | st.binary(max_size=2))
def test_a_dead_letter_says_whether_its_record_had_no_key(own: Headers, key: bytes | None) -> None:
    """The key of the dead letter does not: a record may have the key `3` itself."""
    (output,) = dead_letter("dead", SOURCE, key, b"{", own, Undecodable("not_json", "")).outputs
    letter = read_letter(output.headers or [])
    assert letter is not None
    assert output.key == (b"3" if key is None else key)
    assert (letter.own, letter.is_keyless) == (own, key is None)


def test_a_message_that_is_sent_again_keeps_its_headers_and_its_first_position() -> None:
    own: Headers = [("trace", b"\xff"), ("nothing", None)]
    first = Letter("not_json", "", TopicPartition("chat", 3), 42, own, False)
    assert first.first_position is None
    again = Letter("not_json", "", TopicPartition("chat", 0), 99, first.headers_to_send(), False)
    assert again.first_position == "chat/3/42"
    assert again.headers_to_send() == [*own, ("replayed.from", b"chat/3/42")]


def test_dead_letters_of_one_record_have_the_same_identity() -> None:
    letter = Letter("not_json", "", TopicPartition("chat", 3), 42, [], False)
    again = Letter("missing_field", "x", TopicPartition("chat", 3), 42, [("trace", b"")], False)
    assert letter.identity(b"{") == again.identity(b"{")
    others = [Letter("not_json", "", TopicPartition("chat", 3), 4, [], False).identity(b"2{"), letter.identity(b"")]
    assert len({letter.identity(b"{"), letter.identity(None), *others}) == 4


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("reason", b"x")],
        [
            ("reason", b""),
            ("detail", b""),
            ("source.topic", b"t"),
            ("source.partition", b"-1"),
            ("source.offset", b"1"),
        ],
        [("reason", b""), ("detail", b""), ("source.topic", b"t"), ("source.partition", b"0"), ("source.offset", None)],
        [("replayed.offset", b"x")],
        [("replayed.offset", None)],
    ],
)
def test_a_record_of_another_program_is_neither_a_dead_letter_nor_a_note(headers: Headers) -> None:
    assert read_letter(headers) is None
    assert noted_offset(headers) is None


def test_a_note_names_the_offset_of_its_dead_letter() -> None:
    assert noted_offset(note_of(17)) == 17
    assert noted_offset([*note_of(17), ("more", None)]) is None
    assert read_letter(note_of(17)) is None
