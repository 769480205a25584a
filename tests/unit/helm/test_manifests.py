"""Every manifest of every example is one that the Kubernetes API, KEDA and the Prometheus operator accept."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest
from helm_python.chart import lint
from jsonschema import ValidationError

from tests.unit.helm.rendered import CHART, EXAMPLES, example, of_kind, one, release_of, render
from tests.unit.helm.schemas import CRDS, VERSIONS, check

ALL = pytest.mark.parametrize("name", EXAMPLES)


@ALL
def test_lint_finds_nothing(name: str) -> None:
    found = lint(str(CHART), example(name), strict=True)
    assert (found["messages"], found["errors"]) == ([], [])


@ALL
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_of_every_example_fits_its_schema(name: str, version: str) -> None:
    documents = release_of(name)
    if name == "gpu-model-server" and version == VERSIONS[0]:
        # An image volume: that version does not know it.
        documents = render(example(name, model={"image": None, "claim": "models"}))
    assert documents
    for document in documents:
        check(document, version)


def test_the_examples_have_every_foreign_kind() -> None:
    kinds = {document["kind"] for name in EXAMPLES for document in release_of(name)}
    assert kinds >= set(CRDS)


def breakages() -> list[tuple[str, str, dict[str, Any]]]:
    """A kind, what the error says, and what is merged into its spec."""
    return [
        ("ScaledObject", "minReplica", {"minReplica": 1}),
        ("ScaledObject", "'15' is not of type 'integer'", {"pollingInterval": "15"}),
        ("ScaledObject", "'metadata' is a required property", {"triggers": [{"type": "kafka"}]}),
        ("TriggerAuthentication", "secret", {"secretTargetRef": [{"parameter": "a", "secret": "b", "key": "c"}]}),
        ("ServiceMonitor", "intervall", {"endpoints": [{"intervall": "15s"}]}),
        ("PrometheusRule", "'expr' is a required property", {"groups": [{"name": "a", "rules": [{"alert": "b"}]}]}),
        ("StatefulSet", "replica", {"replica": 1}),
        ("NetworkPolicy", "ingres", {"ingres": []}),
    ]


@pytest.mark.parametrize(("kind", "said", "change"), breakages())
def test_the_schemas_refuse_what_the_servers_refuse(kind: str, said: str, change: dict[str, Any]) -> None:
    document = deepcopy(of_kind(release_of("production"), kind)[0])
    document["spec"] |= change
    with pytest.raises((ValidationError, kubernetes_validate.ValidationError), match=said):
        check(document)


def test_two_releases_in_a_namespace_share_no_name() -> None:
    def names(release: str) -> set[tuple[str, str]]:
        documents = render(example("production"), name=release)
        return {(document["kind"], document["metadata"]["name"]) for document in documents}

    assert names("a").isdisjoint(names("b"))


@ALL
def test_no_two_objects_of_a_release_share_a_name(name: str) -> None:
    keys = [(document["kind"], document["metadata"]["name"]) for document in release_of(name)]
    assert len(keys) == len(set(keys))
    assert all(len(own) <= 63 for _, own in keys)


def test_a_long_release_name_leaves_names_that_fit_into_labels() -> None:
    documents = render(
        example("cpu", workers={"a-very-long-worker-1": {"command": ["guardline", "worker", "moderation"]}}),
        name="r" * 53,
    )
    stateful = one(documents, "StatefulSet", "a-very-long-worker-1")
    # The controller's label is the name, a hyphen and a hash of ten characters.
    assert len(stateful["metadata"]["name"]) <= 52
    for document in documents:
        check(document)
