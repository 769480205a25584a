"""Real workers, started and stopped as a StatefulSet does it: `w0`, `w1`, ...; the last one is the first to go."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.site import Process, Site, eventually

START_S = 90.0
END_S = 60.0


@contextmanager
def throw_away(site: Site) -> Iterator[Site]:
    """Create the topics of a site; at the end kill its workers and delete its folder. Print the logs after an error."""
    site.create_topics()
    try:
        yield site
    except BaseException:
        for process in site.processes:
            print(f"--- {process.log.name}\n{process.text[-3000:]}")
        raise
    finally:
        for process in site.processes:
            process.popen.kill()
            process.wait()
        site.folder.cleanup()


class Fleet:
    """The workers of a site. A worker keeps its name over restarts, and never runs twice at a time. For one thread."""

    def __init__(self, site: Site, *program: str | Path, **settings: str) -> None:
        self._site = site
        self._program = program
        self._settings = settings
        self._wanted = 0
        self._running: dict[str, Process] = {}
        self._ending: dict[str, Process] = {}
        self.ended: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        """The last log line of each worker that was stopped, and of each that ended by itself and was started again."""

    @property
    def wanted(self) -> int:
        """How many workers shall run."""
        return self._wanted

    def running(self) -> Mapping[str, int]:
        """Return the process ids of the workers that run, also of those that drain, by their names. Any thread."""
        every = {**self._ending, **self._running}
        return {name: process.popen.pid for name, process in every.items()}

    def processes(self) -> Mapping[str, Process]:
        """Return the workers that run and do not drain."""
        return dict(self._running)

    def scale_to(self, count: int) -> None:
        """Start or stop workers until so many shall run. Does not wait for them; `tick` goes on with it."""
        self._wanted = count
        self.tick()

    def tick(self) -> None:
        """Note which workers have ended, stop those that are too many, and start those that are missing."""
        for name, process in list(self._ending.items()):
            if (code := process.popen.poll()) is not None:
                del self._ending[name]
                self.ended.append({"name": name, "exit_code": code, **process.end})
        for name, process in list(self._running.items()):
            if (code := process.popen.poll()) is not None:
                del self._running[name]
                self.failed.append({"name": name, "exit_code": code, **process.end})
        names = [f"w{number}" for number in range(self._wanted)]
        for name in [name for name in self._running if name not in names]:
            self.stop(name)
        for name in names:
            if name not in self._running and name not in self._ending:
                self._start(name)

    def stop(self, name: str) -> None:
        """Send SIGTERM to a worker."""
        process = self._running.pop(name)
        process.send(signal.SIGTERM)
        self._ending[name] = process

    def restart(self, name: str) -> None:
        """Drain a worker, start it again, and wait until it is ready."""
        self.stop(name)
        self.wait_until(lambda: name in self._running, f"{name} has drained and starts again")
        self.wait_until(lambda: self.is_ready(name), f"{name} is ready again")

    def is_ready(self, name: str) -> bool:
        """Whether a worker answers its readiness probe with 200, and has partitions."""
        process = self._running.get(name)
        if process is None or "serving /livez" not in process.text or not process.has_partitions:
            return False
        try:
            return process.get("/readyz")[0] == 200
        except OSError:
            return False

    def are_ready(self) -> bool:
        """Whether all that shall run are ready."""
        return len(self._running) == self._wanted and all(map(self.is_ready, self._running))

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition, and go on with starts and stops meanwhile."""

        def ticked() -> bool:
            self.tick()
            return condition()

        eventually(ticked, what, START_S)

    def end(self) -> None:
        """Stop all workers, and wait until they have ended."""
        self.scale_to(0)
        self.wait_until(lambda: not self._ending, "all workers have drained")

    @property
    def drained(self) -> bool:
        """Whether each worker that was stopped ended in order and left nothing uncommitted."""
        return all(one["exit_code"] == 0 and one["uncommitted"] == 0 for one in self.ended)

    def _start(self, name: str) -> None:
        self._running[name] = self._site.worker(*self._program, GUARDLINE_WORKER__ID=name, **self._settings)
