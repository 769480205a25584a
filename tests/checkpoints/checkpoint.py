"""A checkpoint's tokenizer and template without its model, as the guard sees them and as its card uses them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.answers import answered
from workers.guard.prompt import FORCED, Prompts, Request
from workers.guard.template import Template
from workers.guard.tokens import Tokens


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's tokenizer and template."""

    folder: Path
    tokens: Tokens
    template: Template
    prompts: Prompts

    def whole(self, request: Request) -> list[int]:
        """Encode the template rendered as a whole, as the model card does it, with the answer's beginning."""
        turns = [*request.context, (request.role, request.text)]
        rendered = self.template.render([{"role": role, "content": text} for role, text in turns])
        return self.tokens.fixed(rendered + FORCED)

    def built(self, requests: Sequence[Request]) -> list[list[int]]:
        """Build prompts of one window each."""
        return [ids for prompt in answered(self.prompts.build(requests)) for ids in prompt.ids]

    def added(self) -> list[str]:
        """Give the tokenizer's added tokens, special or not."""
        document = json.loads((self.folder / "tokenizer.json").read_text(encoding="utf-8"))
        return [token["content"] for token in document["added_tokens"]]

    def around(self, request: Request) -> tuple[list[int], list[int]]:
        """Give what stands before the first content and behind the last one, by the template rendered as a whole."""
        context = tuple((role, "x") for role, _ in request.context)
        whole = self.whole(Request("x", request.role, context))
        (content,) = self.tokens.content([" x\n\n"])
        starts = [at for at in range(len(whole)) if whole[at : at + len(content)] == content]
        return whole[: starts[0]], whole[starts[-1] + len(content) :]


def checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's files."""
    tokens, template = Tokens(folder), Template(folder)
    prompts = Prompts(tokens, template, context_tokens=32_768, overlap=64, max_windows=8, reserve=32)
    return Checkpoint(folder, tokens, template, prompts)
