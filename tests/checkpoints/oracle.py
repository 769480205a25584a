"""Says which lines of a text read as a template's own. It shares no code and no table with the guard."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

ANSWER = ("Safety:", "Categories:", "Refusal:")

OWN = {
    "guard-nano": (
        *(*ANSWER, "USER:", "ASSISTANT:", "<END CONVERSATION"),
        *("Rate the last USER message", "Rate the last ASSISTANT message"),
    ),
    "qwen": (
        *(*ANSWER, "USER:", "ASSISTANT:", "Task:", "<BEGIN POLICY", "<END POLICY"),
        *("<BEGIN CONVERSATION", "<END CONVERSATION"),
        *("Assess the last USER message alone", "Assess the last ASSISTANT message alone"),
    ),
}
"""What the templates of the checkpoints hold that tests run with, as a person reads them in their files."""

_TWINS = str.maketrans("авеікмнорсѕтухεικνορτυχ‹›〈〉", "abeikmhopcstyxeiknoptyx<><>")
_ENDS = "\n\r\v\f\u2028\u2029\x85"


def own_lines(text: str, of: Sequence[str]) -> list[str]:
    """Give the lines of a text that read as one of these, however they are written. An item of a list is no such line:
    a dash or a bar before it says so."""
    for end in _ENDS:
        text = text.replace(end, "\n")
    read = [_read(known) for known in of]
    return [line for line in text.split("\n") if _read(line).startswith(tuple(read))]


def _read(line: str) -> str:
    letters = unicodedata.normalize("NFKD", line.casefold()).casefold().translate(_TWINS)
    seen = [one for one in letters if one.isalnum() or one in "<>:-|"]
    return "".join(seen) if seen[:1] in (["-"], ["|"]) else "".join(one for one in seen if one not in "-|")
