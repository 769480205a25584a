"""The Faust application, made from the settings: clients, transport and store.

Faust's own worker, web server and signal handlers stay off: the process has the lifecycle of every other worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import faust
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Producer, Transport
from faust.types import TP

from workers.aggregates.security import credentials_of
from workers.settings import Settings

COMMIT_S = 1.0
"""How often offsets are committed. After a crash, the verdicts of this time are read again."""

RESTORE_POLL_S = 0.1
LINGER_S = 0.005
REQUEST_S = 40.0
"""Above `kafka.session_timeout_s`, as Faust requires; a longer session makes it longer."""

BUFFER = 4_096
"""Records that Faust holds for each step. A verdict has about 1 kB."""


class _Thread(AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust reads only committed records if it writes transactions itself. The consumer reads this when it starts.
        consumer._isolation_level = "read_committed"
        return consumer


class _Consumer(Consumer):
    """Reads committed records, and commits past the markers of transactions."""

    has_failed: Callable[[], bool]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._fetched: dict[TP, int] = {}
        """The offset of the last record that was fetched from each partition."""
        self._before: dict[TP, int] = {}
        """While a fetch is open: the position of each partition before it."""

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Note the offsets that hold no record. The end that Faust gives is the offset of the next record.

        Faust counts it to the gap. The offset is then there twice, as a gap and as a record, and the commits stop: 26
        records in transactions of one were committed one every 2.8 s, and 16 were read again after a clean stop.
        """
        await super()._add_gap(tp, offset_from, offset_to - 1)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's own signature
        """Fetch records, but none of the verdict topic before the rows are restored.

        At the end of a recovery Faust resumes its partitions before it seeks to the committed offsets. A record that it
        fetched in between was lost until the next restart (one of seven starts on a busy machine).
        """
        if active_partitions is not None and self.app.rebalancing:
            active_partitions = {tp for tp in active_partitions if self._is_changelog_tp(tp)}
            timeout = RESTORE_POLL_S
            if not active_partitions:
                await asyncio.sleep(timeout)
                return {}
        states = {tp: self._state(tp) for tp in active_partitions or ()}
        self._before = {tp: state.position for tp, state in states.items() if state and state.has_valid_position}
        try:
            found = await super()._getmany(active_partitions, timeout)
        finally:
            self._before = {}
        self._fetched |= {tp: records[-1].offset for tp, records in found.items() if records}
        return found

    def unread(self, tp: TP) -> int:
        """Return how many offsets of a partition were not handed to an agent yet; 0 if the end is not known.

        The markers of transactions have offsets too. They do not count behind the last record: the fetch position is
        past them, and no agent ever gets them. The consumer's thread moves that position before this one gets the
        records, so while a fetch is open the position before it counts.
        """
        fetched = self._state(tp)
        if fetched is None or fetched.lso is None or not fetched.has_valid_position:
            return 0
        last, handed_over = self._fetched.get(tp), self._read_offset[tp]
        if last is None or (handed_over is not None and handed_over >= last):
            position = min(fetched.position, self._before.get(tp, fetched.position))
        else:
            position = 0 if handed_over is None else handed_over + 1
        unread: int = max(0, fetched.lso - position)
        return unread

    def _state(self, tp: TP) -> Any:
        """Return what the client knows of a partition; None if it is not assigned."""
        assignment = self._thread._ensure_consumer()._subscription.subscription.assignment
        return assignment and assignment.state_value(tp)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # What was not written must be read again.
        return not self.has_failed() and await super()._commit(offsets)


class _Producer(Producer):
    """Writes in order, and each record once: the tables know by its position which verdict they have counted."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class _Transport(Transport):
    Producer = _Producer


class _App(faust.App):
    """Makes its folders only for rows on disk."""

    def _create_directories(self) -> None:
        # Faust makes them also for tables in memory, and nothing uses them.
        if self.conf.store.scheme == "rocksdb":
            super()._create_directories()


def app_of(settings: Settings, group: str, partitions: int, has_failed: Callable[[], bool]) -> faust.App:
    """Return the application. `has_failed` says whether a write has failed: nothing is committed from then on.

    Raises:
        Misconfigured: `kafka.properties` has a property that this worker's clients do not know.
    """
    kafka, folder = settings.kafka, settings.aggregates.folder
    session_s = kafka.session_timeout_s
    app = _App(
        group,
        broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        broker_client_id=settings.worker.id,
        broker_credentials=credentials_of(kafka),
        broker_commit_interval=COMMIT_S,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=min(session_s / 5, 1.0),
        broker_request_timeout=max(REQUEST_S, session_s + 5),
        broker_rebalance_timeout=max(REQUEST_S, session_s),
        broker_max_poll_interval=kafka.max_poll_interval_s,
        consumer_auto_offset_reset="earliest",
        producer_linger=LINGER_S,
        producer_acks=-1,
        store="memory://" if folder is None else "rocksdb://",
        datadir=str(folder or "."),
        stream_buffer_maxsize=BUFFER,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        # Another worker's copy of rows would be looked at like this worker's own ones.
        table_standby_replicas=0,
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        worker_redirect_stdouts=False,
    )
    transport_class = type(
        "Transport",
        (_Transport,),
        {"Consumer": type("Consumer", (_Consumer,), {"has_failed": staticmethod(has_failed)})},
    )
    app.transport = transport_class(app.conf.broker_consumer, app, loop=asyncio.get_running_loop())
    app.producer_transport = transport_class(app.conf.broker_producer, app, loop=asyncio.get_running_loop())
    return app
