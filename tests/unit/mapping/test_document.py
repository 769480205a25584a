from __future__ import annotations

import pytest

from workers.errors import Misconfigured
from workers.mapping.document import parse_yaml


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("text: [", "m.yaml, line 1, column 8: "),
        ("- text", "m.yaml: a mapping is an object with fields such as 'text: message.content'"),
        ("txt: content", "m.yaml: txt: there is no such field (one of: unwrap, skip_when, event_id, "),
        ("text: content[", "m.yaml: text: 'content[' is not JMESPath: "),
        ("text: 5", "m.yaml: text: a source is an expression or an object such as {value: acme}, not 5"),
        ("text: null", "m.yaml: text: null leaves a field out, and each event needs this one"),
        ("tenant_id: null", "m.yaml: tenant_id: null leaves a field out, and each event needs this one"),
        ("text: {}", "m.yaml: text: a source is an expression or an object such as {value: acme}, not {}"),
        ("text: {htlm: content}", "m.yaml: text: unknown source 'htlm' (one of: value, header, topic, key, envelope, "),
        ("text: {html: a, markdown: b}", "m.yaml: text: an object has one name, and a join may also have 'with'"),
        ("text: {html: a, with: b}", "m.yaml: text: an object has one name, and a join may also have 'with'"),
        ("text: {join: [a], with: 5}", "m.yaml: text: with: has to be a text, in quotes"),
        ("text: {first: a}", "m.yaml: text: first: has to be a list of sources"),
        ("tenant_id: {html: a}", "m.yaml: tenant_id: unknown source 'html'"),
        ("tenant_id: {header: 5}", "m.yaml: tenant_id: header: has to be a text, not 5"),
        (
            "tenant_id: {value: null}",
            "m.yaml: tenant_id: value: has to be a text that is not empty, because each event",
        ),
        ("tenant_id: {value: ''}", "m.yaml: tenant_id: value: has to be a text that is not empty"),
        ("text: {value: }", "m.yaml: text: value: has to be a text that is not empty"),
        ("tenant_id: {key: false}", "m.yaml: tenant_id: key: takes no other value than true"),
        ("tenant_id: {topic: '('}", "m.yaml: tenant_id: topic: '(' is not a regular expression: "),
        ("author_id: lower(a)", "m.yaml: author_id: 'lower(a)': there is no function lower()"),
        ("skip_when: {deleted: 'a['}", "m.yaml: skip_when: deleted: 'a[' is not JMESPath: "),
        ("texts: {title: 'a['}", "m.yaml: texts: title: 'a[' is not JMESPath: "),
        ("texts: a", "m.yaml: texts: has to be an object: a name for each text, and where it is"),
        ("texts: {a: b}\ntext: c", "m.yaml: text and texts: one of them"),
        ("quotes: drop", "m.yaml: quotes: has to be 'keep', 'context' or 'leave_out'"),
        ("context: [{role: bot, text: a}]", "m.yaml: context: a turn is {role: user, text: SOURCE}"),
        ("attributes: a", "m.yaml: attributes: has to be an object: a name for each attribute, and where it is"),
        ("attributes: {n: 'a['}", "m.yaml: attributes: n: 'a[' is not JMESPath: "),
        ("unwrap: avro", "m.yaml: unwrap: 'avro' is unknown (one of: cloudevents, debezium, "),
        ("unwrap: {field: 'a['}", "m.yaml: unwrap: 'a[' is not JMESPath: "),
    ],
)
def test_a_wrong_mapping_is_refused_with_its_place_and_its_cause(written: str, sentence: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse_yaml(written, "m.yaml")
    assert str(caught.value).startswith(sentence), str(caught.value)


def test_a_sentence_names_all_faults_of_a_mapping() -> None:
    with pytest.raises(Misconfigured, match=r"m.yaml: text: .*; quotes: "):
        parse_yaml("text: 5\nquotes: x", "m.yaml")
