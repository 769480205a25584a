"""The workers besides moderation: aggregates, review and actions, streams and the gateway."""

from __future__ import annotations

import pytest
import yaml

from tests.unit.helm.rendered import Document, example, of_kind, one, pods, release_of, render
from tests.unit.helm.test_pods import rules_of_the_project
from workers.actions.addresses import INTERNAL

NAME = "review-and-actions"
OTHERS = ("aggregates", "review", "actions")


def settings_of(documents: list[Document], worker: str) -> Document:
    """Return the guardline.yaml of a worker."""
    return dict(yaml.safe_load(one(documents, "ConfigMap", "prod-guardline")["data"][f"{worker}.yaml"]))


def pod_of(documents: list[Document], worker: str) -> Document:
    [pod] = [pod for pod in pods(documents) if pod["metadata"]["labels"]["app.kubernetes.io/component"] == worker]
    return pod


def mounts_of(pod: Document) -> set[str]:
    return {mount["mountPath"] for container in pod["spec"]["containers"] for mount in container["volumeMounts"]}


def test_each_pod_of_the_aggregates_worker_keeps_its_tables_on_a_volume_of_its_own() -> None:
    documents = release_of(NAME)
    [claim] = one(documents, "StatefulSet", "-aggregates")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"] == {"storage": "10Gi"}
    assert "/var/lib/guardline" in mounts_of(pod_of(documents, "aggregates"))
    assert settings_of(documents, "aggregates")["aggregates"]["folder"] == "/var/lib/guardline"


def test_without_a_volume_the_tables_are_in_memory() -> None:
    values = example(NAME)
    del values["workers"]["aggregates"]["storage"]
    documents = render(values)
    assert "volumeClaimTemplates" not in one(documents, "StatefulSet", "-aggregates")["spec"]
    assert "aggregates" not in settings_of(documents, "aggregates")


def test_one_pod_serves_the_review_queue_to_the_peers_that_are_named() -> None:
    documents = release_of(NAME)
    assert one(documents, "StatefulSet", "-review")["spec"]["replicas"] == 1
    assert settings_of(documents, "review")["review"]["host"] == "0.0.0.0"
    [port] = one(documents, "Service", "-review")["spec"]["ports"]
    assert (port["name"], port["port"]) == ("api", 9470)

    peers = example(NAME)["workers"]["review"]["portsFrom"]
    rules = one(documents, "NetworkPolicy", "-review")["spec"]["ingress"]
    assert [rule["from"] for rule in rules if rule["ports"] == [{"port": "api", "protocol": "TCP"}]] == [peers]


def test_the_ingress_leads_to_the_service_of_the_review_worker_with_tls() -> None:
    [ingress] = of_kind(release_of(NAME), "Ingress")
    assert ingress["spec"]["tls"] == [{"hosts": ["review.example"], "secretName": "review-tls"}]
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "prod-guardline-review", "port": {"name": "api"}}


@pytest.mark.parametrize("worker", ["moderation", *OTHERS])
def test_only_the_actions_worker_may_connect_to_the_endpoints(worker: str) -> None:
    rules = one(release_of(NAME), "NetworkPolicy", f"-{worker}")["spec"]["egress"]
    to_the_internet = [rule for rule in rules if any("ipBlock" in peer for peer in rule.get("to", []))]
    assert to_the_internet == (example(NAME)["workers"]["actions"]["egress"] if worker == "actions" else [])


def test_a_secret_of_one_worker_is_mounted_in_its_pods_and_the_job_that_reads_its_settings() -> None:
    documents = release_of(NAME)
    having = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]
        for pod in pods(documents)
        if "/etc/guardline/webhooks" in mounts_of(pod)
    }
    assert having == {"actions", "topics"}
    assert "/etc/guardline/webhooks" not in mounts_of(pod_of(documents, "review"))


def test_the_job_of_the_actions_worker_creates_the_topics_of_its_endpoints() -> None:
    """The topics with the dead letters of an endpoint follow from the settings that only this worker has."""
    keys = [
        item["key"]
        for job in of_kind(release_of(NAME), "Job")
        for volume in job["spec"]["template"]["spec"]["volumes"]
        for item in volume.get("configMap", {}).get("items", [])
    ]
    assert keys == ["guardline.yaml", "actions.yaml"]


@pytest.mark.parametrize("worker", OTHERS)
def test_a_worker_that_does_not_judge_gets_no_model_and_no_gpu(worker: str) -> None:
    model = {"model": {"claim": "models"}, "config": {"guard": {"engine": "vllm", "model": "/models/guard"}}}
    moderation = {"moderation": {"gpu": {"count": 1}}}
    documents = render(example(NAME, **model, workers=moderation))
    pod = pod_of(documents, worker)
    assert "/models" not in mounts_of(pod)
    assert "nvidia.com/gpu" not in pod["spec"]["containers"][0]["resources"]["limits"]
    assert "/models" in mounts_of(pod_of(documents, "moderation"))


def test_each_kind_of_worker_has_its_own_rules() -> None:
    groups = {group["name"]: group["rules"] for group in one(release_of(NAME), "PrometheusRule")["spec"]["groups"]}
    expected = {
        job: rules_of_the_project(group, job)
        for job, group in [
            ("prod-guardline-moderation", "guardline"),
            *((f"prod-guardline-{worker}", f"guardline-{worker}") for worker in OTHERS),
        ]
    }
    assert groups == expected


@pytest.mark.parametrize("worker", ["moderation", *OTHERS])
def test_the_rules_of_each_worker_also_fire_for_one_that_never_started(worker: str) -> None:
    [rules] = [
        group["rules"]
        for group in one(release_of(NAME), "PrometheusRule")["spec"]["groups"]
        if group["name"] == f"prod-guardline-{worker}"
    ]
    of_it = f'{{guardline_worker_state="running",namespace="moderation",job="prod-guardline-{worker}"}}'
    assert [rule["alert"] for rule in rules if f"absent(guardline_worker_state{of_it})" in rule["expr"]] == [
        {"aggregates": "GuardlineAggregatesLate", "review": "GuardlineReviewNotActive"}.get(worker, "GuardlineNoWorker")
    ]
    assert [rule["alert"] for rule in rules if "[1d]" in rule["expr"]] == []


def test_the_actions_worker_of_the_example_reaches_no_internal_network_but_those_that_its_settings_allow() -> None:
    worker = example(NAME)["workers"]["actions"]
    [rule] = worker["egress"]
    internet, *allowed = [peer["ipBlock"] for peer in rule["to"]]
    assert internet["cidr"] == "0.0.0.0/0"
    assert internet["except"] == [str(network) for network in INTERNAL if network.version == 4]
    endpoints = worker["config"]["actions"]["endpoints"]
    assert [block["cidr"] for block in allowed] == [
        network for endpoint in endpoints for network in endpoint.get("allow_networks", [])
    ]


def test_a_gateway_that_is_only_a_proxy_has_its_card_for_one_model() -> None:
    values = example("live-moderation")
    gateway = values["workers"]["gateway"]
    assert gateway["config"]["gateway"]["guard_routes"] is False
    gateway["gpu"] = {"count": 1}
    gateway["config"] |= {"guard": {"engine": "vllm"}, "streams": {"engine": "vllm"}}
    settings = settings_of(render(values), "gateway")
    assert settings["streams"]["vllm"]["gpu_memory_utilization"] == 0.9


def test_the_gateway_is_a_deployment_whose_service_leads_to_its_api() -> None:
    documents = release_of("live-moderation")
    assert one(documents, "Deployment", "-gateway")["spec"]["replicas"] == 2
    assert settings_of(documents, "gateway")["gateway"]["host"] == "0.0.0.0"
    assert [port["port"] for port in one(documents, "Service", "-gateway")["spec"]["ports"]] == [9480]
    assert "/etc/guardline/keys" in mounts_of(pod_of(documents, "gateway"))
    assert "/etc/guardline/keys" not in mounts_of(pod_of(documents, "streams"))
    pod = one(documents, "Deployment", "-gateway")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > settings_of(documents, "gateway")["worker"]["grace_s"]


def test_the_guard_of_streams_on_vllm_gets_its_part_of_the_card() -> None:
    on_card = {"gpu": {"count": 1, "podsPerCard": 2}, "config": {"streams": {"engine": "vllm"}}}
    documents = render(example("live-moderation", workers={"streams": on_card}))
    assert settings_of(documents, "streams")["streams"]["vllm"] == {"gpu_memory_utilization": 0.45}
