"""Renders the chart with Helm's own code, and finds things in what it renders."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python.chart import Chart

CHART = Path(__file__).parents[3] / "helm" / "guardline"
EXAMPLES = {path.stem: path for path in sorted((CHART / "examples").glob("*.yaml"))}

Document = dict[str, Any]


@cache
def chart() -> Chart:
    """Return the chart, loaded once."""
    return Chart.load(str(CHART))


def example(name: str, **changes: Any) -> Document:
    """Return the values of an example, with changes merged over them."""
    return merged(yaml.safe_load(EXAMPLES[name].read_text(encoding="utf-8")), changes)


def merged(values: Document, changes: Document) -> Document:
    """Merge as Helm does: maps are merged, everything else is replaced."""
    result = deepcopy(values)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else deepcopy(value)
    return result


def render(values: Document, name: str = "prod", namespace: str = "moderation") -> list[Document]:
    """Return the manifests of a release."""
    texts = chart().render(values, name=name, namespace=namespace)
    manifests = [text for path, text in texts.items() if not path.endswith("NOTES.txt")]
    return [document for text in manifests for document in yaml.load_all(text, yaml.CSafeLoader) if document]


@cache
def release_of(name: str) -> list[Document]:
    """Return the manifests of an example. Do not change them."""
    return render(example(name))


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    """Return the manifests of some kinds."""
    return [document for document in documents if document["kind"] in kinds]


def one(documents: list[Document], kind: str, ends_in: str = "") -> Document:
    """Return the only manifest of a kind whose name ends so."""
    [found] = [document for document in of_kind(documents, kind) if document["metadata"]["name"].endswith(ends_in)]
    return found


def pods(documents: list[Document]) -> list[Document]:
    """Return the pod templates."""
    return [document["spec"]["template"] for document in of_kind(documents, "StatefulSet", "Deployment", "Job")]


def containers(documents: list[Document]) -> Iterator[Document]:
    """Return all containers of all pods, the init containers too."""
    for pod in pods(documents):
        yield from pod["spec"].get("initContainers", [])
        yield from pod["spec"]["containers"]
