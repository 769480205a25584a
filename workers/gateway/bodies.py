"""The requests of the proxy. Fields that are not named here reach the model server as they are."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Choices = Annotated[StrictInt, Field(ge=1)]


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="allow")

    role: Name
    content: str | list[dict[str, Any]] | None = None


class ChatBody(BaseModel):
    """A request to `/v1/chat/completions`."""

    model_config = ConfigDict(extra="allow")

    model: Name
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: StrictBool | None = None
    n: Choices | None = None
    """How many answers: at most `gateway.proxy.max_choices`."""


class CompletionBody(BaseModel):
    """A request to `/v1/completions`."""

    model_config = ConfigDict(extra="allow")

    model: Name
    prompt: str | Annotated[list[str], Field(min_length=1)]
    """Token ids are refused: the gateway does not know the model's tokenizer, so that the guard could not read them."""
    stream: StrictBool | None = None
    n: Choices | None = None
