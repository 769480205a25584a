"""`guardline dead-letters replay` sends the messages of dead letters again, each once, even if it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.command import GUARDLINE
from tests.site import Site, eventually
from workers.cli.dead_letters import chosen
from workers.core.dead_letters import dead_letter
from workers.core.records import Source, TopicPartition
from workers.errors import Fatal, Undecodable
from workers.kafka.intake import headers_of
from workers.kafka.reader import read
from workers.kafka.replay import Replayed, replay, stored_letters
from workers.kafka.transactions import ProducerSession


def event(number: int, **changes: object) -> bytes:
    document = {"event_id": number, "tenant_id": "acme", "surface": "chat", "text": f"good morning {number}", **changes}
    return json.dumps(document).encode()


def records_of(site: Site, *topics: str) -> Iterator[Message]:
    for message in read(site.settings().kafka, list(topics), from_beginning=True, follow=False):
        if message is not None:
            yield message


def sent_again(site: Site) -> Counter[str]:
    """Count the messages that were sent again, by their first positions."""
    found = [dict(headers_of(message)) for message in records_of(site, *site.settings().topics.inputs)]
    return Counter((headers["replayed.from"] or b"").decode() for headers in found if "replayed.from" in headers)


def write_dead_letters(site: Site, *records: tuple[str, int, int, bytes]) -> None:
    """Write the dead letters of records without keys, as a worker does: (topic, partition, offset, value)."""
    settings = site.settings()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "message.max.bytes": 4_000_000})
    for topic, partition, offset, value in records:
        source = Source(TopicPartition(topic, partition), 1, offset)
        error = Undecodable("not_json", "line 1")
        (output,) = dead_letter(settings.topics.dead_letters, source, None, value, [], error).outputs
        producer.produce(output.topic, output.value, output.key, headers=list(output.headers or ()))
    assert producer.flush(30) == 0


DYING = """
import os, signal
from workers.__main__ import main
from workers.kafka import transactions

class Dying:
    def __init__(self, producer):
        self._producer = producer
        self._commits = 0
    def __getattr__(self, name):
        return getattr(self._producer, name)
    def commit_transaction(self, *arguments):
        self._commits += 1
        if self._commits == 2:
            self._producer.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self._producer.commit_transaction(*arguments)

make = transactions.clients.transactional_producer
transactions.clients.transactional_producer = lambda *args, **named: Dying(make(*args, **named))
main()
"""
"""The command. It is killed when its second transaction has written everything but the commit."""


def replay_in_the_background(
    site: Site, *arguments: str, program: Sequence[str | Path] = (GUARDLINE,)
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program, "dead-letters", "replay", *arguments],
        env={**os.environ, **site.environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_replays_that_are_killed_or_fenced_send_each_message_once_and_all_are_judged(site: Site) -> None:
    count = 150
    site.create_topics()
    strict = site.worker(GUARDLINE_EVENTS__STRICT="true")
    site.produce([(f"room-{n % 20}".encode(), event(n)) for n in range(count)], headers=[("trace", b"\xff")])
    eventually(lambda: site.answered() == count, "all are dead letters")
    strict.send(signal.SIGTERM)
    assert strict.wait() == 0

    shown = site.command("dead-letters", "--value", "--reason", "invalid_field").stdout.splitlines()
    assert len(shown) == 2 * count
    assert sum("good morning" in line for line in shown) == count
    dry = site.command("dead-letters", "replay", "--dry-run")
    assert len(dry.stdout.splitlines()) == count
    assert dry.stderr.startswith(f"{count} messages would be sent again\n")
    assert site.command("dead-letters", "replay", "--reason", "not_json").stderr == (
        f"0 messages sent again; {count} left out by --reason, --topic, --since and --until\n"
    )
    empty = site.command("dead-letters", "--reason", "not_json")
    assert empty.stdout == ""
    assert f": {count} invalid_field in {site.settings().topics.inputs[0]}\n" in empty.stderr
    assert not sent_again(site)

    with replay_in_the_background(site, "--rate", "5", program=(sys.executable, "-c", DYING)) as dying:
        assert dying.wait(60) == -signal.SIGKILL
    assert sent_again(site).total() == 5
    with replay_in_the_background(site, "--rate", "5") as stopped:
        eventually(lambda: sent_again(site).total() > 5, "some are sent")

        def has_ended() -> bool:
            # Python drops a KeyboardInterrupt that it raises in a callback of the client: then a person presses again.
            stopped.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                stopped.wait(10)
            return stopped.poll() is not None

        eventually(has_ended, "Ctrl-C ends the replay")
        assert stopped.returncode == 128 + signal.SIGINT
    before = sent_again(site).total()
    with replay_in_the_background(site, "--rate", "5") as fenced:
        eventually(lambda: sent_again(site).total() > before, "some are sent")
        said = site.command("dead-letters", "replay").stderr
        assert fenced.wait(60) == 1
    assert "sent before" in said
    assert sent_again(site) == {"/".join(map(str, position)): 1 for position in site.sent}
    assert site.command("dead-letters").stdout == ""
    assert len(site.command("dead-letters", "--all").stdout.splitlines()) == count

    site.worker()

    def judged() -> Counter[str]:
        verdicts = [json.loads(message.value() or b"") for message in records_of(site, site.settings().topics.verdicts)]
        return Counter(verdict["event_id"] for verdict in verdicts)

    eventually(lambda: len(judged()) == count, "all are judged")
    assert judged() == {str(number): 1 for number in range(count)}


def test_a_message_that_comes_back_is_sent_again_only_on_request(site: Site) -> None:
    site.create_topics()
    site.worker()
    bad = event(1, text=["\x1b[31mnot a text\x1b[0m\n"])
    site.produce([(b"\x1b[2Jkey\n", bad)], headers=[("trace", b"x")])
    site.produce([(b"k", b"\x1b[31m{\r\n\xff")], topic=1)
    letters = site.settings().topics.dead_letters
    producer = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
    producer.produce(letters, b"no dead letter", headers=[("reason", b"\x1b[31m")])
    assert producer.flush(30) == 0

    def counted(count: int) -> bool:
        return sum(stored is not None for stored in stored_letters(site.settings())) == count

    eventually(lambda: counted(2), "both are dead letters")
    shown = site.command("dead-letters", "--value").stdout
    assert shown.replace("\n", "").isprintable()
    assert len(shown.splitlines()) == 4
    topic = site.settings().topics.inputs[0]
    counts = Replayed()
    replay(site.settings(), chosen(None, [topic], None, None), counts)
    assert counts == Replayed(sent=1, unwanted=1)
    eventually(lambda: counted(3), "it is a dead letter again")
    said = site.command("dead-letters", "replay", "--topic", topic).stderr
    assert "0 messages sent again; 1 sent before; 1 came back after a replay" in said
    said = site.command("dead-letters", "replay", "--topic", topic, "--again").stderr
    assert said.startswith("1 message sent again; 1 sent before")
    first = "/".join(map(str, site.sent[0]))
    assert sent_again(site) == {first: 2}
    again = [message for message in records_of(site, topic) if len(headers_of(message)) == 2]
    assert [(message.key(), message.value(), message.partition()) for message in again] == [
        (b"\x1b[2Jkey\n", bad, site.sent[0][1])
    ] * 2
    assert all(headers_of(message) == [("trace", b"x"), ("replayed.from", first.encode())] for message in again)
    assert "put the options after" in site.command("dead-letters", "--all", "replay", code=2).stderr
    assert "is not a time" in site.command("dead-letters", "--since", "now", code=2).stderr


def test_a_replay_sees_earlier_notes_behind_an_open_transaction(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open transaction hides all notes behind its first record. Without the wait the messages were sent again."""
    site.create_topics()
    worker = site.worker()
    site.produce([(b"k", event(n, text=["x"])) for n in range(5)])
    eventually(lambda: site.answered() == 5, "all are dead letters")
    worker.send(signal.SIGTERM)
    worker.wait()
    settings = site.settings()
    kafka, letters = settings.kafka, settings.topics.dead_letters
    partition = next(message.partition() for message in records_of(site, letters))
    other = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": f"{kafka.group}.other"})
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(letters, b"", partition=partition or 0)
    other.flush(30)
    with monkeypatch.context() as patched:
        # As if the transaction had begun after the wait of this run.
        patched.setattr("workers.kafka.replay.wait_for_open_transactions", lambda *_: None)
        counts = Replayed()
        replay(settings, lambda _: True, counts)
        assert counts.sent == 5

    sleep = time.sleep
    is_open = [True]

    def end_the_transaction(seconds: float) -> None:
        if is_open:
            other.abort_transaction(30)
            is_open.clear()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", end_the_transaction)
    counts = Replayed()
    replay(settings, lambda _: True, counts)
    assert not is_open
    assert (counts.sent, counts.sent_before) == (0, 5)
    assert sent_again(site).total() == 5


def test_a_replay_that_was_fenced_sends_nothing_with_a_new_producer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen replay still has the plan that it read before another one sent the messages."""
    site.create_topics()
    settings = site.settings()
    write_dead_letters(site, *((settings.topics.inputs[0], 0, offset, b"{") for offset in range(5)))
    other = Replayed()

    class Frozen(ProducerSession):
        def ready(self, deadline: float) -> None:
            monkeypatch.undo()
            replay(settings, lambda _: True, other)
            self._signs.doubt = "the connection broke"
            super().ready(deadline)

    monkeypatch.setattr("workers.kafka.replay.ProducerSession", Frozen)
    with pytest.raises(Fatal, match="Run the command again"):
        replay(settings, lambda _: True, Replayed())
    assert other.sent == 5
    assert sent_again(site).total() == 5


def test_messages_that_cannot_be_sent_are_counted_and_do_not_stop_the_others(site: Site) -> None:
    site.create_topics()
    chat = site.settings().topics.inputs[0]
    settings = site.settings(
        GUARDLINE_TOPICS__INPUTS=json.dumps([f"^{chat}"]), GUARDLINE_KAFKA__PROPERTIES='{"message.max.bytes": 5000}'
    )
    limit = ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, chat, incremental_configs=[limit])
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for changed in admin.incremental_alter_configs([change]).values():
        changed.result(30)
    write_dead_letters(
        site,
        (f"{chat}.deleted", 0, 0, b"{"),
        (chat, 4, 0, b"{"),
        (chat, 2**40, 0, b"{"),
        (chat, 0, 0, b"{0"),
        (chat, 0, 1, os.urandom(3_000)),  # The broker refuses it.
        (chat, 0, 2, b"{2"),
        (chat, 0, 3, os.urandom(6_000)),  # The client refuses it.
        (chat, 0, 4, b"{4"),
    )
    counts = Replayed()
    replay(settings, lambda _: True, counts)
    assert counts == Replayed(sent=3, elsewhere=3, refused=2)
    assert sent_again(site) == {f"{chat}/0/{offset}": 1 for offset in (0, 2, 4)}


def test_a_message_with_several_dead_letters_is_sent_once(site: Site) -> None:
    """A worker reads a record again if offsets were reset, and a topic that was created again has new records."""
    site.create_topics()
    chat = site.settings().topics.inputs[0]
    counts = Replayed()
    write_dead_letters(site, (chat, 0, 0, b"{"), (chat, 0, 0, b"{"), (chat, 0, 1, b"{"))
    replay(site.settings(), lambda stored: stored.letter.offset == 0, counts)
    assert counts == Replayed(sent=1, unwanted=1, sent_before=1)
    write_dead_letters(site, (chat, 0, 0, b"{"), (chat, 0, 0, b"["), (chat, 0, 1, b"{"))
    counts = Replayed()
    replay(site.settings(), lambda _: True, counts)
    assert counts == Replayed(sent=2, sent_before=4)
    assert sent_again(site) == {f"{chat}/0/0": 2, f"{chat}/0/1": 1}
    assert [message.key() for message in records_of(site, chat)] == [None] * 3
