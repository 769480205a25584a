"""What the Helm chart renders runs: its Jobs and a worker, as processes with the variables and files of their pods."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.command import GUARDLINE
from tests.site import Site
from tests.unit.helm.rendered import Document, Mounted, example, render


def values_for(site: Site) -> Document:
    """Return values with the addresses, topics and group of a test."""
    settings = site.settings()
    config: dict[str, Any] = {
        "kafka": settings.kafka.model_dump(include={"bootstrap_servers", "group"}),
        "topics": settings.topics.model_dump(mode="json"),
        "redis": {"namespace": settings.redis.namespace, "url": settings.redis.url.get_secret_value()},
        "guard": {"threads": 1},
    }
    policies = {"default": {"preset": "strict"}, "tenants": {"acme": {"safe": "review"}}}
    return example("cpu", config=config, policies=policies)


def test_topics_policies_and_a_worker_run_as_the_chart_renders_them(site: Site, tmp_path: Path) -> None:
    documents = render(values_for(site))
    # No worker of this computer listens at the chart's port, and the settings come from the chart's file alone.
    changes = {"GUARDLINE_HTTP__PORT": "0", "PATH": f"{GUARDLINE.parent}:/usr/bin:/bin"}
    secrets = {"dedup-secret": "hidden"}

    for component in ("topics", "policies"):
        job = Mounted(documents, component, tmp_path, secrets)
        run = subprocess.run(job.command, env=job.environment | changes, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
    pod = Mounted(documents, "moderation", tmp_path, secrets)
    worker = site.worker(*pod.command, **{**dict.fromkeys(site.environment, ""), **pod.environment, **changes})
    site.events(20)

    outcome = site.check()
    assert {document["decision"] for found in outcome.by_position.values() for document in found} == {"review"}
    assert worker.get(pod.container["readinessProbe"]["httpGet"]["path"])[0] == 200
    worker.send(signal.SIGTERM)
    assert worker.wait(pod.spec["terminationGracePeriodSeconds"]) == 0
