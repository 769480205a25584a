import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from schemas.generate import CONTRACTS, FOLDER, rendered

RENDERED = rendered()
FIXTURES = sorted((Path(__file__).parents[2] / "fixtures" / "contracts").glob("*/*.json"))


def test_every_contract_has_a_schema_file_and_no_other_file_is_left() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(RENDERED) == {f"{name}.schema.json" for name in CONTRACTS}


def beside_references(node: Any) -> Iterator[str]:
    """Give the keywords beside a `$ref`, which draft-07 ignores."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield from node.keys() - {"$ref"}
        for value in node.values():
            yield from beside_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from beside_references(value)


@pytest.mark.parametrize("name", sorted(RENDERED))
def test_a_schema_means_the_same_in_the_old_and_in_the_new_draft(name: str) -> None:
    schema = json.loads(RENDERED[name])
    for validator in (Draft7Validator, Draft202012Validator):
        validator.check_schema(schema)
    assert set(beside_references(schema)) <= {"default", "description", "title"}


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.parametrize("validator", [Draft7Validator, Draft202012Validator])
def test_a_published_record_keeps_the_schema_of_today(path: Path, validator: Any) -> None:
    schema = json.loads(RENDERED[f"{path.parent.name}.schema.json"])
    record = json.loads(path.read_text(encoding="utf-8"))
    assert list(validator(schema).iter_errors(record)) == []
    assert list(validator(schema).iter_errors({})) != []
