"""How content that is too long is cut: every token is in a prompt, or counted as left out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.checkpoints.checkpoint import Checkpoint, checkpoint
from tests.unit.guard.test_prompt import with_template
from workers.engines.engine import Refused
from workers.guard.prompt import Prompt, Prompts, Request

RESERVE = 8
OVERLAP = 16
MAX_WINDOWS = 50


def prompts_of(of: Checkpoint, context_tokens: int, window_tokens: int | None = None) -> Prompts:
    return Prompts(
        of.tokens,
        of.template,
        context_tokens=context_tokens,
        overlap=OVERLAP,
        max_windows=MAX_WINDOWS,
        window_tokens=window_tokens,
        reserve=RESERVE,
    )


def built(prompts: Prompts, request: Request) -> Prompt:
    (prompt,) = prompts.build([request])
    assert isinstance(prompt, Prompt)
    return prompt


def length(of: Checkpoint, text: str) -> int:
    return len(of.tokens.content([of.prompts._shown(text)])[0])


def fixed(of: Checkpoint, *roles: str) -> int:
    """Count the tokens that the template and the answer's beginning take."""
    parts = of.prompts._frame(roles)
    assert not isinstance(parts, str)
    return sum(map(len, parts))


def test_a_text_that_just_fits_is_one_whole_prompt_and_one_more_token_makes_two_windows(nano: Checkpoint) -> None:
    text = "good morning everyone " * 30
    needed = fixed(nano, "user") + length(nano, text) + RESERVE
    assert prompts_of(nano, needed).build([Request(text)]) == [Prompt([nano.whole(Request(text))], 0, 0)]
    assert len(built(prompts_of(nano, needed - 1), Request(text)).ids) == 2


@pytest.mark.parametrize("words", [0, 1, 40, 400])
def test_context_gets_what_the_text_leaves_and_half_of_the_room_at_least(nano: Checkpoint, words: int) -> None:
    prompts = prompts_of(nano, 128)
    roles = ("user", "assistant", "user")
    room = 128 - RESERVE - fixed(nano, *roles)
    text = "word" + " word" * words
    for newest in range(room):
        context = (("user", "so much to say " * 20), ("assistant", "well" + " well" * newest))
        turns = sum(length(nano, turn) for _, turn in context)
        prompt = built(prompts, Request(text, "user", context))
        kept = min(turns, max(room // 2, room - length(nano, text)))
        assert prompt.truncated_context_tokens == turns - kept
        assert len(prompt.ids[0]) == fixed(nano, *roles) + kept + min(length(nano, text), room - kept)
        assert prompt.truncated_windows == 0


@pytest.mark.parametrize("context_tokens", range(80, 100))
def test_as_many_turns_are_kept_as_leave_half_of_the_room_for_content(nano: Checkpoint, context_tokens: int) -> None:
    turns = 24
    prompt = built(prompts_of(nano, context_tokens), Request("x", "user", (("user", "y"),) * turns))
    content = turns * length(nano, "y") - prompt.truncated_context_tokens + length(nano, "x")
    taken = [fixed(nano, *["user"] * count) for count in range(1, turns + 2)]
    kept = taken.index(len(prompt.ids[0]) - content)
    limit = context_tokens - RESERVE
    half = (limit - taken[0]) // 2
    assert limit - taken[kept] >= half > limit - taken[kept + 1]


def test_windows_share_no_more_than_half_of_their_room(nano: Checkpoint) -> None:
    around = fixed(nano, "user")
    for room in (2 * OVERLAP - 5, 2 * OVERLAP, 3 * OVERLAP):
        text = " ".join(f"{number} {number * 7 % 1000}" for number in range(100))
        prompt = built(prompts_of(nano, around + RESERVE + room), Request(text))
        front, back = nano.around(Request(text))
        windows = [ids[len(front) : len(ids) - len(back)] for ids in prompt.ids]
        assert {len(window) for window in windows} == {room}
        shared = min(OVERLAP, room // 2)
        assert all(before[-shared:] == behind[:shared] for before, behind in pairwise(windows[:-1]))
        step = room - shared
        assert len(windows) == -(-(length(nano, text) - shared) // step)


@pytest.mark.parametrize("window_tokens", [32, 33, 60])
@pytest.mark.parametrize("roles", [(), ("user",)])
def test_windows_have_the_size_of_the_setting(nano: Checkpoint, window_tokens: int, roles: tuple[str, ...]) -> None:
    prompts = prompts_of(nano, 256, window_tokens)
    context = tuple((role, "hello") for role in roles)
    one = Request("word" + " word" * (window_tokens - length(nano, "word")), "user", context)
    assert length(nano, one.text) == window_tokens
    assert prompts.build([one]) == [Prompt([nano.whole(one)], 0, 0)]
    more = Request(one.text + " word", "user", context)
    front, back = nano.around(more)
    sizes = [len(ids) - len(nano.whole(one)) for ids in built(prompts, more).ids]
    assert sizes == [0, 0], "two windows, each as long as the text that fits one"
    if not roles:
        first, second = (ids[len(front) : len(ids) - len(back)] for ids in built(prompts, more).ids)
        assert first[1:] == second[:-1]


def test_a_window_is_never_larger_than_the_room_in_a_prompt(nano: Checkpoint) -> None:
    text = Request("good morning everyone " * 100)
    assert built(prompts_of(nano, 128, 128), text) == built(prompts_of(nano, 128), text)


def test_a_template_that_leaves_no_room_for_a_conversation_refuses_that_one(nano: Checkpoint, tmp_path: Path) -> None:
    source = (
        "{% if messages[0].role == 'assistant' %}{{ 'in answer to nobody ' * 20 }}{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}<END>\n"
    )
    wordy = checkpoint(with_template(tmp_path, nano, source))
    long, short = Request("no room for me", "assistant"), Request("x")
    needed = RESERVE + fixed(wordy, "assistant")
    refused, other = prompts_of(wordy, needed).build([long, short])
    assert refused == Refused("conversation", "the template leaves no room for content (roles ('assistant',))")
    assert isinstance(other, Prompt)
    # With room for one token, each is a window of its own.
    prompt = built(prompts_of(wordy, needed + 1), long)
    assert len(prompt.ids) == length(wordy, long.text)


@pytest.mark.parametrize(("turns", "frame"), [(81, ""), (11, "and on " * 40)], ids=["many", "wordy"])
def test_turns_are_left_out_until_the_template_takes_the_rest(
    nano: Checkpoint, tmp_path: Path, turns: int, frame: str
) -> None:
    source = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}"
        f"{{% endif %}}{{{{ m.role }}}}: {frame}{{{{ m.content }}}}\n\n{{% endfor %}}<END>\n"
    )
    alternating = checkpoint(with_template(tmp_path, nano, source))
    context = tuple((("user", "assistant")[turn % 2], f"turn{turn}") for turn in range(turns))
    prompt = built(prompts_of(alternating, 420), Request("ok", "assistant", context))
    read = alternating.tokens.text(prompt.ids[0])
    assert read.startswith("user:")
    assert f"turn{turns - 1}" in read
    assert prompt.truncated_context_tokens > 0
