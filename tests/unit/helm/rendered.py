"""Renders the chart with Helm's own code, and finds things in what it renders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


class Mounted:
    """The container of a component, with the files of its ConfigMaps below a folder and the variables of its pod.

    `secrets` holds the values of the keys of Secrets. The first pod of a StatefulSet has the name that ends in 0.
    """

    def __init__(self, documents: list[Document], component: str, folder: Path, secrets: Mapping[str, str]) -> None:
        # Of several Jobs of a component, the one of the settings that all workers have.
        pod, *_ = [
            one for one in pods(documents) if one["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]
        self.spec: Document = pod["spec"]
        [self.container] = self.spec["containers"]
        self._folder = folder
        volumes = {volume["name"]: volume["configMap"] for volume in self.spec["volumes"] if "configMap" in volume}
        for mount in self.container["volumeMounts"]:
            if mount["name"] in volumes:
                _write(documents, volumes[mount["name"]], Path(self._below(mount["mountPath"])))
        self.environment = {
            variable["name"]: self._below(self._value(variable, component, secrets))
            for variable in self.container["env"]
        }

    @property
    def command(self) -> list[str]:
        """The command and its arguments, as Kubernetes hands them on: `$$` becomes `$`."""
        words = [*self.container["command"], *self.container.get("args", [])]
        return [self._below(word.replace("$$(", "$(")) for word in words]

    def _below(self, text: str) -> str:
        return text.replace("/etc/guardline/", f"{self._folder}/etc/guardline/")

    def _value(self, variable: Document, component: str, secrets: Mapping[str, str]) -> str:
        if "value" in variable:
            return str(variable["value"])
        source = variable["valueFrom"]
        return secrets[source["secretKeyRef"]["key"]] if "secretKeyRef" in source else f"prod-guardline-{component}-0"


def _write(documents: list[Document], source: Document, folder: Path) -> None:
    """Write a ConfigMap's keys as Kubernetes does: those of `items` under their paths, all without `items`."""
    data = one(documents, "ConfigMap", source["name"])["data"]
    folder.mkdir(parents=True, exist_ok=True)
    for item in source.get("items") or [{"key": key, "path": key} for key in data]:
        (folder / item["path"]).write_text(data[item["key"]], encoding="utf-8")
