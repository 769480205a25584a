"""The settings of the bridge to Coop: how review items are written there, and what its decisions mean here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from schemas.taxonomy import Category
from workers.settings.section import File, Section

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


class CoopCallbacks(Section):
    """What the review worker does with the callbacks of Coop."""

    public_key_file: File = None
    """the absolute path of a file with Coop's webhook signature verification key, as PEM. Without it there is no
    `/v1/coop/callback`. A changed file counts at once. See docs/review.md#coop"""
    actions: dict[str, Literal["allow", "block"]] = {}
    """the ids of Coop's actions, and the decision that each of them is"""
    ignored: Literal["allow", "block"] = "allow"
    """the decision when a moderator in Coop ignores a report"""
    policies: dict[str, Category] = {}
    """the ids of Coop's policies, and the category that each of them is: the superseding verdict names it as the
    corrected category"""
    tenants: list[str] = []
    """the tenants for whose items Coop may decide; empty: all"""

    @field_validator("public_key_file")
    @classmethod
    def _check_file(cls, file: Path | None) -> Path | None:
        if file is not None and not file.is_absolute():
            raise ValueError("review.coop.public_key_file: has to be an absolute path")
        return file

    @model_validator(mode="after")
    def _check_actions(self) -> CoopCallbacks:
        if self.public_key_file and not self.actions:
            raise ValueError("review.coop.actions: is empty, so that no action of Coop would be a decision")
        return self
