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
    said = notes(example("production"))
    assert "The pods need these Secrets: guardline, kafka-ca." in said
    assert "KEDA needs these Secrets: kafka-ca, keda-kafka." in said
    assert "The nodes need these Secrets to pull the images: registry." in said
    assert "KEDA needs" not in notes(example("cpu"))
    hub = {"enabled": True, "secretEnv": {"HF_TOKEN": {"secret": "hub", "key": "token"}}}
    assert "these Secrets: guardline, hub." in notes(example("gpu-model-server", modelServer=hub))
    assert "2 to 12 (KEDA)" in notes(example("production"))


def test_the_notes_name_what_the_workers_that_do_not_judge_need() -> None:
    said = notes(example("review-and-actions"))
    assert "The pods need these Secrets: guardline, reviewers, webhooks." in said
    assert "The review worker is at https://review.example, with the certificate of the Secret review-tls." in said
    assert "  prod-guardline-review: 1, StatefulSet\n" in said


def test_the_notes_warn_of_what_is_not_protected() -> None:
    values = example("cpu")
    assert "Warning" not in notes(values)
    del values["secretEnv"]
    assert "Warning: dedup.secret is not set" in notes(values)
    unprotected = notes(example("gpu-model-server", modelServer={"apiKey": None}, networkPolicy={"enabled": False}))
    assert "Warning: any pod of the cluster can use the model server" in unprotected


REDIS = {"redis": {"url": "redis://valkey:6379/0"}}
SECRET = {"secret": "own", "key": "dedup-secret"}


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"GUARDLINE_DEDUP__SECRET_FILE": "/run/secrets/dedup"}},
        {"workers": {"moderation": {"secretEnv": {"GUARDLINE_DEDUP__SECRET": SECRET}}}},
        {"config": {"dedup": {"enabled": False}}},
    ],
)
def test_the_notes_do_not_warn_where_the_content_hash_has_its_secret_or_none_is_used(changes: Document) -> None:
    assert "Warning" not in notes(example("cpu", **{"secretEnv": None} | changes))


def test_the_notes_name_the_worker_that_has_no_secret_and_the_secrets_of_single_workers() -> None:
    worker: Document = {"command": ["guardline", "worker", "moderation"]}
    workers = {"moderation": {"secretEnv": {"GUARDLINE_DEDUP__SECRET": SECRET}}, "second": worker}
    said = notes(example("cpu", secretEnv=None, workers=workers))
    assert "Warning: dedup.secret is not set for second." in said
    assert "The pods need these Secrets: own." in said
    assert "The pods need these Secrets: guardline." in notes(example("gpu-model-server", secretEnv=None, config=REDIS))


def test_the_notes_say_how_to_read_why_a_worker_restarted() -> None:
    second = {"command": ["guardline", "worker", "moderation"]}
    said = notes(example("gpu-model-server", workers={"second": second}))
    assert (
        "logs --previous --ignore-errors --prefix --tail=3 "
        "-l 'app.kubernetes.io/instance=prod,app.kubernetes.io/component in (moderation,second)'"
    ) in said


def test_the_notes_say_how_a_failed_job_runs_again() -> None:
    said = notes(example("cpu"))
    assert (
        "kubectl -n moderation delete jobs -l app.kubernetes.io/instance=prod --field-selector status.successful=0"
    ) in said
    assert "delete jobs" not in notes(example("cpu", topicsJob={"enabled": False}))
