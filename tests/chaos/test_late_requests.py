"""A request of one transaction that reaches the broker during the next: nothing is lost, duplicated, or moved back.

The worker talks to the broker through a proxy, which holds one request and cuts its connection. librdkafka repeats it
and the transaction succeeds. Then the proxy delivers the first copy, at the worst moment of the next transaction.
Without a new producer in between, each of these tests fails: the record is lost, or judged again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from infra.devstack import children, jars
from infra.devstack.kafka import Broker, free_ports
from tests.chaos.proxy import Api, Proxy
from tests.site import Process, Site, eventually
from tests.stack import Stack

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with one more listener, for clients that come through a proxy."""
    port, controller_port, behind, proxy = free_ports(4)
    broker = Broker(tmp_path_factory.mktemp("kafka"), port, controller_port, (behind, proxy))
    class_path = jars.ensure()
    broker.configure(class_path)
    broker.log.touch()
    process = broker.start(class_path)
    try:
        broker.wait_until_ready(process, 0)
        yield broker
    finally:
        children.stop(process, at_once=True)


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    assert broker.proxied is not None
    behind, port = broker.proxied
    proxy = Proxy(port, behind)
    yield proxy
    proxy.close()


@pytest.fixture
def site(broker: Broker, stack: Stack) -> Iterator[Site]:
    site = Site(broker.address, stack.redis)
    yield site
    site.close()


def start(site: Site, proxy: Proxy) -> Process:
    """Start a worker behind the proxy, and wait until it has judged some records."""
    site.create_topics()
    worker = site.worker(
        GUARDLINE_KAFKA__BOOTSTRAP_SERVERS=proxy.address,
        GUARDLINE_WORKER__ID="one",
        GUARDLINE_COMMIT__MAX_AGE_S="0.02",
    )
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(20, keys=1)
    site.check()
    return worker


def start_anew(site: Site, worker: Process) -> None:
    worker.send(signal.SIGKILL)
    worker.wait()
    site.worker(GUARDLINE_WORKER__ID="one")
    # In the same partition, behind all that a worker may judge again.
    site.events(1, start=1000, keys=1)
    site.check()


@pytest.mark.parametrize("missing", [Api.PRODUCE, Api.TXN_OFFSET_COMMIT])
def test_a_late_end_of_a_transaction_does_not_end_the_next_one(site: Site, proxy: Proxy, missing: Api) -> None:
    """It would commit half of it: the offset without the record (lost), or the record without its offset (doubled)."""
    worker = start(site, proxy)
    late = proxy.hold(Api.END_TXN, is_cut=True)
    site.events(1, start=100, keys=1)
    assert late.has_come.wait(10)
    site.check()
    held = proxy.hold(missing)
    other = Api.PRODUCE if missing is Api.TXN_OFFSET_COMMIT else Api.TXN_OFFSET_COMMIT
    answered = proxy.answered[other]
    site.events(1, start=200, keys=1)
    assert held.has_come.wait(10)
    eventually(lambda: proxy.answered[other] > answered, f"{other.name} has reached the broker")
    late.deliver()
    start_anew(site, worker)


def test_late_offsets_of_a_transaction_do_not_move_the_committed_offset_back(site: Site, proxy: Proxy) -> None:
    worker = start(site, proxy)
    late = proxy.hold(Api.TXN_OFFSET_COMMIT, is_cut=True)
    site.events(1, start=100, keys=1)
    assert late.has_come.wait(10)
    site.check()
    end = proxy.hold(Api.END_TXN)
    site.events(1, start=200, keys=1)
    assert end.has_come.wait(10)
    late.deliver()
    end.deliver()
    site.check()
    start_anew(site, worker)


def test_a_producer_is_replaced_only_after_a_repeated_request(site: Site, proxy: Proxy) -> None:
    worker = start(site, proxy)
    site.events(500, start=100)
    site.check()
    assert worker.metric("guardline_producers_replaced_total") == 0
    late = proxy.hold(Api.END_TXN, is_cut=True)
    site.events(1, start=1000)
    assert late.has_come.wait(10)
    site.events(1, start=1001)
    site.check()
    eventually(lambda: worker.metric("guardline_producers_replaced_total") == 1, "a new producer")
    late.deliver()
    site.events(500, start=2000)
    site.check()
    assert worker.metric("guardline_producers_replaced_total") == 1
    assert worker.popen.poll() is None
