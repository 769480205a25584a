"""An event: one chat message or comment to be judged.

`Event` is the contract; `EventDict` is the same contract as plain dicts, for the hot path. Both are built from the
types below, so a limit is changed once. Unknown fields are ignored.

Producers should keep this contract. `workers/core/decode.py` also reads records that break it, and the verdict names
the fields that it could not use.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from typing_extensions import TypedDict

from schemas.taxonomy import Role, Surface

MAX_ID_CHARS = 256
MAX_TEXT_CHARS = 32_768
MAX_CONTEXT_TURNS = 32
MAX_ATTRIBUTES = 32

Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS)]
TurnText = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
"""An earlier turn may be empty: a parent comment that was deleted is one."""
Language = Annotated[str, StringConstraints(min_length=1, max_length=35)]
"""A BCP 47 tag; RFC 5646, section 4.4.1, asks for room for 35 characters."""
MAX_TIMESTAMP_CHARS = 64
RFC_3339 = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]"
    r"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
Timestamp = Annotated[str, StringConstraints(max_length=MAX_TIMESTAMP_CHARS, pattern=RFC_3339)]
"""RFC 3339, section 5.6, and kept as it was written."""
AttributeName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
AttributeValue = Annotated[str, StringConstraints(max_length=1_024)]
Attributes = Annotated[dict[AttributeName, AttributeValue], Field(max_length=MAX_ATTRIBUTES)]
CarriedAttributes = dict[str, JsonValue]
"""The attributes of a verdict. If the event broke the contract, their values may be any JSON."""
SchemaVersion = Annotated[int, Field(ge=1)]


class Turn(BaseModel):
    """What came before the content: an earlier turn of a chat, or the comment that is answered."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    role: Role
    text: TurnText


class Event(BaseModel):
    """One content to be judged. The smallest event is `event_id`, `tenant_id`, `surface` and `text`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    schema_version: SchemaVersion = 1
    event_id: Id
    tenant_id: Id
    surface: Surface
    text: Text
    author_id: Id | None = None
    language: Language | None = None
    role: Role = Role.USER
    context: Annotated[list[Turn], Field(max_length=MAX_CONTEXT_TURNS)] = []
    """Oldest first."""
    created_at: Timestamp | None = None
    attributes: Attributes = {}


class TurnDict(TypedDict):
    """`Turn` as a plain dict."""

    role: Literal["user", "assistant"]
    text: TurnText


class EventDict(TypedDict):
    """`Event` as a plain dict: what the record does not hold is not in the dict."""

    schema_version: NotRequired[SchemaVersion]
    event_id: Id
    tenant_id: Id
    surface: Literal["chat", "comment"]
    text: Text
    author_id: NotRequired[Id | None]
    language: NotRequired[Language | None]
    role: NotRequired[Literal["user", "assistant"]]
    context: NotRequired[Annotated[list[TurnDict], Field(max_length=MAX_CONTEXT_TURNS)]]
    created_at: NotRequired[Timestamp | None]
    attributes: NotRequired[Attributes]
