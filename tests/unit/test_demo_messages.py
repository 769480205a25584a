"""The demo's messages, and what it says of the guard's assessments of them."""

from __future__ import annotations

from collections import Counter

from infra.demo.messages import TENANTS, compared, events, messages
from schemas.taxonomy import Category

FOUND = {"severity": "Unsafe", "categories": ["Violent"]}
SAFE: dict[str, object] = {"severity": "Safe", "categories": []}


def test_the_messages_show_every_category_in_many_languages_and_about_half_are_harmless() -> None:
    texts = messages()
    kinds = Counter(message.category for message in texts)
    assert set(kinds) == {None, *Category}
    assert 0.4 < kinds[None] / len(texts) < 0.6
    assert len({message.language for message in texts}) >= 20
    assert len({message.text for message in texts}) == len(texts)


def test_each_tenant_gets_each_text_twice_from_different_authors() -> None:
    sent = events()
    assert len({event["event_id"] for event in sent}) == len(sent)
    by_tenant = Counter((event["tenant_id"], event["text"]) for event in sent)
    assert by_tenant == {(tenant, message.text): 2 for tenant in TENANTS for message in messages()}
    assert len({(event["tenant_id"], event["text"], event["author_id"]) for event in sent}) == len(sent)


def test_the_comparison_gives_examples_the_total_and_each_mistake() -> None:
    violent = [message.text for message in messages() if message.category is Category.VIOLENT]
    harmless = [message.text for message in messages() if message.category is None]
    lines = compared({violent[0]: FOUND, violent[1]: SAFE, harmless[0]: SAFE, harmless[1]: FOUND})
    assert lines[:2] == [
        f"Violent: {violent[0]!r}",
        "the guard is right about 2 of 4 texts, and names the author's category for 1 of the 1 that it finds",
    ]
    assert set(lines[2:]) == {
        f"wrong: Safe, and the author says Violent: {violent[1]!r}",
        f"wrong: Unsafe, and the author says harmless: {harmless[1]!r}",
    }


def test_a_wrong_category_is_no_example() -> None:
    violent, other = (next(m.text for m in messages() if m.category is kind) for kind in list(Category)[:2])
    assert compared({violent: FOUND, other: FOUND})[:2] == [
        f"Violent: {violent!r}",
        "the guard is right about 2 of 2 texts, and names the author's category for 1 of the 2 that it finds",
    ]
