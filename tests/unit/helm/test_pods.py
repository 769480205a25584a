"""What every pod of the chart must have, and how the chart computes what depends on the settings."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python.chart import Chart

from infra.observability import alerts
from tests.unit.helm.rendered import (
    CHART,
    EXAMPLES,
    Document,
    containers,
    example,
    merged,
    of_kind,
    one,
    pods,
    release_of,
    render,
)
from tests.unit.helm.schemas import check

OBSERVABILITY = CHART.parents[1] / "infra" / "observability"
SERIES = r"\b((?:guardline|process)_\w+)\b(?!\w*=)"
MATCHED = r'\b((?:guardline|process)_\w+)\{[^}]*namespace="[^"]+",job="[^"]+"\}'

ALL = pytest.mark.parametrize("name", EXAMPLES)


def worker_of(documents: list[Document], name: str = "moderation") -> Document:
    """Return the StatefulSet or Deployment of a worker."""
    [found] = [
        document
        for document in of_kind(documents, "StatefulSet", "Deployment")
        if document["metadata"]["labels"]["app.kubernetes.io/component"] == name
    ]
    return found


def env_of(container: Document) -> dict[str, Document]:
    return {variable["name"]: variable for variable in container["env"]}


@ALL
def test_every_container_is_confined(name: str) -> None:
    documents = release_of(name)
    for pod in pods(documents):
        assert pod["spec"]["automountServiceAccountToken"] is False
        security = pod["spec"]["securityContext"]
        assert (security["runAsNonRoot"], security["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert security["runAsUser"] > 0
    for container in containers(documents):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]["cpu"]
        assert container["resources"]["limits"]["memory"]
        # The only writable folder, and where libraries look for it.
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert "readOnly" not in mounts["/tmp"]
        assert env_of(container)["HOME"]["value"] == "/tmp"


@ALL
def test_every_mount_has_its_volume_and_every_volume_a_mount(name: str) -> None:
    for pod in pods(release_of(name)):
        inside = [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        mounted = {mount["name"] for container in inside for mount in container["volumeMounts"]}
        assert mounted - {"storage"} == {volume["name"] for volume in pod["spec"]["volumes"]}


@ALL
def test_every_long_running_container_has_its_probes(name: str) -> None:
    for document in of_kind(release_of(name), "StatefulSet", "Deployment"):
        [container] = document["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] > 60


@ALL
def test_every_selector_finds_pods_of_its_own_component_only(name: str) -> None:
    documents = release_of(name)
    labels = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["metadata"]["labels"] for pod in pods(documents)
    }
    for document in documents:
        spec = document.get("spec") or {}
        selectors = {
            "Service": lambda spec=spec: spec["selector"],
            "NetworkPolicy": lambda spec=spec: spec["podSelector"]["matchLabels"],
        }
        if document["kind"] in ("StatefulSet", "Deployment", "PodDisruptionBudget"):
            selector = spec["selector"]["matchLabels"]
        elif document["kind"] in selectors:
            selector = selectors[document["kind"]]()
        else:
            continue
        found = [component for component, own in labels.items() if selector.items() <= own.items()]
        assert found == [document["metadata"]["labels"]["app.kubernetes.io/component"]]


@ALL
def test_the_pods_of_a_component_spread_among_themselves(name: str) -> None:
    for document in of_kind(release_of(name), "StatefulSet", "Deployment"):
        spread = document["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread
        for constraint in spread:
            assert constraint["labelSelector"] == document["spec"]["selector"]


@ALL
def test_the_service_monitor_finds_the_services_of_the_workers_only(name: str) -> None:
    documents = render(example(name, monitoring={"serviceMonitor": {"enabled": True}}))
    monitor = one(documents, "ServiceMonitor")
    selector = monitor["spec"]["selector"]["matchLabels"].items()
    found = [service for service in of_kind(documents, "Service") if selector <= service["metadata"]["labels"].items()]
    workers = [
        document["metadata"]["labels"]["app.kubernetes.io/component"]
        for document in of_kind(documents, "StatefulSet", "Deployment")
    ]
    expected = {f"prod-guardline-{worker}-pods" for worker in workers if worker != "vllm"}
    assert {service["metadata"]["name"] for service in found} == expected
    [endpoint] = monitor["spec"]["endpoints"]
    assert all(endpoint["port"] in {port["name"] for port in service["spec"]["ports"]} for service in found)


def test_the_dashboard_is_that_of_the_project() -> None:
    dashboard = json.loads(one(release_of("production"), "ConfigMap", "-dashboard")["data"]["guardline.json"])
    assert dashboard == json.loads((OBSERVABILITY / "dashboard.json").read_text(encoding="utf-8"))


def two_workers(release: str, namespace: str = "moderation") -> list[Document]:
    """Return a release with two workers and all of the monitoring."""
    second = {"command": ["guardline", "worker", "moderation"], "config": {"kafka": {"group": "second"}}}
    return render(example("production", workers={"second": second}), name=release, namespace=namespace)


def test_each_worker_has_a_job_of_its_own_and_the_rules_of_the_project_for_it() -> None:
    documents = two_workers("prod")
    groups = {group["name"]: group["rules"] for group in one(documents, "PrometheusRule")["spec"]["groups"]}
    assert list(groups) == ["prod-guardline-moderation", "prod-guardline-second"]

    job_label = one(documents, "ServiceMonitor")["spec"]["jobLabel"]
    for worker in ("moderation", "second"):
        job = one(documents, "Service", f"-{worker}-pods")["metadata"]["labels"][job_label]
        assert groups[job] == rules_of_the_project("guardline", job)


def rules_of_the_project(group: str, job: str) -> list[Document]:
    """Return the rules of a kind of worker, for the job of a release in the namespace `moderation`."""
    groups = yaml.safe_load(alerts.rules(is_every_kind_expected=True))["groups"]
    [rules] = [one["rules"] for one in groups if one["name"] == group]
    selector = f'namespace="moderation",job="{job}"'
    return [rule | {"expr": rule["expr"].replace(f'job="{group}"', selector)} for rule in rules]


def test_a_worker_that_is_stopped_on_purpose_has_no_rules() -> None:
    def groups(**worker: Any) -> list[str]:
        values = example("production", workers={"second": {"command": ["guardline"], **worker}})
        return [group["name"] for group in one(render(values), "PrometheusRule")["spec"]["groups"]]

    both = ["prod-guardline-moderation", "prod-guardline-second"]
    prometheus = {"enabled": True, "serverAddress": "http://prometheus:9090"}
    scaled = {"enabled": True, "kafka": {"enabled": False}, "prometheus": prometheus}
    assert groups(replicas=1) == groups(replicas=0, autoscaling=scaled) == both
    assert groups(replicas=0) == both[:1]
    off = example("production", workers={"moderation": {"replicas": 0, "autoscaling": {"enabled": False}}})
    assert of_kind(render(off), "PrometheusRule") == []


def test_every_series_in_the_rules_is_that_of_one_worker_of_one_release() -> None:
    selectors: list[str] = []
    for release, namespace in (("a", "moderation"), ("b", "moderation"), ("a", "other")):
        for group in one(two_workers(release, namespace), "PrometheusRule")["spec"]["groups"]:
            text = " ".join(rule["expr"] for rule in group["rules"])
            assert re.findall(SERIES, text) == re.findall(MATCHED, text) != []
            [selector] = set(re.findall(r'namespace="[^}]*"', text))
            selectors.append(selector)
    assert len(set(selectors)) == len(selectors) == 6


@ALL
def test_a_statefulset_names_a_service_that_exists(name: str) -> None:
    documents = release_of(name)
    services = {service["metadata"]["name"] for service in of_kind(documents, "Service")}
    for document in of_kind(documents, "StatefulSet"):
        assert document["spec"]["serviceName"] in services


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_a_worker_is_named_by_its_pod(kind: str) -> None:
    worker = worker_of(render(example("cpu", workers={"moderation": {"kind": kind}})))
    assert worker["kind"] == kind
    variables = env_of(worker["spec"]["template"]["spec"]["containers"][0])
    assert variables["GUARDLINE_WORKER__ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


@pytest.mark.parametrize(("grace_s", "seconds"), [(25, 40), (0, 15), (40.5, 56), (600, 615)])
def test_the_termination_is_longer_than_the_drain(grace_s: float, seconds: int) -> None:
    for values in (
        {"config": {"worker": {"grace_s": grace_s}}},
        {"workers": {"moderation": {"config": {"worker": {"grace_s": grace_s}}}}},
    ):
        pod = worker_of(render(example("cpu", **values)))["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == seconds


def test_a_changed_setting_restarts_only_the_workers_that_have_it() -> None:
    second: Document = {"command": ["guardline", "worker", "moderation"], "config": {"kafka": {"group": "second"}}}

    def templates(**changes: Any) -> dict[str, Document]:
        documents = render(merged(example("cpu", workers={"second": second}), changes))
        return {name: worker_of(documents, name)["spec"]["template"] for name in ("moderation", "second")}

    before = templates()
    own = templates(workers={"second": {"config": {"batch": {"max_count": 64}}}})
    assert (own["moderation"] == before["moderation"], own["second"] == before["second"]) == (True, False)
    shared = templates(config={"batch": {"max_count": 64}})
    assert (shared["moderation"] == before["moderation"], shared["second"] == before["second"]) == (False, False)
    assert templates() == before


def test_one_entry_makes_another_worker() -> None:
    entry = {
        "command": ["guardline", "worker", "translation"],
        "kind": "Deployment",
        "replicas": 3,
        "resources": {"requests": {"cpu": "500m"}},
        "config": {"kafka": {"group": "gateway"}},
        "env": {"SOME_NUMBER": 3},
        "secretEnv": {"GATEWAY_KEY": {"secret": "gateway", "key": "key"}},
        "ports": [{"name": "api", "port": 8080}],
        "autoscaling": {"enabled": True},
    }
    documents = render(example("cpu", workers={"gateway": entry}))
    gateway = worker_of(documents, "gateway")
    [container] = gateway["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["guardline", "worker", "translation"]
    # What the entry does not say comes from the defaults.
    assert container["resources"] == {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    assert env_of(container)["SOME_NUMBER"]["value"] == "3"
    assert env_of(container)["GATEWAY_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "gateway", "key": "key"}}
    assert {"name": "api", "containerPort": 8080} in container["ports"]
    assert one(documents, "Service", "-gateway")["spec"]["ports"] == [
        {"name": "api", "port": 8080, "targetPort": "api"}
    ]
    assert one(documents, "NetworkPolicy", "-gateway")["spec"]["ingress"][1] == {
        "ports": [{"port": "api", "protocol": "TCP"}]
    }
    assert one(documents, "ScaledObject", "-gateway")["spec"]["scaleTargetRef"]["kind"] == "Deployment"
    assert one(documents, "ScaledObject", "-gateway")["spec"]["triggers"][0]["metadata"]["consumerGroup"] == "gateway"
    assert worker_of(documents)["spec"]["replicas"] == 2


def test_a_large_number_is_written_without_an_exponent() -> None:
    values = example(
        "cpu",
        config={"events": {"max_bytes": 104857600}},
        env={"LARGE": 10485760, "SMALL": 0.25, "YES": True},
        jobs={"activeDeadlineSeconds": 10000000},
        workerDefaults={"autoscaling": {"enabled": True, "kafka": {"lagThreshold": 2000000}}},
    )
    documents = render(values)
    assert "max_bytes: 104857600\n" in one(documents, "ConfigMap")["data"]["moderation.yaml"]
    variables = env_of(worker_of(documents)["spec"]["template"]["spec"]["containers"][0])
    assert [variables[name]["value"] for name in ("LARGE", "SMALL", "YES")] == ["10485760", "0.25", "true"]
    assert one(documents, "ScaledObject")["spec"]["triggers"][0]["metadata"]["lagThreshold"] == "2000000"
    for document in documents:
        check(document)


def test_names_that_yaml_takes_for_other_types_stay_names() -> None:
    login = {"username": {"secret": "1", "key": "2"}}
    values = example(
        "production",
        workers={
            "no": {
                "command": ["true"],
                "ports": [{"name": "on", "port": 80}],
                "autoscaling": {"enabled": True, "kafka": {"authentication": login}},
            }
        },
        env={"YES": "yes", "A": "1e3"},
        secretEnv={"NULL": {"secret": "1", "key": "2"}},
        secretFiles=[{"secret": "1.5", "mountPath": "/on"}],
        imagePullSecrets=["12"],
        serviceAccount={"name": "0x1"},
        fullnameOverride="1e3",
    )
    for document in render(values, name="123", namespace="456"):
        check(document)


def test_a_workers_budget_replaces_the_default_and_an_empty_one_removes_it() -> None:
    documents = render(example("cpu", workers={"moderation": {"podDisruptionBudget": {"minAvailable": "50%"}}}))
    budget = one(documents, "PodDisruptionBudget")["spec"]
    assert (budget["minAvailable"], budget.get("maxUnavailable")) == ("50%", None)
    documents = render(example("cpu", workers={"moderation": {"podDisruptionBudget": {}}}))
    assert of_kind(documents, "PodDisruptionBudget") == []


def test_an_entry_that_is_null_leaves_its_worker_out() -> None:
    documents = render(example("cpu", workers={"moderation": None}))
    assert of_kind(documents, "StatefulSet", "Deployment", "PodDisruptionBudget", "Service") == []


@pytest.mark.parametrize(
    ("gpu", "fraction"),
    [({}, 0.45), ({"podsPerCard": 3}, 0.3), ({"podsPerCard": 1}, 0.9), ({"memoryFraction": 0.4}, 0.4)],
)
def test_vllm_in_a_worker_takes_its_part_of_the_card(gpu: Document, fraction: float) -> None:
    documents = render(example("gpu-in-process", workers={"moderation": {"gpu": gpu}}))
    config = yaml.safe_load(one(documents, "ConfigMap")["data"]["moderation.yaml"])
    assert config["guard"]["vllm"] == {"dtype": "bfloat16", "gpu_memory_utilization": fraction}
    worker = worker_of(documents)["spec"]
    [container] = worker["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu.shared"] == 1
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container["volumeMounts"]
    # vLLM measures the free memory when it starts, so the pods of a card start one after the other.
    shares = (gpu.get("podsPerCard") or 2) > 1
    assert worker["podManagementPolicy"] == ("OrderedReady" if shares else "Parallel")


@pytest.mark.parametrize(
    ("kind", "urls"),
    [
        ("Deployment", ["http://prod-guardline-vllm:8000"]),
        ("StatefulSet", [f"http://prod-guardline-vllm-{i}.prod-guardline-vllm:8000" for i in range(2)]),
    ],
)
def test_the_model_server_and_its_workers_agree(kind: str, urls: list[str]) -> None:
    documents = render(example("gpu-model-server", modelServer={"kind": kind, "gpu": {"podsPerCard": 2}}))
    config = yaml.safe_load(one(documents, "ConfigMap")["data"]["moderation.yaml"])
    assert config["guard"]["openai"]["urls"] == urls
    server = one(documents, kind, "-vllm")["spec"]["template"]["spec"]
    [vllm] = server["containers"]
    assert vllm["args"][:6] == [
        config["guard"]["model"],
        "--host=0.0.0.0",
        "--port=8000",
        f"--max-model-len={config['guard']['context_tokens']}",
        "--gpu-memory-utilization=0.45",
        f"--served-model-name={config['guard']['openai']['model']}",
    ]
    worker = worker_of(documents)["spec"]["template"]["spec"]
    assert [volume for volume in worker["volumes"] if volume["name"] == "model"] == [
        volume for volume in server["volumes"] if volume["name"] == "model"
    ]
    keys = [env_of(vllm)["VLLM_API_KEY"], env_of(worker["containers"][0])["GUARDLINE_GUARD__OPENAI__API_KEY"]]
    assert [key["valueFrom"]["secretKeyRef"] for key in keys] == [{"name": "guardline", "key": "vllm-api-key"}] * 2
    # The server of a worker of this release only.
    [rule] = one(documents, "NetworkPolicy", "-vllm")["spec"]["ingress"]
    assert rule["from"][0]["podSelector"]["matchExpressions"][0]["values"] == ["moderation"]


@pytest.mark.parametrize(
    ("server_s", "worker", "within_s", "startup_s"),
    [(900, {}, 900, 960), (1800, {}, 1800, 1860), (900, {"start_within_s": 30}, 30, 300)],
)
def test_a_worker_waits_as_long_as_the_model_server_may_load(
    server_s: int, worker: Document, within_s: int, startup_s: int
) -> None:
    documents = render(example("gpu-model-server", modelServer={"startupSeconds": server_s}, config={"worker": worker}))
    config = yaml.safe_load(one(documents, "ConfigMap")["data"]["moderation.yaml"])
    assert config["worker"]["start_within_s"] == within_s
    [container] = worker_of(documents)["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == startup_s


def test_an_upgrade_needs_no_further_gpu() -> None:
    documents = render(example("gpu-model-server", modelServer={"kind": "Deployment"}))
    strategy = one(documents, "Deployment", "-vllm")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}
    assert worker_of(documents)["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize(
    ("source", "volume"),
    [
        ({"claim": "models"}, {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}),
        ({"hostPath": "/srv/models"}, {"hostPath": {"path": "/srv/models", "type": "Directory"}}),
        ({"image": {"reference": "r.example/m:1"}}, {"image": {"reference": "r.example/m:1"}}),
        (
            {"download": {"image": {"repository": "x"}, "command": ["get"], "size": "3Gi"}},
            {"emptyDir": {"sizeLimit": "3Gi"}},
        ),
    ],
)
def test_each_source_of_the_model_is_a_volume_that_workers_only_read(source: Document, volume: Document) -> None:
    pod = worker_of(render(example("cpu", model=source)))["spec"]["template"]["spec"]
    assert {"name": "model", **volume} in pod["volumes"]
    assert {"name": "model", "mountPath": "/models", "readOnly": True} in pod["containers"][0]["volumeMounts"]
    writers = [
        container
        for container in pod.get("initContainers", [])
        if {"name": "model", "mountPath": "/models"} in container["volumeMounts"]
    ]
    assert len(writers) == ("download" in source)


def test_a_changed_job_is_another_job() -> None:
    def names(**changes: Any) -> set[str]:
        return {job["metadata"]["name"] for job in of_kind(render(example("production", **changes)), "Job")}

    before = names()
    assert names() == before
    assert names(workers={"moderation": {"replicas": 7}}) == before
    assert len(names(policies={"tenants": {"kids": {"preset": "social"}}}) & before) == 1
    assert names(config={"batch": {"max_count": 64}}) == before
    assert len(names(config={"topics": {"partitions": 24}}) & before) == 1
    assert len(names(config={"redis": {"namespace": "other"}}) & before) == 1
    assert len(names(image={"digest": "", "tag": "2"}) & before) == 0


def test_keda_adds_up_the_topics_of_the_group() -> None:
    values = example("production", config={"kafka": {"group": "mine"}})
    spec = one(render(values), "ScaledObject")["spec"]
    [kafka] = [trigger for trigger in spec["triggers"] if trigger["type"] == "kafka"]
    assert "topic" not in kafka["metadata"]
    assert kafka["metadata"]["consumerGroup"] == "mine"
    assert kafka["metadata"]["offsetResetPolicy"] == "earliest"
    assert (kafka["metadata"]["tls"], kafka["metadata"]["sasl"]) == ("enable", "scram_sha512")
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 12)


def test_keda_gets_brokers_that_only_a_variable_names_from_a_value_of_its_own() -> None:
    values = example(
        "cpu",
        config={"kafka": None},
        env={"GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": "kafka:9092"},
        workerDefaults={"autoscaling": {"enabled": True, "kafka": {"bootstrapServers": "other:9092"}}},
    )
    [trigger] = one(render(values), "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["bootstrapServers"] == "other:9092"


def test_keda_keeps_the_workers_while_prometheus_has_no_series() -> None:
    triggers = one(release_of("production"), "ScaledObject")["spec"]["triggers"]
    from_prometheus = [trigger["metadata"] for trigger in triggers if trigger["type"] == "prometheus"]
    assert [metadata["ignoreNullValues"] for metadata in from_prometheus] == ["false", "false"]


@pytest.mark.parametrize(("interval", "range_"), [("15s", "30s"), ("1m", "2m")])
def test_one_low_deadline_in_two_scrapes_adds_no_workers(interval: str, range_: str) -> None:
    values = example("production", monitoring={"serviceMonitor": {"interval": interval}})
    [query] = [
        trigger["metadata"]["query"]
        for trigger in one(render(values), "ScaledObject")["spec"]["triggers"]
        if trigger.get("metricType") == "Value"
    ]
    assert "min(max_over_time(guardline_oldest_deadline_seconds{" in query
    assert f"[{range_}]" in query


@pytest.mark.parametrize(("running", "kept"), [(None, 2), (1, 2), (7, 7)])
def test_an_upgrade_keeps_the_workers_that_autoscaling_runs(running: int | None, kept: int, tmp_path: Path) -> None:
    """Helm's `lookup` finds nothing without a cluster, so a map takes its place."""
    copy = tmp_path / "guardline"
    shutil.copytree(CHART, copy)
    source = copy / "templates" / "_config.tpl"
    call = 'lookup "apps/v1" .worker.kind .root.Release.Namespace .name'
    text = source.read_text(encoding="utf-8")
    assert call in text
    if running is not None:
        source.write_text(text.replace(call, f'dict "spec" (dict "replicas" {running}.0)'), encoding="utf-8")
    manifests = Chart.load(str(copy)).render(example("production"), name="prod", namespace="moderation")
    documents = yaml.safe_load_all(manifests["guardline/templates/workers.yaml"])
    assert [document["spec"]["replicas"] for document in documents if document["kind"] == "StatefulSet"] == [kept]


def test_keda_uses_an_authentication_that_exists() -> None:
    kafka = {
        "authentication": None,
        "authenticationRef": {"kind": "ClusterTriggerAuthentication", "name": "keda-aws"},
        "metadata": {"saslTokenProvider": "aws_msk_iam", "awsRegion": "eu-west-1"},
    }
    values = example(
        "cpu",
        config={"kafka": {"properties": {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}}},
        workerDefaults={"autoscaling": {"enabled": True, "kafka": kafka}},
    )
    documents = render(values)
    assert of_kind(documents, "TriggerAuthentication") == []
    [trigger] = one(documents, "ScaledObject")["spec"]["triggers"]
    assert trigger["authenticationRef"] == kafka["authenticationRef"]
    assert (trigger["metadata"]["sasl"], trigger["metadata"]["awsRegion"]) == ("oauthbearer", "eu-west-1")


def test_a_scale_down_waits_for_the_drain_of_the_last_one() -> None:
    documents = render(example("production", config={"worker": {"grace_s": 100}}))
    down = one(documents, "ScaledObject")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    [policy] = down["policies"]
    termination = worker_of(documents)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] >= termination > 100


def test_without_egress_rules_workers_connect_anywhere_and_with_them_only_there() -> None:
    closed = one(release_of("production"), "NetworkPolicy", "-moderation")["spec"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for port in closed["egress"][0]["ports"]] == [53, 53]
    assert len(closed["egress"]) == 4
    free = one(release_of("cpu"), "NetworkPolicy", "-moderation")["spec"]
    assert free["policyTypes"] == ["Ingress"]
    assert "egress" not in free


def test_openshift_chooses_the_user() -> None:
    documents = render(example("cpu", podSecurityContext={"runAsUser": None, "runAsGroup": None, "fsGroup": None}))
    for pod in pods(documents):
        assert set(pod["spec"]["securityContext"]) == {"runAsNonRoot", "fsGroupChangePolicy", "seccompProfile"}
