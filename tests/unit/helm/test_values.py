"""The chart describes its values, and belongs to the version of the project that it installs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import yaml

from tests.unit.helm.rendered import CHART, Document

SCHEMA: Document = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def properties(schema: Any, path: str = "") -> Iterator[tuple[str, Document]]:
    """Return every property of the schema, also those of its definitions."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}/{name}", inner
        yield from properties(inner, f"{path}/{name}")
    for name, inner in schema.get("$defs", {}).items():
        yield from properties(inner, f"${name}")


def test_the_schema_describes_every_value() -> None:
    found = dict(properties(SCHEMA))
    assert "/workers" in found
    assert "$gpu/memoryFraction" in found
    named = {name: inner["$ref"].removeprefix("#/$defs/") for name, inner in found.items() if "$ref" in inner}
    described = {name for name, inner in found.items() if "description" in inner} | {
        name for name, definition in named.items() if "description" in SCHEMA["$defs"][definition]
    }
    assert set(found) - described == set()


def test_every_default_is_a_value_of_the_schema() -> None:
    """Helm checks this only for the values that a user gives: the schema is closed, so a name that it lacks fails."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(values) <= set(SCHEMA["properties"])
    known = set(SCHEMA["$defs"]["worker"]["properties"])
    assert set(values["workerDefaults"]) <= known
    assert set(SCHEMA["properties"]["workerDefaults"]["properties"]) < known


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == metadata.version("guardline")
