"""How workers leave the group and return: the partitions of a worker that ends never wait for its session.

The session is far longer than any deadline here. So a worker that gets partitions got them because the other one left.
"""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from tests.chaos.faulty_worker import ALLOWED
from tests.site import Process, Site, eventually
from workers.actions.route import route_of
from workers.cli.app import app
from workers.kafka import clients
from workers.kafka.topics import create
from workers.review.worker import of_review

pytestmark = pytest.mark.timeout(240)

FAULTY = (sys.executable, "-m", "tests.chaos.faulty_worker")
BOTH_PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])
SESSION_S = "180"
NOT_YET = {"GUARDLINE_COMMIT__MAX_AGE_S": "600", "GUARDLINE_COMMIT__MAX_COUNT": "1000000"}
"""Nothing is committed because it is due."""


def named(site: Site, name: str, *program: str | Path, **changes: str) -> Process:
    """Start a worker that is a static member."""
    changes = {"GUARDLINE_WORKER__ID": name, "GUARDLINE_KAFKA__SESSION_TIMEOUT_S": SESSION_S, **changes}
    return site.worker(*program, **changes)


def pair(site: Site, *fault: str | Path, **changes: str) -> tuple[Process, Process]:
    """Return two workers that both have partitions; the second one has the fault."""
    site.create_topics()
    first = named(site, "first")
    eventually(lambda: first.has_partitions, "the first has partitions")
    second = named(site, "second", *fault, **changes)
    eventually(lambda: second.has_partitions, "the second has partitions")
    return first, second


@pytest.mark.parametrize("returns", [True, False])
def test_a_worker_that_is_stopped_leaves_at_once(site: Site, returns: bool) -> None:
    first, second = pair(site)
    second.send(signal.SIGTERM)
    assert second.wait() == 0, second.text
    if returns:
        again = named(site, "second")
        eventually(lambda: again.has_partitions, "it has partitions again")
    site.events(300)
    site.check(deadline_s=60)
    assert first.popen.poll() is None


def test_a_killed_and_restarted_worker_does_not_affect_the_others(site: Site) -> None:
    first, second = pair(site)
    second.send(signal.SIGKILL)
    second.wait()
    before = first.text
    again = named(site, "second")
    eventually(lambda: again.has_partitions, "the partitions are its own again")
    site.events(300)
    site.check(deadline_s=60)
    assert "partitions" not in first.text.removeprefix(before), "the other kept its own all the time"


@pytest.mark.parametrize("where", ["complete", "submit"])
def test_a_worker_that_fails_leaves_at_once(site: Site, where: str) -> None:
    """In the Kafka thread, and in the event loop."""
    _, second = pair(site, *FAULTY, where)
    site.events(300)
    assert second.wait() == 1, second.text
    assert f"injected into {where}" in second.text
    site.check(deadline_s=60)


def test_a_worker_that_fails_commits_nothing_more(site: Site) -> None:
    """Its state may be wrong after a failure, so it must not commit in the revoke with which it leaves either."""
    site.create_topics()
    failing = Path(site.folder.name) / "break"
    worker = named(site, "only", *FAULTY, "break", str(failing), **NOT_YET)
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(300)
    eventually(lambda: is_finished(worker, 300), "all are finished")
    failing.touch()
    assert worker.wait() == 1, worker.text
    assert "partitions revoked" in worker.text, "it has left the group"
    assert site.answered() == 0
    named(site, "only")
    site.check(deadline_s=60)


def test_a_worker_that_fails_within_a_transaction_aborts_it_and_leaves_at_once(site: Site) -> None:
    """Otherwise the next owner waits for the open transaction until its timeout."""
    _, second = pair(site, *FAULTY, "fail", GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S="100")
    site.events(300)
    assert second.wait() == 1, second.text
    assert "injected before the commit" in second.text
    site.check(deadline_s=60)


def test_a_command_removes_a_worker_that_will_not_return(site: Site) -> None:
    _, second = pair(site)
    second.send(signal.SIGKILL)
    second.wait()
    said = site.command("worker", "remove", "--id", "second").stdout
    topics = site.settings().topics.inputs
    assert "second joined the group" in said
    assert "second was removed from the group" in said
    (line,) = [line for line in said.splitlines() if line.startswith("first: ")]
    assert line == "first: " + ", ".join(f"{topic}/{part}" for topic in topics for part in range(4))
    site.events(300)
    site.check(deadline_s=60)
    said = site.command("worker", "remove", "--id", "second", code=2).stderr
    assert "no member that was started with the id 'second' (members with an id: first)" in said


def test_a_worker_of_review_or_actions_is_removed_from_all_its_groups(site: Site) -> None:
    topics = site.settings().topics
    create(site.settings(), [topics.verdicts, topics.review, topics.review_commands, topics.forget])
    site.environment |= {
        "GUARDLINE_KAFKA__SESSION_TIMEOUT_S": SESSION_S,
        "GUARDLINE_ACTIONS__ENDPOINTS": json.dumps(
            [
                {"name": name, "url": "https://platform.example", "secret_files": ["/nowhere/secret"]}
                for name in ("one", "two")
            ]
        ),
    }
    settings = site.settings(GUARDLINE_WORKER__ID="gone")
    routes = [of_review(settings), *(route_of(one, settings) for one in settings.actions.endpoints[1:])]
    for route in routes:
        joined = clients.consumer(route)
        joined.subscribe([*route.inputs])
        eventually(lambda joined=joined: bool(joined.poll(0.1) or joined.assignment()), "it joined")  # type: ignore[misc]
        joined.close()  # A static member does not leave.

    def remove(kind: str) -> str:
        run = CliRunner().invoke(app, ["worker", "remove", "--kind", kind, "--id", "gone"], env=site.environment)
        return f"{run.stdout}{run.exception or ''}"

    for kind, route in zip(("review", "actions"), routes, strict=True):
        said = remove(kind)
        assert f"gone joined the group {route.group}" in said
        assert said.count("gone was removed from the group.") == 1
        assert "no member that was started with the id 'gone'" in remove(kind)
    assert "the group of the aggregates workers does not know members by their worker.id" in remove("aggregates")


def test_a_running_worker_that_is_removed_joins_again_or_ends_and_loses_nothing(site: Site) -> None:
    """A few milliseconds decide whether its next heartbeat finds its name taken or removed.

    Its commits are refused until that heartbeat, for longer than three attempts take: they must not end it.
    """
    site.create_topics()
    worker = named(site, "only", *FAULTY, "seldom", GUARDLINE_COMMIT__MAX_AGE_S="0.05")
    eventually(lambda: worker.has_partitions, "partitions")
    is_over = Event()

    def load() -> None:
        for start in count(step=20):
            site.events(20, start=start)
            if is_over.is_set():
                break

    with ThreadPoolExecutor() as pool:
        sending = pool.submit(load)
        said = site.command("worker", "remove", "--id", "only").stdout
        is_over.set()
    sending.result()
    assert "only was removed from the group." in said or "only still runs and has joined again" in said
    eventually(
        lambda: worker.text.count("partitions assigned") > 1 or worker.popen.poll() is not None, "it joined or ended"
    )
    if worker.popen.poll() is not None:
        assert "same worker.id (only)" in worker.text
        named(site, "only")
    site.check()


@BOTH_PROTOCOLS
def test_finished_records_are_committed_before_their_partition_is_revoked(site: Site, protocol: str) -> None:
    """Nothing is due yet: only the commit inside the revoke can make the results visible."""
    site.use(protocol)
    site.create_topics()
    first = site.worker(**NOT_YET)
    eventually(lambda: first.has_partitions, "partitions")
    site.events(300)
    eventually(lambda: is_finished(first, 300), "all are finished")
    assert site.answered() == 0
    site.worker(**NOT_YET)
    site.check(deadline_s=60)


def test_the_commit_before_a_revoke_leaves_time_for_the_next_poll(site: Site) -> None:
    """A fifth of kafka.max_poll_interval_s, although a transaction may last longer."""
    site.create_topics()
    times = {"GUARDLINE_KAFKA__MAX_POLL_INTERVAL_S": "20", "GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S": "10"}
    first = site.worker(*FAULTY, "late", **NOT_YET, **times)
    eventually(lambda: first.has_partitions, "partitions")
    site.events(300)
    eventually(lambda: is_finished(first, 300), "all are finished")
    second = site.worker()
    eventually(lambda: ALLOWED in first.text, "the commit before the revoke")
    assert max(allowed_s(first)) <= 4
    eventually(lambda: second.has_partitions, "the second has partitions")
    site.check()


def test_a_drain_gives_its_last_commit_no_longer_than_the_grace_period(site: Site) -> None:
    site.create_topics()
    changes = {"GUARDLINE_WORKER__GRACE_S": "3", "GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S": "50"}
    worker = site.worker(*FAULTY, "late", **NOT_YET, **changes)
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(300)
    eventually(lambda: is_finished(worker, 300), "all are finished")
    worker.send(signal.SIGTERM)
    worker.wait()
    assert allowed_s(worker)
    assert max(allowed_s(worker)) <= 3


def test_lost_partitions_are_dropped_without_a_commit(site: Site) -> None:
    """The new owner gives the outcomes of the records that the frozen worker had finished."""
    site.create_topics()
    frozen = site.worker(**NOT_YET)
    # A worker that is frozen in a transaction is fenced when it wakes; afterwards this one has none to begin.
    eventually(lambda: len(site.committed()) == 8, "it has committed where it begins")
    site.events(300)
    eventually(lambda: is_finished(frozen, 300), "all are finished")
    frozen.send(signal.SIGSTOP)
    other = site.worker()
    eventually(lambda: other.has_partitions, "the other took over")
    site.check()
    frozen.send(signal.SIGCONT)
    eventually(lambda: "partitions lost" in frozen.text, "it learns of its loss")
    eventually(lambda: frozen.text.count("partitions assigned") > 1, "it has joined again")
    site.check()
    assert "transaction aborted" not in frozen.text, "it tried to commit what it had lost"


def test_records_of_an_aborted_transaction_are_never_read(site: Site) -> None:
    site.create_topics()
    settings = site.settings()
    producer = Producer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "transactional.id": f"{settings.kafka.group}-upstream"}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(100):
        producer.produce(settings.topics.inputs[0], b"{}", f"room-{number % 20}".encode())
    producer.flush(30)
    producer.abort_transaction(30)
    worker = site.worker()
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(300)
    assert site.check().dead_letters == 0


def is_finished(worker: Process, count: int) -> bool:
    """Whether the worker has decided this many, none of which may have been committed.

    Every micro-batch that was begun is one part, and has been finished.
    """
    begun, finished = (worker.metric(f"guardline_batch_{name}_count") for name in ("events", "seconds"))
    return worker.metric("guardline_batch_events_sum") == count and begun == finished


def allowed_s(worker: Process) -> list[float]:
    """How long each transaction of a worker with the fault `late` was allowed to take."""
    return [float(json.loads(line)["seconds"]) for line in worker.text.splitlines() if ALLOWED in line]
