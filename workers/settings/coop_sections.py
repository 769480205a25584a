"""The settings of the bridge to Coop: how review items are written there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from schemas.taxonomy import Category
from workers.settings.section import Section

ITEM_FIELDS = (
    "text",
    "created_at",
    "tenant",
    "surface",
    "language",
    "author",
    "decision",
    "severity",
    "categories",
    "reasons",
    "policy",
    "event_id",
)
"""The values of a review item that an item in Coop can have."""
ATTRIBUTE = "attributes."
"""What a name of `fields` begins with to take one attribute of the event."""


class CoopItems(Section):
    """How an endpoint with the format `coop` writes review items and appeals."""

    item_type: str = Field(min_length=1, max_length=256)
    """the id of the item type in Coop for messages and comments"""
    user_type: str = Field(min_length=1, max_length=256)
    """the id of the item type in Coop for users: of the reporter, and of authors"""
    reporter: str = Field("guardline", min_length=1, max_length=256)
    """the id of the user in whose name Guardline reports"""
    fields: dict[str, str] = {"text": "text"}
    """the fields of an item: the value, and the name of the field in Coop's item type. Values: `text`, `created_at`,
    `tenant`, `surface`, `language`, `author`, `decision`, `severity`, `categories`, `reasons`, `policy`, `event_id`,
    and `attributes.NAME` for an attribute of the event. An item has no other values"""
    policies: dict[Category, str] = {}
    """the id of the policy in Coop for each category: a report names the policy of the first category that has one"""
    actions: dict[Literal["allow", "block"], str] = {}
    """the id of the action in Coop for each decision: an appeal says which action was taken"""

    @field_validator("fields")
    @classmethod
    def _check_fields(cls, fields: dict[str, str]) -> dict[str, str]:
        for name, field in fields.items():
            if name not in ITEM_FIELDS and not (name.startswith(ATTRIBUTE) and name != ATTRIBUTE):
                raise ValueError(f"{name!r} is no value of an item (one of: {', '.join(ITEM_FIELDS)}, attributes.NAME)")
            if not field:
                raise ValueError(f"{name!r} has no name in Coop")
        return fields
