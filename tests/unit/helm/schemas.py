"""The schemas of all manifests: those of the Kubernetes API, and closed ones of the four kinds that others define."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator

from tests.unit.helm.rendered import Document

CRDS = {path.stem: path for path in (Path(__file__).parent / "crds").glob("*.json")}
VERSIONS = ["1.29", "1.33", "1.37"]
"""The oldest Kubernetes that the chart supports, one between, and the newest whose schemas the library has."""

# Without this the library reads and parses the same large files for each document.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)


@cache
def closed_schema(kind: str) -> Draft202012Validator:
    """The schema of a foreign kind. A name that it does not know is refused, as the API server refuses it."""
    crd = json.loads(CRDS[kind].read_text(encoding="utf-8"))
    schema = _closed(crd["openAPIV3Schema"])
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["properties"]["apiVersion"] = {"const": f"{crd['group']}/{crd['version']}"}
    schema["properties"]["metadata"] = {"type": "object"}
    return Draft202012Validator(schema)


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(closed.get("properties"), dict) and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("anyOf", None)
        closed["type"] = ["integer", "string"]
    return closed


def check(document: Document, version: str = VERSIONS[-1]) -> None:
    if document["kind"] in CRDS:
        closed_schema(document["kind"]).validate(document)
    else:
        kubernetes_validate.validate(document, version, strict=True)
