"""What a person may be shown of text that others wrote: no password, and no character that a terminal obeys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

MASK = "**********"

_WORD = re.compile(r"[^\s'\"]+")

# In a word up to its last @. A path that was meant as a URL has one slash less. All is masked only behind a colon that
# no port follows: else it is a name in a path, as in https://host/@name.
_USER_IN_URL = re.compile(r"(?<=:/)(/?)(?:[^/@:]*:(?!\d*/).*\Z|[^/@]+(?=@|\Z))", re.DOTALL)


def shown(text: str) -> str:
    """Return a text in one line without passwords in URLs, and with escapes for what is not printable.

    Line breaks, the controls of terminals, and what changes the direction of writing are among the latter.
    """
    return printable(without_passwords(text))


def printable(text: str) -> str:
    r"""Return a text in which each character that is not printable is an escape, as `\n` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def without_passwords(text: str) -> str:
    """Return a text in which the user, the password and the options of each URL are masked.

    The time is proportional to the text, which others may have written.
    """
    return _WORD.sub(_without_password, text) if ":/" in text else text


def without(secrets: Iterable[str], text: str) -> str:
    """Return a text in which none of the secrets is, neither as it was written nor as a URL writes it."""
    every = {form for secret in secrets for form in (secret, quote(secret, safe=""), unquote(secret)) if form}
    for form in sorted(every, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _without_password(found: re.Match[str]) -> str:
    word = found[0]
    if (begin := word.find(":/")) < 0:
        return word
    if (at := word.rfind("@")) > begin:
        word = _USER_IN_URL.sub(rf"\1{MASK}", word[:at]) + word[at:]
    path, mark, options = word[begin:].partition("?")
    return f"{word[:begin]}{path}{mark}{MASK}" if options else word


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
