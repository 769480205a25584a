"""Parses policy documents, and refuses an invalid one with a sentence that says which rule is wrong and why."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import get_args

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.policy import Policy
from schemas.taxonomy import Category, Decision, Role, Severity, Surface
from workers.errors import Misconfigured
from workers.policy.presets import PRESETS
from workers.settings import yaml_text

_CHOICES: Mapping[str, type[StrEnum]] = {
    "categories": Category,
    "severity": Severity,
    "surface": Surface,
    "role": Role,
    "decision": Decision,
    "safe": Decision,
    "controversial": Decision,
    "unsafe": Decision,
}
_NOUNS = {"categories": "category"}


class InvalidPolicy(Misconfigured):
    """A policy document is invalid: the last valid one stays in force."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """Replaces a deleted policy in Redis. It keeps the version, so that versions only increase."""

    version: int


def parse_yaml(tenant: str, text: str, file: str) -> Policy:
    """Parse the policy in a YAML or JSON text, as `parse` does; `file` is its name in error sentences.

    Raises:
        InvalidPolicy: as `parse`, and for a text that is not YAML.
    """
    try:
        document = yaml_text.parse(text, file)
    except Misconfigured as error:
        raise InvalidPolicy(f"policy for tenant {tenant!r}: {error}") from None
    return parse(tenant, document)


def parse(tenant: str, document: object) -> Policy:
    """Validate a document (a mapping) as a policy. If it has no id, the tenant becomes its id.

    Raises:
        InvalidPolicy: names the tenant, the rule (counted from 1), what is wrong and what is allowed.
    """
    if not isinstance(document, Mapping):
        raise InvalidPolicy(f"policy for tenant {tenant!r}: a policy is an object with fields such as 'rules'")
    try:
        policy = Policy.model_validate({"id": tenant, **document})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidPolicy(f"{_subject(tenant, first)}: {_complaint(first)}") from None
    if policy.id != tenant:
        raise InvalidPolicy(f"policy for tenant {tenant!r}: its id is {policy.id!r}; a policy's id is its tenant's")
    with_preset(policy)
    return policy


def parse_stored(tenant: str, text: bytes | str) -> Policy | Deleted:
    """Parse the policy, or its deletion, in a JSON text from Redis, as `parse` does.

    Raises:
        InvalidPolicy: as `parse`, and for a text that is not JSON.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidPolicy(f"policy for tenant {tenant!r}: it is not JSON: {error}") from None
    match document:
        case {"deleted": True, "version": int(version)}:
            return Deleted(version)
    return parse(tenant, document)


def with_preset(policy: Policy) -> Policy:
    """Take the fields that the document does not set from its preset. The document's own rules come first.

    Raises:
        InvalidPolicy: there is no such preset.
    """
    if policy.preset is None:
        return policy
    preset = PRESETS.get(policy.preset)
    if preset is None:
        raise InvalidPolicy(
            f"policy for tenant {policy.id!r}: unknown preset {policy.preset!r} (one of: {', '.join(PRESETS)})"
        )
    own = {name: getattr(policy, name) for name in policy.model_fields_set}
    return preset.model_copy(update={**own, "preset": None, "rules": [*policy.rules, *preset.rules]})


def _subject(tenant: str, error: ErrorDetails) -> str:
    subject = f"policy for tenant {tenant!r}"
    location = error["loc"]
    if len(location) >= 2 and location[0] == "rules" and isinstance(location[1], int):
        return f"{subject}, rule {location[1] + 1}"
    return subject


def _complaint(error: ErrorDetails) -> str:
    location = [part for part in error["loc"] if part != "rules" and not isinstance(part, int)]
    field = str(location[-1]) if location else ""
    choices = _CHOICES.get(field)
    if error["type"] == "enum" and choices is not None:
        return f"unknown {_NOUNS.get(field, field)} {reprlib.repr(error['input'])} (one of: {', '.join(choices)})"
    if error["type"] == "literal_error" and field == "on_unavailable":
        allowed = ", ".join(get_args(Policy.model_fields["on_unavailable"].annotation))
        return f"unknown on_unavailable {reprlib.repr(error['input'])} (one of: {allowed})"
    if error["type"] == "extra_forbidden":
        return f"unknown field {field!r}"
    if error["type"] == "missing":
        return f"{field!r} is required"
    return f"{field or 'rules'}: {error['msg']}"
