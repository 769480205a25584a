"""Reads policy documents, and refuses a wrong one with a sentence that says which rule is wrong and how."""

from collections.abc import Mapping
from enum import StrEnum
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.policy import Policy
from schemas.taxonomy import Category, Decision, Role, Severity, Surface
from workers.errors import GuardlineError
from workers.policy.presets import PRESETS

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


class InvalidPolicy(GuardlineError):  # noqa: N818 - named like the other errors
    """A policy document cannot be used: the last good one stays in force."""


def read_policy(document: bytes | str | Mapping[str, object], tenant: str | None = None) -> Policy:
    """Give the policy in a JSON text or a parsed document. `tenant` is used as the id where the document has none.

    Raises:
        InvalidPolicy: naming the tenant, the rule (counted from 1), what is wrong and what is allowed.
    """
    name = tenant
    try:
        if isinstance(document, Mapping):
            name = name or _id(document)
            fields = document if tenant is None else {"id": tenant, **document}
            policy = Policy.model_validate(fields)
        else:
            policy = Policy.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidPolicy(f"{_subject(name, first)}: {_complaint(first)}") from None
    if tenant is not None and policy.id != tenant:
        raise InvalidPolicy(f"policy for tenant {tenant!r}: its id is {policy.id!r}; a policy's id is its tenant's")
    if policy.preset is not None and policy.preset not in PRESETS:
        raise InvalidPolicy(
            f"policy for tenant {policy.id!r}: unknown preset {policy.preset!r} (one of: {', '.join(PRESETS)})"
        )
    return policy


def with_preset(policy: Policy) -> Policy:
    """Fill what the document leaves out from its preset. Its own rules come first.

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


def _id(document: Mapping[str, object]) -> str | None:
    name = document.get("id")
    return name if isinstance(name, str) else None


def _subject(name: str | None, error: ErrorDetails) -> str:
    subject = f"policy for tenant {name!r}" if name else "policy"
    location = error["loc"]
    if len(location) >= 2 and location[0] == "rules" and isinstance(location[1], int):
        return f"{subject}, rule {location[1] + 1}"
    return subject


def _complaint(error: ErrorDetails) -> str:
    location = [part for part in error["loc"] if part != "rules" and not isinstance(part, int)]
    field = str(location[-1]) if location else ""
    choices = _CHOICES.get(field)
    if error["type"] == "enum" and choices is not None:
        return f"unknown {_NOUNS.get(field, field)} {error['input']!r} (one of: {', '.join(choices)})"
    if error["type"] == "literal_error" and field == "on_unavailable":
        allowed = ", ".join(get_args(Policy.model_fields["on_unavailable"].annotation))
        return f"unknown on_unavailable {error['input']!r} (one of: {allowed})"
    if error["type"] == "extra_forbidden":
        return f"unknown field {field!r}"
    if error["type"] == "missing":
        return f"{field!r} is required"
    return f"{field}: {error['msg']}" if field else error["msg"]
