"""Makes Java's ahead-of-time cache from a short run of a broker of its own: `python -m infra.devstack.training JAR...`.

It runs beside the first stack at the lowest priority, so no start waits for it. A missing cache costs only time.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.devstack import children
from infra.devstack.kafka import Broker, aot_cache, free_ports, java


def main() -> None:
    """Train once; do nothing if another process trains already."""
    jars = [Path(argument) for argument in sys.argv[1:]]
    os.nice(19)
    cache = aot_cache(jars)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with (cache.parent / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if not cache.exists():
            for killed in cache.parent.glob("training-*"):
                shutil.rmtree(killed, ignore_errors=True)
            with tempfile.TemporaryDirectory(
                prefix="training-", dir=cache.parent, ignore_cleanup_errors=True
            ) as folder:
                _train(jars, Path(folder), cache)


def _train(jars: Sequence[Path], folder: Path, cache: Path) -> None:
    port, controller_port = free_ports(2)
    broker = Broker(folder / "data", port, controller_port)
    recording = folder / "recording"
    made = folder / cache.name
    broker.configure(jars)
    # Two steps, because -XX:AOTCacheOutput does it in one and forks a second Java that this process could not end.
    process = broker.start(jars, "-XX:AOTMode=record", f"-XX:AOTConfiguration={recording}")
    broker.wait_until_ready(process, 0)
    _use(broker)
    children.stop(process)
    command = java(jars, "-XX:AOTMode=create", f"-XX:AOTConfiguration={recording}", f"-XX:AOTCache={made}")
    if children.spawn(command, broker.log).wait() == 0 and made.exists():
        made.replace(cache)
        for stale in cache.parent.glob("kafka-*.aot"):
            if stale != cache:
                stale.unlink(missing_ok=True)


def _use(broker: Broker) -> None:
    admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    for created in admin.create_topics([NewTopic("training", 1, 1)]).values():
        created.result(20)


if __name__ == "__main__":
    main()
