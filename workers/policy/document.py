"""Parses policy documents, and refuses an invalid one with a sentence that says which rule is wrong and why."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import get_args

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.policy import Policy
from schemas.taxonomy import Category, Decision, Role, Severity, Surface
from workers.errors import Misconfigured
from workers.policy.presets import PRESETS
from workers.refusals import in_words
from workers.settings import yaml_text

_CHOICES: Mapping[str, type[StrEnum]] = {
    "categories": Category,
    "four_eyes": Category,
    "severity": Severity,
    "surface": Surface,
    "role": Role,
    "decision": Decision,
    "safe": Decision,
    "controversial": Decision,
    "unsafe": Decision,
}
_NOUNS = {"categories": "category", "four_eyes": "category"}
_ENTRIES = {"rules": "rule", "weights": "weight", "thresholds": "threshold"}
"""The lists of a policy, and what an error sentence calls their entries."""


DEFAULT = ""
"""The tenant under which the policy of all tenants without one is kept. No event has it: a tenant's id is not empty."""

DEFAULT_ID = "default"
"""The id of that policy, which verdicts name."""

MAX_VERSION = 2**53 - 2**20
"""A document may not bring this version or a higher one: Redis counts in doubles, and there would be no next version.
Where such a one is stored, versions begin again."""


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
        raise InvalidPolicy(f"{subject(tenant)}: {error}") from None
    return parse(tenant, document)


def subject(tenant: str) -> str:
    """Name a tenant's policy, as each sentence about it begins."""
    return "the default policy" if tenant == DEFAULT else f"policy for tenant {tenant!r}"


def id_of(tenant: str) -> str:
    """Return the id that a tenant's policy has."""
    return DEFAULT_ID if tenant == DEFAULT else tenant


def is_spent(version: int) -> bool:
    """Whether a stored version leaves no room for a next one, so that any other replaces it."""
    return version >= MAX_VERSION


def parse(tenant: str, document: object) -> Policy:
    """Validate a document (a mapping) as a policy. If it has no id, the tenant becomes its id.

    Raises:
        InvalidPolicy: names the tenant, the rule (counted from 1), what is wrong and what is allowed.
    """
    if not isinstance(document, Mapping):
        raise InvalidPolicy(f"{subject(tenant)}: a policy is an object with fields such as 'rules'")
    try:
        policy = Policy.model_validate({"id": id_of(tenant), **document})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidPolicy(f"{_subject(tenant, first)}: {_complaint(first)}") from None
    check_id(tenant, policy)
    full = with_preset(policy)
    _check_strikes(tenant, policy, full)
    if "mean_threshold" in policy.stream.model_fields_set and full.stream.mean_weight is None:
        raise InvalidPolicy(
            f"{subject(tenant)}: stream.mean_threshold has an effect only with stream.mean_weight: set it, such as 0.1"
        )
    return policy


def parse_stored(tenant: str, text: bytes | str) -> Policy | Deleted:
    """Parse the policy, or its deletion, in a JSON text from Redis, as `parse` does.

    Raises:
        InvalidPolicy: as `parse`, and for a text that is not JSON.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidPolicy(f"{subject(tenant)}: it is not JSON: {error}") from None
    match document:
        case {"deleted": True, "version": int(version)}:
            return Deleted(version)
    return parse(tenant, document)


def check_id(tenant: str, policy: Policy) -> None:
    """Refuse a policy that is another tenant's.

    Raises:
        InvalidPolicy: its id is not this tenant's.
    """
    if policy.id != id_of(tenant):
        raise InvalidPolicy(
            f"{subject(tenant)}: its id is {policy.id!r}, and has to be {id_of(tenant)!r}; it may be left out"
        )


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
    stream = {name: getattr(policy.stream, name) for name in policy.stream.model_fields_set}
    return preset.model_copy(
        update={
            **own,
            "preset": None,
            "rules": [*policy.rules, *preset.rules],
            "stream": preset.stream.model_copy(update=stream),
        }
    )


def _check_strikes(tenant: str, policy: Policy, full: Policy) -> None:
    """Refuse a rule that could never match, because the tenant counts no strikes."""
    for number, rule in enumerate(policy.rules, 1):
        if rule.min_strikes is not None and full.strikes is None:
            raise InvalidPolicy(
                f"{subject(tenant)}, rule {number}: min_strikes needs the field 'strikes', which says what counts; "
                "an empty one, {}, counts 1 for each Unsafe verdict that is not allowed"
            )


def _subject(tenant: str, error: ErrorDetails) -> str:
    """Name the policy, and the entry of each list in which the error is."""
    places = [subject(tenant)]
    for name, number in pairwise(error["loc"]):
        if isinstance(number, int) and name in _ENTRIES:
            places.append(f"{_ENTRIES[str(name)]} {number + 1}")
    return ", ".join(places)


def _complaint(error: ErrorDetails) -> str:
    is_of_entry = len(error["loc"]) > 1 and error["loc"][-2] in _ENTRIES
    if is_of_entry or error["type"] == "value_error":
        return in_words(error)
    location = [part for part in error["loc"] if part != "rules" and not isinstance(part, int)]
    field = str(location[-1]) if location else ""
    choices = _CHOICES.get(field)
    if error["type"] == "enum" and choices is not None:
        value = f"{_NOUNS.get(field, field)} {reprlib.repr(error['input'])}"
        return f"unknown {value} (one of: {', '.join(choices)}){yaml_text.quoting(error)}"
    if error["type"] == "literal_error" and location == ["on_unavailable"]:
        allowed = ", ".join(get_args(Policy.model_fields["on_unavailable"].annotation))
        return f"unknown on_unavailable {reprlib.repr(error['input'])} (one of: {allowed}){yaml_text.quoting(error)}"
    if error["type"] == "extra_forbidden":
        sections = location[:-1] if len(location) == len(error["loc"]) else []
        return f"unknown field {field!r}" + (f" in {'.'.join(map(str, sections))}" if sections else "")
    if error["type"] == "missing":
        return f"{field!r} is required"
    is_in_list = any(isinstance(part, int) for part in error["loc"])
    path = field if is_in_list else ".".join(map(str, location))
    return f"{path or 'rules'}: {in_words(error)}{yaml_text.quoting(error)}"
