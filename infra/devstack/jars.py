"""The jars of Apache Kafka: downloaded once into the cache folder, checked against the pinned SHA-256 at every start.

Java never gets a jar that is not the pinned one.
"""

import errno
import fcntl
import hashlib
import os
import ssl
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from infra.devstack.errors import DevstackError
from infra.devstack.folders import cache_folder

KAFKA_VERSION = "4.1.1"
PARALLEL_DOWNLOADS = 8
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Jar:
    """One pinned jar: its path below the base of a Maven repository, and its SHA-256 in hexadecimal."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """The file name, unique in the list."""
        return PurePosixPath(self.path).name


def pinned() -> tuple[Jar, ...]:
    """The jars in the order of the class path."""
    lines = Path(__file__).with_name("jars.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return tuple(Jar(path, sha256) for sha256, path in pairs)


def ensure() -> tuple[Path, ...]:
    """Return the local files of all pinned jars of Kafka.

    May block for a download of 44 MB. Raises as `fetched`.
    """
    return fetched(pinned(), cache_folder() / f"kafka-{KAFKA_VERSION}", f"Apache Kafka {KAFKA_VERSION}")


def fetched(jars: Sequence[Jar], folder: Path, product: str) -> tuple[Path, ...]:
    """Return the local files of pinned jars. Downloads those that are missing or differ from their SHA-256.

    Raises DevstackError if the download fails or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder / ".lock"):
            wanted = [jar for jar in jars if not _is_intact(folder / jar.name, jar)]
            if wanted:
                _fetch(wanted, folder, product)
    except OSError as error:
        raise DevstackError(_disk_sentence(folder, product, error)) from error
    return tuple(folder / jar.name for jar in jars)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_intact(file: Path, jar: Jar) -> bool:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def _fetch(jars: list[Jar], folder: Path, product: str) -> None:
    base = _repository()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    if not console.is_terminal:
        sys.stderr.write(f"fetching {len(jars)} files of {product} into {folder}\n")
    with (
        httpx.Client(verify=_trust(), follow_redirects=True, timeout=30) as client,
        ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(product, total=len(jars))
        try:
            for _ in pool.map(lambda jar: _fetch_one(client, base, jar, folder, product), jars):
                progress.advance(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _repository() -> str:
    if own := os.environ.get("GUARDLINE_MAVEN_URL"):
        return own.rstrip("/")
    # A Maven client knows the address of Maven Central. Imported only for a download: the import takes half a second.
    from jgo.constants import MAVEN_CENTRAL_URL

    return str(MAVEN_CENTRAL_URL)


def _trust() -> ssl.SSLContext:
    # httpx reads only SSL_CERT_FILE. Behind a proxy that re-signs, often only pip's variable is set.
    bundle = next(
        (os.environ[name] for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE") if os.environ.get(name)), None
    )
    return ssl.create_default_context(cafile=bundle) if bundle else httpx.create_ssl_context()


def _fetch_one(client: httpx.Client, base: str, jar: Jar, folder: Path, product: str) -> None:
    url = f"{base}/{jar.path}"
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(0.2, max=5),
        retry=retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        content = attempts(_get, client, url)
    except httpx.HTTPError as error:
        why = (
            f"HTTP {error.response.status_code}"
            if isinstance(error, httpx.HTTPStatusError)
            else (str(error) or type(error).__name__)
        )
        raise DevstackError(
            f"cannot download {product}: {url}: {why}. "
            "Check the network and its proxy, or set GUARDLINE_MAVEN_URL to another Maven repository."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != jar.sha256:
        raise DevstackError(
            f"{url} is not the pinned jar: its SHA-256 is {found}, expected {jar.sha256}. It was not kept."
        )
    part = folder / f".{jar.name}.{uuid4().hex}.part"
    try:
        part.write_bytes(content)
        part.replace(folder / jar.name)
    finally:
        part.unlink(missing_ok=True)


def _get(client: httpx.Client, url: str) -> bytes:
    return client.get(url).raise_for_status().content


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


def _disk_sentence(folder: Path, product: str, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full: no room for {product} in {folder}. Free some, or set GUARDLINE_CACHE to another folder."
        )
    return f"cannot write to {folder}: {error.strerror or error}. Set GUARDLINE_CACHE to a folder that can be written."
