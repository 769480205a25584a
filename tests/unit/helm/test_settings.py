"""The settings, variables and policies that the chart renders are ones that Guardline itself reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.helm.rendered import EXAMPLES, Document, example, of_kind, one, pods, release_of, render
from workers.policy.document import parse_yaml
from workers.settings import load

SECRETS = {
    "redis-url": "rediss://guard:pw@valkey:6379/0",
    "kafka-properties": '{"sasl.password": "hidden"}',
    "dedup-secret": "hidden",
    "vllm-api-key": "hidden",
}
"""What an operator's Secret holds."""


def pods_that_run_guardline() -> list[tuple[str, str]]:
    """The name of an example, and of a pod's component."""
    found = []
    for name in EXAMPLES:
        labels = [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods(release_of(name))]
        found += [(name, component) for component in labels if component != "vllm"]
    return found


@pytest.mark.parametrize(("name", "component"), pods_that_run_guardline())
def test_guardline_reads_its_settings_in_every_pod(
    name: str, component: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    documents = release_of(name)
    [pod] = [pod for pod in pods(documents) if pod["metadata"]["labels"]["app.kubernetes.io/component"] == component]
    [container] = pod["spec"]["containers"]
    for variable in [variable for variable in os.environ if variable.startswith("GUARDLINE_")]:
        monkeypatch.delenv(variable)
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], value_of(variable))
    monkeypatch.setenv("GUARDLINE_CONFIG", str(mounted_config(documents, pod, tmp_path)))

    settings = load()

    assert settings.kafka.bootstrap_servers == example(name)["config"]["kafka"]["bootstrap_servers"]
    assert settings.dedup.secret.get_secret_value() == "hidden"
    if component == "moderation":
        assert (settings.worker.id, settings.http.host, settings.http.port) == (
            "prod-guardline-moderation-0",
            "0.0.0.0",
            9464,
        )
        assert settings.worker.grace_s < pod["spec"]["terminationGracePeriodSeconds"]
    if name == "production":
        # The file and the Secret each hold a part of the properties.
        assert {"sasl.password", "sasl.mechanism"} <= set(settings.kafka.properties)


def value_of(variable: Document) -> str:
    if "value" in variable:
        return str(variable["value"])
    source = variable["valueFrom"]
    return SECRETS[source["secretKeyRef"]["key"]] if "secretKeyRef" in source else "prod-guardline-moderation-0"


def mounted_config(documents: list[Document], pod: Document, folder: Path) -> Path:
    """Put the ConfigMap where the pod mounts it, below a folder."""
    [container] = pod["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    [volume] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "config"]
    [item] = volume["configMap"]["items"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "config"]
    text = one(documents, "ConfigMap", volume["configMap"]["name"])["data"][item["key"]]
    path = folder / f"{mount['mountPath']}/{item['path']}".lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    assert str(path).endswith(variables["GUARDLINE_CONFIG"]["value"])
    return path


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
    [pod] = [pod for pod in pods(documents) if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "policies"]
    [container] = pod["spec"]["containers"]
    texts = one(documents, "ConfigMap", "-policies")["data"]

    # The real shell, with a command in place of guardline that says how it was called.
    (tmp_path / "guardline").write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n', encoding="utf-8")
    (tmp_path / "guardline").chmod(0o755)
    # Kubernetes replaces $(NAME) in an argument, and $$ by one $.
    args = [argument.replace("$$(", "$(") for argument in container["args"]]
    run = subprocess.run(
        [*container["command"], *args],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": "/root"},
        capture_output=True,
        text=True,
        check=True,
    )

    calls = run.stdout.splitlines()
    assert calls[0] == "policy default /etc/guardline/policies/default.yaml"
    set_for = dict(call.removeprefix("policy set -- ").rsplit(" ", 1) for call in calls[1:])
    assert set(set_for) == set(tenants)
    for tenant, path in set_for.items():
        policy = parse_yaml(tenant, texts[Path(path).name], path)
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
