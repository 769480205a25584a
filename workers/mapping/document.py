"""A mapping document, which people write in YAML, checked and compiled. Unknown names are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from workers.errors import Misconfigured
from workers.mapping.envelopes import unwrapping
from workers.mapping.expressions import Unusable
from workers.mapping.sources import Source, Text, parse, parse_text
from workers.refusals import in_words
from workers.settings import yaml_text

T = TypeVar("T")

SKIPPED = "skipped"
"""The reason of a condition without a name."""


class Turns(NamedTuple):
    """The source of earlier turns: a text in a role, or, without a role, an expression that may give whole turns."""

    role: str | None
    source: Source | Text


def _source(written: object) -> Source | None:
    return None if written is None else parse(written)


def _required(written: object) -> object:
    if written is None:
        raise Unusable("null leaves a field out, and each event needs this one; without a line it keeps its name")
    if isinstance(written, dict) and written.get("value", written) in (None, ""):
        raise Unusable("value: has to be a text that is not empty, because each event needs this field")
    return written


def _conditions(written: object) -> dict[str, Source]:
    named = written if isinstance(written, dict) else {SKIPPED: written}
    return _each(named, parse)


def _texts(written: object) -> dict[str, Text]:
    if not isinstance(written, dict) or not written:
        raise Unusable("has to be an object: a name for each text, and where it is")
    return _each(written, parse_text)


def _context(written: object) -> list[Turns]:
    return [_turns(one) for one in (written if isinstance(written, list) else [written])]


def _turns(written: object) -> Turns:
    if isinstance(written, str):
        return Turns(None, parse(written))
    if isinstance(written, dict) and "role" in written:
        if set(written) != {"role", "text"} or written["role"] not in ("user", "assistant"):
            raise Unusable("a turn is {role: user, text: SOURCE} or {role: assistant, text: SOURCE}")
        return Turns(written["role"], parse_text(written["text"]))
    return Turns("user", parse_text(written))


def _attributes(written: object) -> dict[str, Source] | None:
    if written is None:
        return None
    if not isinstance(written, dict):
        raise Unusable("has to be an object: a name for each attribute, and where it is")
    return _each(written, parse)


def _each(named: dict[Any, object], compile_one: Callable[[object], T]) -> dict[str, T]:
    compiled: dict[str, T] = {}
    for name, written in named.items():
        try:
            compiled[str(name)] = compile_one(written)
        except Unusable as error:
            raise Unusable(f"{name}: {error}") from None
    return compiled


def _unwrap(written: object) -> list[Any]:
    return [unwrapping(step) for step in (written if isinstance(written, list) else [written])]


Place = Annotated[Source | None, BeforeValidator(_source)]


class Document(BaseModel):
    """The fields of a mapping. A field that it does not name keeps its name; null leaves out an optional one."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    unwrap: Annotated[list[Any], BeforeValidator(_unwrap)] = []
    """Functions that remove the envelopes, from the outside in."""
    skip_when: Annotated[dict[str, Source], BeforeValidator(_conditions)] = Field(default_factory=dict)
    """For each reason, the condition under which a record is not a message: a deletion, a notice of the system."""
    event_id: Place = None
    revision: Place = None
    """A value that differs between versions of a message; it becomes part of the event's id."""
    tenant_id: Annotated[Source | None, BeforeValidator(lambda written: parse(_required(written)))] = None
    surface: Place = None
    text: Annotated[Text | None, BeforeValidator(lambda written: parse_text(_required(written)))] = None
    texts: Annotated[dict[str, Text], BeforeValidator(_texts)] = Field(default_factory=dict)
    """Several texts of one record. Each becomes an event, and its name becomes part of the event's id."""
    quotes: Literal["keep", "context", "leave_out"] = "keep"
    author_id: Place = None
    language: Place = None
    role: Place = None
    context: Annotated[list[Turns] | None, BeforeValidator(lambda written: written and _context(written))] = None
    created_at: Place = None
    attributes: Annotated[dict[str, Source] | None, BeforeValidator(_attributes)] = None

    @model_validator(mode="after")
    def _has_one_kind_of_text(self) -> Document:
        if self.text is not None and self.texts:
            raise Unusable("text and texts: one of them; texts makes one event of each")
        return self


def parse_yaml(text: str, file: str) -> Document:
    """Give the mapping in a YAML text; `file` is its name in a sentence.

    Raises:
        Misconfigured: naming the file, the field, what is wrong, and what is allowed.
    """
    document = yaml_text.parse(text, file)
    if not isinstance(document, dict):
        raise Misconfigured(f"{file}: a mapping is an object with fields such as 'text: message.content'")
    try:
        return Document.model_validate(document)
    except ValidationError as error:
        raise Misconfigured(f"{file}: {'; '.join(_sentence(one) for one in error.errors())}") from None


def _sentence(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{place}: there is no such field (one of: {', '.join(Document.model_fields)})"
    return f"{place}: {in_words(error)}" if place else in_words(error)
