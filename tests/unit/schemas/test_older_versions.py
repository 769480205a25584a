"""Today's models and stages read every version of every contract that was ever published.

A fixture is named `VERSION.REVISION.json`: the version is the record's `schema_version`, and the revision counts the
fields that were added since. A published fixture is never changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from schemas.generate import CONTRACTS
from schemas.policy import Policy
from workers.core.decode import decode
from workers.policy.document import parse_stored
from workers.policy.policy import CompiledPolicy
from workers.settings import Events

FOLDER = Path(__file__).parents[2] / "fixtures" / "contracts"
FIXTURES = sorted(FOLDER.glob("*/*.json"))


def number_of(path: Path) -> tuple[int, int]:
    version, revision = path.stem.split(".")
    return int(version), int(revision)


def fixtures_of(contract: str) -> list[Path]:
    return sorted((FOLDER / contract).glob("*.json"), key=number_of)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def models_in(value: object) -> Iterator[BaseModel]:
    """Give a model and all models within it."""
    if isinstance(value, BaseModel):
        yield value
        for _, inner in value:
            yield from models_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from models_in(inner)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_no_field_of_a_published_record_is_lost_or_read_as_another_value(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    model = CONTRACTS[path.parent.name].model_validate_json(text, strict=True)
    assert model.model_dump(mode="json", exclude_unset=True) == json.loads(text)


@pytest.mark.parametrize("contract", sorted(CONTRACTS))
def test_the_newest_fixture_of_a_contract_has_every_field(contract: str) -> None:
    """A field that is added needs a fixture of its own, so that later versions are tested with it."""
    newest = fixtures_of(contract)[-1]
    set_fields: dict[type[BaseModel], set[str]] = {}
    for one in models_in(CONTRACTS[contract].model_validate_json(newest.read_bytes())):
        set_fields.setdefault(type(one), set()).update(one.model_fields_set)
    missing = [
        f"{model.__name__}.{name}" for model, known in set_fields.items() for name in model.model_fields.keys() - known
    ]
    assert missing == [], f"add a fixture with these fields to {FOLDER / contract}: see CONTRIBUTING.md"


@pytest.mark.parametrize("contract", sorted(CONTRACTS))
def test_every_version_of_a_contract_has_a_fixture(contract: str) -> None:
    field = CONTRACTS[contract].model_fields.get("schema_version")
    newest = 1 if field is None else field.default
    assert {number_of(path)[0] for path in fixtures_of(contract)} == set(range(1, newest + 1))
    for path in fixtures_of(contract):
        assert read(path).get("schema_version", 1) == number_of(path)[0]


@pytest.mark.parametrize("path", fixtures_of("event"), ids=lambda path: path.name)
@pytest.mark.parametrize("strict", [True, False])
def test_a_worker_reads_every_published_event(path: Path, strict: bool) -> None:
    decoded = decode(path.read_bytes(), Events(strict=strict))
    assert (decoded.event, decoded.ignored_fields) == (read(path), ())


@pytest.mark.parametrize("path", fixtures_of("policy"), ids=lambda path: path.name)
def test_a_worker_decides_by_every_published_policy_and_assessment(path: Path) -> None:
    policy = parse_stored("acme", path.read_bytes())
    assert isinstance(policy, Policy)
    compiled = CompiledPolicy(policy)
    for assessment in fixtures_of("assessment"):
        decision = compiled.decide(read(assessment), surface="chat", role="user", language="en-GB", strikes=3)
        assert decision == ("review", ("unsafe:Violent",))
