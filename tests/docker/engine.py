"""Runs `docker` and Docker Compose as a person does."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("WORKER_IMAGE") or "guardline:local"
USES_HOST_NETWORK = os.environ.get("GUARDLINE_TEST_NETWORK") == "host"
NETWORK = ("--network", "host") if USES_HOST_NETWORK else ()
BUILD_FLAGS = (
    *(("--build-arg", f"BASE_IMAGE={os.environ['BASE_IMAGE']}") if os.environ.get("BASE_IMAGE") else ()),
    *NETWORK,
)
"""Those of `make image`."""

CONFINED = ("--network", "none", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""How the worker's container runs in the compose file, and without a network."""


def run(*command: str | Path, code: int = 0, variables: Mapping[str, str] | None = None) -> str:
    """Return standard output and standard error together; check the exit code."""
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **(variables or {})},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def docker(*arguments: str | Path, code: int = 0) -> str:
    return run("docker", *arguments, code=code)


def in_image(*command: str | Path, options: tuple[str, ...] = (), code: int = 0) -> str:
    """Run a program of the image, confined as a worker is."""
    program, *arguments = command
    return docker("run", "--rm", *CONFINED, *options, "--entrypoint", program, IMAGE, *arguments, code=code)


def inspect(name: str) -> dict[str, Any]:
    return dict(json.loads(docker("inspect", name))[0])


@cache
def _compose() -> tuple[str, ...]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ("docker", "compose") if plugin.returncode == 0 else ("docker-compose",)


class Compose:
    """A project of infra/compose.yaml with its own name and ports."""

    def __init__(self, name: str, variables: dict[str, str]) -> None:
        self.name = name
        self.variables = {"WORKER_IMAGE": IMAGE, **variables}

    def __call__(self, *arguments: str) -> str:
        files = ["infra/compose.yaml", *(["infra/docker/compose.host.yaml"] if USES_HOST_NETWORK else [])]
        flags = [part for file in files for part in ("--file", file)]
        return run(*_compose(), "--project-name", self.name, *flags, *arguments, variables=self.variables)

    def up(self, *services: str) -> None:
        """Start the named services, or the whole small set, and return when they are healthy."""
        self("--profile", "observability", "up", "--detach", "--wait", "--no-build", *services)

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.name}-{service}-1"

    def down(self) -> None:
        """Remove the containers and their data."""
        self("--profile", "*", "down", "--volumes", "--timeout", "1")
