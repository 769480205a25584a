from __future__ import annotations

from typing import Any

import jmespath
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.errors import Undecodable
from workers.mapping.expressions import Unusable, compiled

SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, 2, "", "a", "b"])
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
)
LITERALS = st.sampled_from(["'a'", "''", "`0`", "`1`", "`null`", "`true`", "`1.0`", '`"a"`'])
EXPRESSIONS = st.recursive(
    st.sampled_from(["a", "b", "@", "a.b", "a[0]", "a[].b", "length(to_string(a))"]),
    lambda inner: st.one_of(
        st.builds("({}) || ({})".format, inner, inner),
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({}).{}".format, inner, st.sampled_from("abc")),
        st.builds("({}) {} {}".format, inner, st.sampled_from(["==", "!=", "<"]), LITERALS),
        st.builds("{} {} ({})".format, LITERALS, st.sampled_from(["==", "!="]), inner),
    ),
    max_leaves=4,
)


@given(EXPRESSIONS, DOCUMENTS)
@example("a == `1`", {"a": True})
@example("a != `0`", {"a": False})
@example("a == `1`", {"a": 1.0})
def test_an_expression_finds_what_the_library_finds(expression: str, document: Any) -> None:
    find = compiled(expression)
    try:
        expected = jmespath.compile(expression).search(document)
    except (TypeError, ValueError):
        with pytest.raises(Undecodable):
            find(document)
        return
    found = find(document)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("d[", "'d[' is not JMESPath: Invalid jmespath expression: Incomplete expression"),
        ("a b", "'a b' is not JMESPath: Unexpected token: b"),
        ("", "'' is not JMESPath: "),
        ("lower(a)", "'lower(a)': there is no function lower()"),
        ("a || b[?starts_with(@)]", "starts_with() takes 2 arguments, not 1"),
    ],
)
def test_an_expression_that_can_never_work_is_refused_and_named(expression: str, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        compiled(expression)
    assert sentence in str(caught.value)


def test_a_value_of_the_wrong_type_is_named_by_its_type_and_never_shown() -> None:
    with pytest.raises(Undecodable) as caught:
        compiled("a || join(', ', b)")({"b": [123456]})
    assert caught.value.detail == "\"a || join(', ', b)\": join() takes array-string, not int"
    with pytest.raises(Undecodable, match="cannot be evaluated"):
        compiled("ceil(a)")({"a": float("inf")})
