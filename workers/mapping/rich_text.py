"""Turns HTML, Markdown and Slack's marks into the text that a reader sees, without tags, marks and entities.

It removes marks and never words: a text must not disappear because two dialects of Markdown read it differently.

This code uses no parser, because the writers of messages choose its input. Each function takes time in proportion to
the text. Parsers that build a tree can take minutes for a text of 256 kB: markdown-it-py took 36 ms for 2,000 brackets
and four times that for twice as many, HTML's formatting elements multiply in every paragraph, and `html.parser` is
quadratic in Python before 3.11.14.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple


class Piece(NamedTuple):
    """A part of a text. `is_quote`: the writer quotes somebody else."""

    text: str
    is_quote: bool


Converter = Callable[[str], list[Piece]]
"""Gives the pieces of a text in their order."""

_LEADING_ZEROS = re.compile(r"(&#[xX]?)0{8,}")
_LONG_NUMBER = re.compile(r"&#(?:0*+[1-9][0-9]{7,}|[xX]0*+[1-9a-fA-F][0-9a-fA-F]{6,});?")
"""A number above every code point. `html.unescape` raises for a number of more than 4,300 digits."""


def unescape(text: str) -> str:
    """Replace entities, such as `&amp;` and `&#105;`, by their characters."""
    if "&" not in text:
        return text
    return html.unescape(_LONG_NUMBER.sub("\N{REPLACEMENT CHARACTER}", _LEADING_ZEROS.sub(r"\g<1>0", text)))


_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)")
_ALT = re.compile(r"""\b(?:alt|title)\s*=\s*(?:"([^"]*)|'([^']*)|([^\s"']+))""", re.IGNORECASE)
_SPACES = re.compile(r"[ \t\r\n\f]+")
_GAPS = re.compile(" {2,}")
_HIDDEN = {name: re.compile(f"</{name}", re.IGNORECASE | re.ASCII) for name in ("script", "style")}
"""Tags whose text no reader sees, and the end of each. Of others, such as title, a platform may show the text."""
_QUOTES = {"blockquote", "mx-reply"}
_BLOCKS = _QUOTES | {
    *("address", "article", "aside", "br", "caption", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"),
    *("figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "legend", "li", "main", "nav"),
    *("ol", "option", "p", "pre", "section", "summary", "table", "td", "template", "th", "title", "tr", "ul"),
}
"""Tags that end a line. All other tags can be inside a word."""


def from_html(text: str) -> list[Piece]:
    """Read HTML: its text, and the names of its images. Like a browser, it leaves out comments, scripts and styles.

    A `<` that does not begin a tag is text, and so is a tag that never ends.
    """
    pieces: list[Piece] = []
    depth = 0
    for part, name, is_end in _html_parts(text):
        if part:
            pieces.append(Piece(_SPACES.sub(" ", unescape(part)), depth > 0))
        if name in _QUOTES:
            depth = max(0, depth - 1 if is_end else depth + 1)
        if name in _BLOCKS:
            pieces.append(Piece("\n", depth > 0))
    return [Piece(_GAPS.sub(" ", piece.text), piece.is_quote) for piece in _tidy(pieces)]


def _html_parts(text: str) -> Iterator[tuple[str, str, bool]]:
    """Give (text, name of the tag after it, whether it is an end tag). Reads each character once."""
    at, begin = 0, -1
    absent: set[str] = set()
    """The strings that do not occur in the rest of the text. They are not searched again."""

    while (begin := text.find("<", begin + 1)) >= 0:
        tag = _TAG.match(text, begin)
        if tag is None and text[begin + 1 : begin + 2] not in ("!", "?"):
            continue
        closing = "-->" if text.startswith("<!--", begin) else ">"
        end = -1 if closing in absent else text.find(closing, begin + 2)
        if end < 0:
            absent.add(closing)
            continue
        name = tag[2].lower() if tag else ""
        is_end = bool(tag and tag[1])
        shown = text[at:begin]
        if name == "img":
            shown += "".join(f" {alt[1] or alt[2] or alt[3] or ''} " for alt in _ALT.finditer(text, begin, end))
        yield shown, name, is_end
        at = end + len(closing)
        if name in _HIDDEN and not is_end:
            if name not in absent and (its_end := _HIDDEN[name].search(text, at)):
                at = its_end.start()
            else:
                absent.add(name)
        begin = at - 1
    yield text[at:], "", False


_QUOTE = re.compile(r" {0,3}(?:>(?!!) ?)+")
"""`>!` begins a spoiler, not a quote."""
_LINE_MARKS = re.compile(r" {0,3}(?:(?:#{1,6}|-#) +|`{3,}|~{3,})")
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\( *+<?([^\s()<>]*+)>? *+([^()\n]*+)\)")
"""Each part is possessive: spaces and letters fit into several parts, and trying all divisions takes cubic time."""
_MARKS = re.compile(r"\\([!-/:-@\[-`{-~])|(`+|\*+|_+|~{1,2}|\|\|)|(>!|!<)")
_WORD = re.compile(r"\w")
_LAST_SPACE = re.compile(r".*\s", re.DOTALL)


def from_markdown(text: str) -> list[Piece]:
    """Read Markdown of Discord, Reddit and CommonMark: `k**i**ll` is `kill`, and a link is its label and its address.

    A mark inside a word must end in the same word: in `f**k this s**t` the stars replace letters, and are kept.
    """
    return _marked(_LINK.sub(_link, unescape(text)))


def _link(found: re.Match[str]) -> str:
    label, address, title = found.groups()
    rest = " ".join(filter(None, (address, title.strip("\"'"))))
    return f"{label} ({rest})" if rest and rest != label else label


_SLACK_LINK = re.compile(r"<([@#!]?)([^<>|]*)(?:\|([^<>]*))?>")


def from_slack(text: str) -> list[Piece]:
    """Read Slack's marks: `<@U1|ann>` is `@ann`, `<https://a.example|label>` is the label and the address."""
    return _marked(unescape(_SLACK_LINK.sub(_slack_link, text)))


def _slack_link(found: re.Match[str]) -> str:
    kind, target, label = found.groups()
    if kind == "!":
        return label or f"@{target}"
    if kind:
        return f"{kind}{label or target}"
    return f"{label} ({target})" if label and label != target else target


def from_plain(text: str) -> list[Piece]:
    """Read a text without marks. Lines that begin with `>` are quotes."""
    return _tidy(_lines(text))


_MAY_HAVE_MARKS = re.compile(r"[\n>\\`*_~|#-]")


def _marked(text: str) -> list[Piece]:
    if not _MAY_HAVE_MARKS.search(text):
        return [Piece(text, False)]
    pieces = _tidy(_lines(text, _LINE_MARKS))
    return _tidy(Piece(_without_marks(piece.text), piece.is_quote) for piece in pieces)


def _lines(text: str, marks: re.Pattern[str] | None = None) -> Iterator[Piece]:
    for line in text.split("\n"):
        quote = _QUOTE.match(line)
        begin = quote.end() if quote else 0
        mark = marks.match(line, begin) if marks else None
        yield Piece(line[mark.end() if mark else begin :] + "\n", quote is not None)


class _Open(NamedTuple):
    place: int
    end: int
    is_in_word: bool


def _without_marks(text: str) -> str:
    """Remove pairs of marks, and backslashes that escape a character."""
    marks = list(_MARKS.finditer(text))
    kept = [""] * len(marks)
    waiting: dict[str, _Open] = {}
    searched = after_space = 0
    for index, found in enumerate(marks):
        escaped, mark, spoiler = found.groups()
        begin, end = found.span()
        kept[index] = found[0]
        if escaped:
            kept[index] = escaped
        elif spoiler == ">!":
            waiting[spoiler] = _Open(index, end, False)
        elif spoiler:
            if opened := waiting.pop(">!", None):
                kept[opened.place] = kept[index] = ""
        else:
            follows = bool(begin) and not text[begin - 1].isspace()
            leads = end < len(text) and not text[end].isspace()
            is_in_word = follows and leads and bool(_WORD.match(text, begin - 1) and _WORD.match(text, end))
            if mark == "_" and is_in_word:
                continue
            # Each character is searched once: pairs of different marks may span the same text.
            if last := _LAST_SPACE.match(text, searched, begin):
                after_space = last.end()
            searched = end
            opened = waiting.pop(mark, None) if follows else None
            if opened and not ((is_in_word or opened.is_in_word) and after_space > opened.end):
                kept[opened.place] = kept[index] = ""
            elif leads:
                waiting[mark] = _Open(index, end, is_in_word)
    at = 0
    parts: list[str] = []
    for found, shown in zip(marks, kept, strict=True):
        parts += [text[at : found.start()], shown]
        at = found.end()
    return "".join([*parts, text[at:]])


def _tidy(pieces: Iterable[Piece]) -> list[Piece]:
    """Join adjacent pieces of the same kind. Remove spaces around lines, and empty lines."""
    tidy: list[Piece] = []
    for is_quote, group in groupby(pieces, attrgetter("is_quote")):
        lines = (line.strip() for line in "".join(piece.text for piece in group).split("\n"))
        if shown := "\n".join(filter(None, lines)):
            tidy.append(Piece(shown, is_quote))
    return tidy
