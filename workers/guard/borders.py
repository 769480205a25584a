"""Finds where to cut a template around a content so that the pieces have the token ids of the whole.

Byte pairs merge across most places. With a cut at a wrong place, nearly every text gets other ids than in training.
"""

from __future__ import annotations

from workers.errors import Misconfigured
from workers.guard.template import Template
from workers.guard.tokens import Tokens

WIDEST = 6
"""The largest number of the template's characters on one side that are encoded with the content."""

PROBES = (
    "x",
    " x ",
    "  x  ",
    "\nx\n",
    "\n\nx\n\n",
    " \n x \n ",
    "\tx\t",
    "1",
    "!",
    "'s",
    "é",
    "\u0301",
    "中",
    "<",
    "_x_",
    "...",
    "ing",
    "tion",
    "the",
    "on",
)
"""Texts whose ends merge with as many neighbours as possible."""


def find_borders(tokens: Tokens, template: Template) -> tuple[str, str]:
    """Return the template's characters before and after a content that must be encoded with it: `(lead, trail)`.

    Raises:
        Misconfigured: there is no such cut.
    """
    before, after = template.parts(("user",))
    probes = [probe.strip() if template.strips else probe for probe in PROBES]
    wholes = [tokens.fixed(before + probe + after) for probe in probes]
    for width in range(2 * WIDEST + 1):
        for leading in range(max(0, width - WIDEST), min(width, WIDEST) + 1):
            trailing = width - leading
            start = len(before) - leading
            fixed_before, lead = before[:start], before[start:]
            trail, fixed_after = after[:trailing], after[trailing:]
            head, tail = tokens.fixed(fixed_before), tokens.fixed(fixed_after)
            contents = tokens.content([lead + probe + trail for probe in probes])
            if all(head + ids + tail == whole for ids, whole in zip(contents, wholes, strict=True)):
                return lead, trail
    raise Misconfigured(
        "guard.model: the chat template and this tokenizer have no border around a message that does not merge with it"
    )
