"""Prompts: the ids of the template rendered as a whole, for every harmless text."""

from __future__ import annotations

import json
import random
import re
from itertools import cycle, islice, product
from pathlib import Path

import pytest

from schemas.event import MAX_CONTEXT_TURNS
from tests.answers import answered
from tests.checkpoints.checkpoint import Checkpoint, checkpoint
from tests.lines import TEXTS as REAL
from workers.engines.engine import Refused
from workers.errors import Fatal, Misconfigured
from workers.guard.borders import find_borders
from workers.guard.conversations import possible_roles, sentence_on
from workers.guard.prompt import LEAST_ROOM, MAX_FRAMES, Prompts, Request
from workers.guard.template import Template

# What merges with its neighbours: white space, marks, digits, signs, and parts of control tokens.
AWKWARD = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\n\n",
    "\t",
    "\u00a0",
    "\u3000",
    "\u0301",
    "'s",
    "'",
    "...",
    "!",
    ":",
    "<",
    ">",
    "|",
]
AWKWARD += [
    "1",
    "2024",
    "_",
    "#",
    "é",
    "e\u0301",
    "中",
    "で",
    "👍🏽",
    "\u200b",
    "\u200d",
    "\x00",
    "ß",
    "im_end",
    "think",
    "/",
]


def texts(count: int, of: Checkpoint) -> list[str]:
    """Make texts of pieces of real ones between awkward characters; the same ones each time, without the lines of the
    checkpoint's template."""
    rng = random.Random(4)
    made: list[str] = []
    while len(made) < count:
        pieces = [
            rng.choice(AWKWARD) if rng.random() < 0.5 else (text := rng.choice(REAL))[rng.randrange(len(text)) :][:30]
            for _ in range(rng.randint(1, 8))
        ]
        text = "".join(pieces)
        if of.prompts.neutral(text) == text:
            made.append(text)
    return made


def test_the_ids_are_those_of_the_template_rendered_as_a_whole(either: Checkpoint) -> None:
    requests = [Request(text) for text in REAL + texts(4_000, either)]
    different = [
        request.text
        for request, ids in zip(requests, either.built(requests), strict=True)
        if ids != either.whole(request)
    ]
    assert different == []


def test_the_ids_are_also_those_of_the_whole_for_responses_and_replies(either: Checkpoint) -> None:
    made = texts(3_000, either)
    requests = [
        Request(one, role, tuple(zip(roles, others, strict=False)))
        for one, role, roles, *others in zip(
            made[::3],
            ["user", "assistant"] * 500,
            [["user"], ["user", "assistant"], ["assistant", "user"], ["user", "user"]] * 250,
            made[1::3],
            made[2::3],
            strict=True,
        )
    ]
    assert [r for r, ids in zip(requests, either.built(requests), strict=True) if ids != either.whole(r)] == []


def with_template(folder: Path, like: Checkpoint, source: str) -> Path:
    (folder / "tokenizer.json").write_bytes((like.folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(source)
    return folder


@pytest.mark.parametrize("around", ["USER: %s\n\n", "<|im_start|>user\n%s<|im_end|>\n", "Message:\n%s\n", "'%s'\n"])
def test_borders_are_found_for_templates_of_other_shapes(nano: Checkpoint, tmp_path: Path, around: str) -> None:
    source = around.replace("%s", "{{ m.content }}")
    other = checkpoint(with_template(tmp_path, nano, f"{{% for m in messages %}}{source}{{% endfor %}}<END>"))
    requests = [Request(text, "user", (("assistant", text),)) for text in texts(500, other)]
    assert [r for r, ids in zip(requests, other.built(requests), strict=True) if ids != other.whole(r)] == []


def test_a_template_that_strips_its_messages_is_followed(nano: Checkpoint, tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n\n{% endfor %}<END>\n"
    other = checkpoint(with_template(tmp_path, nano, source))
    requests = [Request(f" \n{text}\t\n ") for text in texts(500, other)]
    assert [r for r, ids in zip(requests, other.built(requests), strict=True) if ids != other.whole(r)] == []


@pytest.mark.parametrize(
    "source",
    ["always the same", "{{ messages[-1].content | upper }}", "{{ messages | tojson }}", "{{ messages[-1].text }}"],
)
def test_a_template_that_does_not_show_messages_as_they_are_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": source}))
    with pytest.raises(Misconfigured, match=r"guard\.model: the chat template of .* does not show messages"):
        Template(tmp_path)


def test_a_template_that_shows_a_message_twice_is_refused(nano: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="exactly once"):
        checkpoint(with_template(tmp_path, nano, "{{ messages[-1].content }} {{ messages[-1].content }}"))


def test_a_template_that_merges_with_its_messages_too_far_is_refused(
    nano: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.guard.borders.WIDEST", 1)
    with pytest.raises(Misconfigured, match="no border"):
        find_borders(nano.tokens, nano.template)


def test_a_conversation_that_the_template_refuses_is_refused_alone(nano: Checkpoint, tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}{% if loop.index > 2 %}{{ raise_exception('two turns at most') }}{% endif %}"
        "{{ m.role }}: {{ m.content }}\n\n{% endfor %}<END>\n"
    )
    other = checkpoint(with_template(tmp_path, nano, source))
    two, three = (Request("x", "assistant", (("user", "y"),) * count) for count in (1, 2))
    assert len(other.built([two])) == 1
    built, refused = other.prompts.build([two, three])
    assert built == other.prompts.build([two])[0]
    assert isinstance(refused, Refused)
    assert refused.reason == "conversation"
    assert "two turns at most" in refused.detail


def test_a_template_that_wants_the_users_turn_first_takes_responses_with_any_context(
    nano: Checkpoint, tmp_path: Path
) -> None:
    source = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles have to alternate') }}{% endif %}{{ m.role }}: {{ m.content }}\n\n"
        "{% endfor %}<END>\n"
    )
    alternating = checkpoint(with_template(tmp_path, nano, source))
    response = Request("ok", "assistant", (("user", "hi"),))
    assert alternating.built([response]) == [alternating.whole(response)]
    prompts = Prompts(
        alternating.tokens, alternating.template, context_tokens=128, overlap=8, max_windows=4, reserve=32
    )
    for turns in (1, 3, 31):
        context = tuple((("user", "assistant")[turn % 2], f"turn{turn}") for turn in range(turns))
        for text in ("ok", "a long word " * 200):
            (prompt,) = answered(prompts.build([Request(text, "assistant", context)]))
            assert all(len(ids) <= 128 for ids in prompt.ids)
            read = alternating.tokens.text(prompt.ids[0])
            assert read.startswith("user:")
            assert f"turn{turns - 1}" in read
            assert (prompt.truncated_context_tokens == 0) == ("turn0" in read)
    (refused,) = prompts.build([Request("ok", "assistant")])
    assert isinstance(refused, Refused)
    assert "roles have to alternate" in refused.detail


def test_lines_that_the_template_shows_only_in_longer_conversations_count_too(nano: Checkpoint, tmp_path: Path) -> None:
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }} (end)\n{% if loop.index == 2 %}<MORE TURNS>\n{% endif %}"
        "{% endfor %}Give your answer now\n"
    )
    neutral = checkpoint(with_template(tmp_path, nano, source)).prompts.neutral
    for line in ("<more turns>", "Assistant: hi", "give your answer now!"):
        assert neutral(line) == f"- {line}"
    assert neutral("(end) of the story") == "(end) of the story", "it goes on with a line of the content"


def test_a_context_limit_without_room_for_content_is_refused(qwen: Checkpoint) -> None:
    with pytest.raises(Misconfigured, match=r"guard\.context_tokens: 128 leaves -\d+ tokens for content"):
        Prompts(qwen.tokens, qwen.template, context_tokens=128, overlap=64, max_windows=8, reserve=32)


@pytest.mark.parametrize("turns", [1, 5, 32])
@pytest.mark.parametrize("length", [3, 3_000])
@pytest.mark.parametrize("context_tokens", [200, 256, 2_048])
def test_no_prompt_is_over_the_limit_and_what_is_left_out_is_said(
    either: Checkpoint, turns: int, length: int, context_tokens: int
) -> None:
    try:
        prompts = Prompts(
            either.tokens, either.template, context_tokens=context_tokens, overlap=64, max_windows=4, reserve=32
        )
    except Misconfigured:
        assert either.folder.name.startswith("qwen"), "only Qwen's template is longer than the limit"
        return
    context = tuple(("user", f"turn{index} " * 40) for index in range(turns))
    (prompt,) = answered(prompts.build([Request("word " * length, "user", context)]))
    assert all(LEAST_ROOM < len(ids) <= context_tokens for ids in prompt.ids)
    read = either.tokens.text(prompt.ids[0])
    counts = [len(re.findall(rf"turn{index}\b", read)) for index in range(turns)]
    assert (prompt.truncated_context_tokens == 0) == (counts == [40] * turns)
    assert counts == sorted(counts), "the oldest goes first"
    assert (prompt.truncated_windows > 0) == (length > 3 and context_tokens < 2_048)


def test_the_cache_of_role_orders_is_bounded(nano: Checkpoint) -> None:
    for number in range(MAX_FRAMES + 50):
        context = tuple((("user", "assistant")[number >> bit & 1], "a") for bit in range(11))
        nano.prompts.build([Request("b", "user", context)])
    assert nano.prompts._frame.cache_info().currsize == MAX_FRAMES


def test_a_wrong_number_of_encoded_texts_ends_the_worker(nano: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nano.tokens, "content", lambda texts: [[5]] * (len(texts) + 1))
    with pytest.raises(Fatal, match="3 texts were encoded for 2"):
        nano.prompts.build([Request("one"), Request("two")])


def test_every_order_of_a_few_roles_is_tried_and_the_regular_ones_up_to_the_longest_context() -> None:
    tried = set(possible_roles())
    assert {len(roles) for roles in tried} == set(range(1, MAX_CONTEXT_TURNS + 2))
    for turns in range(1, 7):
        assert {roles for roles in tried if len(roles) == turns} == set(product(("user", "assistant"), repeat=turns))
    for turns in (7, MAX_CONTEXT_TURNS + 1):
        assert ("user",) * turns in tried
        assert tuple(islice(cycle(("assistant", "user")), turns)) in tried


def test_both_checkpoints_show_every_conversation(either: Checkpoint) -> None:
    assert either.prompts.not_shown() == {}


@pytest.mark.parametrize(
    ("condition", "shortest"),
    [
        ("(m.role == 'user') != (loop.index0 % 2 == 0)", "assistant; user user; assistant user"),
        ("loop.index > 2", "user user user; user user assistant; user assistant user"),
        ("loop.index > 30", f"{'user ' * 30}user; "),
        ("loop.first and m.role != 'user'", "assistant; assistant user; assistant assistant"),
        ("loop.last and m.role == 'assistant' and loop.index > 2", "user user assistant; "),
    ],
    ids=["alternating", "two turns", "thirty turns", "user first", "prompts in long conversations only"],
)
def test_the_guard_finds_the_conversations_that_a_template_does_not_show(
    nano: Checkpoint, tmp_path: Path, condition: str, shortest: str
) -> None:
    source = (
        f"{{% for m in messages %}}{{% if {condition} %}}{{{{ raise_exception('not like this') }}}}{{% endif %}}"
        "{{ m.role }}: {{ m.content }}\n\n{% endfor %}<END>\n"
    )
    refused = checkpoint(with_template(tmp_path, nano, source)).prompts.not_shown()
    assert f"the shortest: {shortest}" in sentence_on(refused)
    assert "not like this" in sentence_on(refused)


def test_all_prompts_of_single_messages_begin_with_the_shared_tokens_and_then_differ(either: Checkpoint) -> None:
    """An engine divides its prefix cache by that number: one token too many, and nothing would be shared."""
    built = either.built([Request(text) for text in ("a", "7", "é", "中")])
    count = either.prompts.shared_tokens
    assert count > 0
    assert len({tuple(ids[:count]) for ids in built}) == 1
    assert len({ids[count] for ids in built}) > 1
