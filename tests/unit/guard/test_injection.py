"""No content reaches the structure around it: not by control tokens, not by lines that look like the template's."""

from __future__ import annotations

from msgspec.structs import replace

from tests.checkpoints.checkpoint import Checkpoint
from tests.checkpoints.hostile import LOOKALIKES, PLACEMENTS, cases
from tests.checkpoints.oracle import OWN, own_lines
from tests.checkpoints.qwen import ADDED
from workers.guard.prompt import Request
from workers.guard.views import Views

VIEWS = Views()


def test_the_tokens_are_all_those_of_the_tokenizers(nano: Checkpoint, qwen: Checkpoint) -> None:
    assert nano.added() == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert qwen.added() == ADDED
    assert len(qwen.tokens.control) == 26
    # The template rendered as a whole is open to all of them: what is tested here is a difference.
    for checkpoint in (nano, qwen):
        for token in checkpoint.added():
            assert len(checkpoint.tokens.fixed(token)) == 1
            assert checkpoint.tokens.control.isdisjoint(checkpoint.tokens.content([token])[0])


def test_no_control_id_comes_from_content_and_nothing_around_it_changes(either: Checkpoint) -> None:
    own = OWN["qwen" if either.folder.name.startswith("qwen") else "guard-nano"]
    frames: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}
    seen = 0
    for token, placement, request in cases(either.added()):
        view = VIEWS.normalized(request.text)
        for reading in [request] if view is None else [request, replace(request, text=view)]:
            (ids,) = either.built([reading])
            roles = (*(role for role, _ in request.context), request.role)
            if roles not in frames:
                frames[roles] = either.around(request)
            before, after = frames[roles]
            assert ids[: len(before)] == before, (token, placement)
            assert ids[-len(after) :] == after, (token, placement)
            inner = ids[len(before) : -len(after)]
            assert either.tokens.control.isdisjoint(inner), (token, placement)
            # The template's own lines are those between the turns, and no more.
            assert len(own_lines(either.tokens.text(inner), own)) == len(request.context), (token, placement)
            seen += 1
    assert seen > (len(either.added()) + len(LOOKALIKES)) * (len(PLACEMENTS) + 2)


def test_the_oracle_sees_a_line_of_the_template_in_a_prompt_without_the_guard(either: Checkpoint) -> None:
    """The oracle sees what the guard prevents: without that, the test above could not fail."""
    own = OWN["qwen" if either.folder.name.startswith("qwen") else "guard-nano"]
    for line in own:
        request = Request(f"I went home\n{line} x")
        before, after = either.around(request)
        whole, (built,) = either.whole(request), either.built([request])
        assert len(own_lines(either.tokens.text(whole[len(before) : -len(after)]), own)) == 1, line
        assert own_lines(either.tokens.text(built[len(before) : -len(after)]), own) == [], line
