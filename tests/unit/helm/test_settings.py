"""The settings, variables and policies that the chart renders are ones that Guardline itself reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.helm.rendered import EXAMPLES, Document, Mounted, example, of_kind, one, pods, release_of, render
from tests.unit.helm.schemas import check
from workers.policy.document import parse_yaml
from workers.settings import load

SECRETS = {
    "redis-url": "rediss://guard:pw@valkey:6379/0",
    "kafka-properties": '{"sasl.password": "hidden"}',
    "dedup-secret": "hidden",
    "vllm-api-key": "hidden",
}
"""What an operator's Secret holds."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_guardline_reads_its_settings_in_every_pod(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    documents = release_of(name)
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods(documents)} - {"vllm"}
    assert components >= {"moderation", "topics"}
    for component in components:
        pod = Mounted(documents, component, tmp_path / component, SECRETS)
        with monkeypatch.context() as changed:
            for variable in [variable for variable in os.environ if variable.startswith("GUARDLINE_")]:
                changed.delenv(variable)
            for variable, value in pod.environment.items():
                changed.setenv(variable, value)
            settings = load()

        assert settings.kafka.bootstrap_servers == example(name)["config"]["kafka"]["bootstrap_servers"]
        assert settings.dedup.secret.get_secret_value() == "hidden"
        if component == "moderation":
            assert settings.worker.id == "prod-guardline-moderation-0"
            assert (settings.http.host, settings.http.port) == ("0.0.0.0", 9464)
            assert settings.worker.grace_s < pod.spec["terminationGracePeriodSeconds"]
        if name == "production":
            # The file and the Secret each hold a part of the properties.
            assert {"sasl.password", "sasl.mechanism"} <= set(settings.kafka.properties)


def test_a_job_creates_the_topics_that_only_one_worker_names() -> None:
    worker: Document = {"command": ["guardline", "worker", "moderation"]}
    same = worker | {"config": {"kafka": {"group": "same"}}}
    second = worker | {"config": {"topics": {"verdicts": "second.verdicts"}}, "env": {"GUARDLINE_BATCH__MAX_COUNT": 8}}
    third = worker | {"env": {"GUARDLINE_TOPICS__VERDICTS": "third.verdicts"}}
    workers = {"same": same, "second": second, "second-too": second, "third": third}
    documents = render(example("cpu", workers=workers))

    files = one(documents, "ConfigMap")["data"]
    made = []
    for job in of_kind(documents, "Job"):
        check(job)
        spec = job["spec"]["template"]["spec"]
        [container] = spec["containers"]
        assert container["command"] == ["guardline", "topics", "create"]
        [config] = [volume["configMap"]["items"] for volume in spec["volumes"] if volume["name"] == "config"]
        variables = {variable["name"]: variable.get("value") for variable in container["env"]}
        topics = yaml.safe_load(files[config[0]["key"]])["topics"]
        made.append(variables.get("GUARDLINE_TOPICS__VERDICTS") or topics.get("verdicts"))
    assert made == [None, "second.verdicts", "third.verdicts"]
    assert len({job["metadata"]["name"] for job in of_kind(documents, "Job")}) == 3


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_secret_is_only_ever_a_reference(name: str) -> None:
    documents = release_of(name)
    assert of_kind(documents, "Secret") == []
    references = {
        (variable["name"], variable["valueFrom"]["secretKeyRef"]["name"])
        for pod in pods(documents)
        for container in pod["spec"]["containers"]
        for variable in container["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    expected = {(variable, source["secret"]) for variable, source in example(name)["secretEnv"].items()}
    assert expected <= references


def test_the_policies_job_sets_each_policy_for_its_tenant(tmp_path: Path) -> None:
    tenants: Document = {
        "kids": {"preset": "strict"},
        'it\'s a "forum"; exit 1 #': "preset: loose\n",
        "$(HOME)": {"preset": "strict"},
        "--delete": {"preset": "strict"},
        "日本": {"preset": "social"},
    }
    documents = render(example("cpu", policies={"default": {"preset": "social"}, "tenants": tenants}))
    job = Mounted(documents, "policies", tmp_path, SECRETS)

    # The real shell, with a command in place of guardline that says how it was called.
    (tmp_path / "guardline").write_text('#!/bin/sh\nprintf "%s\\t" "$@"\necho\n', encoding="utf-8")
    (tmp_path / "guardline").chmod(0o755)
    run = subprocess.run(
        job.command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )

    first, *calls = [line.split("\t")[:-1] for line in run.stdout.splitlines()]
    assert first == ["policy", "default", f"{tmp_path}/etc/guardline/policies/default.yaml"]
    assert {tuple(call[:3]) for call in calls} == {("policy", "set", "--")}
    set_for = {tenant: path for *_, tenant, path in calls}
    assert set(set_for) == set(tenants)
    for tenant, path in set_for.items():
        policy = parse_yaml(tenant, Path(path).read_text(encoding="utf-8"), path)
        written = tenants[tenant]
        assert policy.preset == (yaml.safe_load(written) if isinstance(written, str) else written)["preset"]


def test_a_tenant_whose_name_looks_like_a_variable_is_not_replaced() -> None:
    documents = render(example("cpu", policies={"tenants": {"$(HOME)": {"preset": "strict"}}}))
    [pod] = [pod for pod in pods(documents) if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "policies"]
    assert pod["spec"]["containers"][0]["args"][1] == "$$(HOME)"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_policy_of_an_example_is_valid(name: str) -> None:
    for config_map in of_kind(release_of(name), "ConfigMap"):
        if config_map["metadata"]["name"].endswith("-policies"):
            presets = {parse_yaml("a", text, key).preset for key, text in config_map["data"].items()}
            assert presets == {"social", "strict", "loose"}
