from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.core.pseudonyms import Pseudonyms

ids = st.text(min_size=1, max_size=8).filter(str.isprintable)


@given(ids, ids, ids, ids)
def test_two_authors_have_one_pseudonym_only_if_they_are_the_same(a: str, b: str, c: str, d: str) -> None:
    pseudonyms = Pseudonyms("secret")
    assert (pseudonyms.of(a, b) == pseudonyms.of(c, d)) == ((a, b) == (c, d))


def test_a_pseudonym_depends_on_the_secret_and_is_always_the_same() -> None:
    assert Pseudonyms("secret").of("acme", "u-17") == Pseudonyms("secret").of("acme", "u-17")
    assert Pseudonyms("secret").of("acme", "u-17") != Pseudonyms("other").of("acme", "u-17")
    assert len({Pseudonyms("x" * 200 + end).of("acme", "u-17") for end in "ab"}) == 2


def test_a_pseudonym_has_32_hexadecimal_digits() -> None:
    pseudonym = Pseudonyms("").of("acme", "ü🙂")
    assert (len(pseudonym), set(pseudonym) <= set("0123456789abcdef")) == (32, True)
