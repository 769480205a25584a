"""The notes after an installation say what to look at next."""

from __future__ import annotations

import pytest

from tests.unit.helm.rendered import EXAMPLES, Document, chart, example


def notes(values: Document) -> str:
    return str(chart().render(values, name="prod", namespace="moderation")["guardline/templates/NOTES.txt"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_notes_name_the_workers_and_how_to_wait_for_them(name: str) -> None:
    kind = "deployment" if name == "gpu-model-server" else "statefulset"
    assert f"kubectl -n moderation rollout status {kind}/prod-guardline-moderation" in notes(example(name))


def test_the_notes_name_the_secrets_that_must_exist() -> None:
    assert "The pods need these Secrets: guardline, kafka-ca." in notes(example("production"))
    assert "2 to 12 (KEDA)" in notes(example("production"))


def test_the_notes_warn_of_what_is_not_protected() -> None:
    values = example("cpu")
    assert "Warning" not in notes(values)
    del values["secretEnv"]
    assert "Warning: dedup.secret is not set" in notes(values)
    unprotected = notes(example("gpu-model-server", modelServer={"apiKey": None}, networkPolicy={"enabled": False}))
    assert "Warning: any pod of the cluster can use the model server" in unprotected
