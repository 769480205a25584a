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
        ("d[", "'d[' is not JMESPath: its end is missing"),
        ("a ||", "'a ||' is not JMESPath: its end is missing"),
        ("a b", "'a b' is not JMESPath: 'b' cannot stand at character 3"),
        ("content ||| text", "'content ||| text' is not JMESPath: '|' cannot stand at character 11"),
        ("gamers-eu", "'gamers-eu' is not JMESPath: "),
        ("a == 'x", "is not JMESPath: Unclosed ' delimiter at character 6"),
        ("a # b", "'a # b' is not JMESPath: Unknown token # at character 3"),
        ("", "'' is not JMESPath: it is empty"),
        ("lower(a)", "'lower(a)': there is no function lower()"),
        ("a || b[?starts_with(@)]", "starts_with() takes 2 arguments, not 1"),
    ],
)
def test_an_expression_that_can_never_work_is_refused_and_named(expression: str, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        compiled(expression)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ('type == "system"', "\"system\" is the name of a field; for a text write 'system'"),
        ('"system" != a.type', "\"system\" is the name of a field; for a text write 'system'"),
        ('kind == "post.deleted" && a', "\"post.deleted\" is the name of a field; for a text write 'post.deleted'"),
        ('a[?type == "b"] | [0]', "\"b\" is the name of a field; for a text write 'b'"),
        ("author.is_bot == true", "true is the name of a field; for the literal write `true`"),
        ("!(false == a)", "false is the name of a field; for the literal write `false`"),
        ("a.b != null", "null is the name of a field; for the literal write `null`"),
        ("null == 'x'", "null is the name of a field; for the literal write `null`"),
    ],
)
def test_a_comparison_with_a_field_that_looks_like_a_literal_is_refused(expression: str, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        compiled(expression)
    assert str(caught.value) == f"{expression!r}: {sentence}"


@pytest.mark.parametrize(
    "expression",
    ["\"content-type\" == 'x'", "'x' == \"content-type\"", 'a."content-type" == b', "a == `true`", "a == b"],
)
def test_a_comparison_of_fields_or_with_a_literal_is_accepted(expression: str) -> None:
    equal = {"content-type": "x", "a": {"content-type": True}, "b": True}
    assert compiled(expression)(equal) in (True, False)


def test_a_value_of_the_wrong_type_is_named_by_its_type_and_never_shown() -> None:
    with pytest.raises(Undecodable) as caught:
        compiled("a || join(', ', b)")({"b": [123456]})
    assert caught.value.detail == "\"a || join(', ', b)\": join() takes array-string, not int"
    with pytest.raises(Undecodable, match="cannot be evaluated"):
        compiled("ceil(a)")({"a": float("inf")})
