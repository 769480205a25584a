"""`make demo-stream`: a scripted assistant behind the gateway, and streams through Kafka while a worker is killed.

The last line is one JSON object: the sessions and cuts, the tokens that a client got although they had to be held back,
and the verdicts that were lost or doubled.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path

from confluent_kafka import Message, Producer

from infra.demo.frame import framed
from infra.demo.show import Show
from infra.demo_stream.conversations import CONVERSATIONS
from infra.demo_stream.processes import Processes
from infra.demo_stream.reference import Reference, judged
from infra.demo_stream.through_gateway import ask
from infra.demo_stream.through_kafka import COPIES, Position, Tally, records
from infra.demo_stream.upstream import Upstream
from workers.kafka import topics
from workers.kafka.reader import read
from workers.settings import Settings

SESSION_S = 6
DEADLINE_S = 120
PAUSE_S = 0.006
KILL_AT = 0.4


def main() -> int:
    """Run the demo; exit code 1 if anything was lost, doubled, or shown although it had to be held back."""
    return framed(_run)


def _run(kafka: str, redis: str, folder: Path, show: Show) -> int:
    os.environ.update(
        {
            "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": kafka,
            "GUARDLINE_REDIS__URL": redis,
            "GUARDLINE_KAFKA__SESSION_TIMEOUT_S": str(SESSION_S),
            "GUARDLINE_HTTP__PORT": "0",
            "GUARDLINE_GUARD__THREADS": "1",
            "GUARDLINE_STREAMS__THREADS": "1",
        }
    )
    with Processes(folder) as processes:
        return _shown(processes, show)


def _shown(processes: Processes, show: Show) -> int:
    settings = Settings()
    topics.create(settings)
    reference = asyncio.run(judged(settings))
    leaked = _through_gateway(processes, reference, show)
    tally, sent = _through_kafka(settings, processes, show)
    lost = sum(tally.verdicts[position] == 0 for position in sent)
    cuts = sum(reference.is_cut(conversation.name) for conversation in CONVERSATIONS)
    wrong = _unlike(tally, reference)
    for line in wrong:
        show.say(line)
    result = {
        "sessions": len(CONVERSATIONS) * (1 + COPIES),
        "cuts": cuts + len(tally.cuts),
        "leaked_tokens": leaked,
        "lost": lost,
        "doubled": tally.doubled,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if leaked or lost or tally.doubled or wrong or not sent else 0


def _through_gateway(processes: Processes, reference: Reference, show: Show) -> int:
    """Ask the scripted model server through the gateway. Gives the tokens that reached the client too early."""
    show.say("starting the gateway before a model server that answers by a script")
    upstream = Upstream()
    upstream.start()
    try:
        url = processes.gateway(upstream.url)
        leaked = 0
        for conversation in CONVERSATIONS:
            got = ask(url, conversation)
            leaked += reference.leaked_tokens(conversation.name, got.text)
            show.say(f"question  {conversation.question}")
            show.say(f"  model   {conversation.answer[: upstream.sent.get(conversation.question, 0)]}")
            how = {"stop": "whole", "content_filter": "cut"}.get(str(got.finish_reason), str(got.finish_reason))
            show.say(f"  client  {got.text}  [{how}; first text after {got.first_s * 1_000:.0f} ms]")
        show.say(
            "a client keeps the text that left before the cut; nano-stream, a very small model, finds threats late"
        )
        return leaked
    finally:
        upstream.stop()


def _through_kafka(settings: Settings, processes: Processes, show: Show) -> tuple[Tally, list[Position]]:
    """Send streams through Kafka, kill a worker, and wait until each event has its verdict."""
    events = records()
    show.say(
        f"{len(CONVERSATIONS) * COPIES} streams through Kafka, {len(events)} events; two workers share the partitions, "
        "and answer when they have loaded the model"
    )
    workers = {name: processes.worker(name) for name in ("one", "two")}
    sent: list[Position] = []

    def delivered(error: object, message: Message) -> None:
        assert error is None, error
        sent.append((str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)))

    producer = Producer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "enable.idempotence": True, "log_level": 2}
    )
    stop = threading.Event()

    def produce() -> None:
        for key, value in events:
            producer.produce(settings.topics.streams, value, key, on_delivery=delivered)
            producer.poll(0)
            if stop.wait(PAUSE_S):
                return
        producer.flush(10)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    tally = Tally()
    is_killed = False
    began = said = time.monotonic()
    outputs = [settings.topics.stream_verdicts, settings.topics.interventions]
    for message in read(settings.kafka, outputs, from_beginning=True, follow=True):
        if message is not None:
            tally.take(message, settings)
        if not is_killed and len(tally.verdicts) >= KILL_AT * len(events):
            is_killed = True
            show.say(
                f"killing worker demo-one (pid {workers['one'].pid}) with SIGKILL in the middle of its streams; "
                f"demo-two takes them over when the group detects this, after {SESSION_S} s"
            )
            workers["one"].kill()
        if time.monotonic() >= said + 2:
            said = time.monotonic()
            show.say(f"{len(sent)} events in, {len(tally.verdicts)} answered, {len(tally.cuts)} streams cut")
        processes.check(allowed=("one",) if is_killed else ())
        if (not thread.is_alive() and len(tally.verdicts) >= len(sent)) or time.monotonic() > began + DEADLINE_S:
            break
    stop.set()
    final = Tally()
    for message in read(settings.kafka, outputs, from_beginning=True, follow=False):
        if message is not None:
            final.take(message, settings)
    return final, sent


def _unlike(tally: Tally, reference: Reference) -> list[str]:
    """Name the streams that were cut elsewhere than the same answer alone, or not at all."""
    out = []
    for conversation in CONVERSATIONS:
        for copy in range(COPIES):
            cut = tally.cuts.get(f"{conversation.name}-{copy}")
            found = None if cut is None else cut["position"]
            if found != reference.positions[conversation.name]:
                out.append(
                    f"stream {conversation.name}-{copy} was cut at {found}, and alone at "
                    f"{reference.positions[conversation.name]}"
                )
    return out


if __name__ == "__main__":
    sys.exit(main())
