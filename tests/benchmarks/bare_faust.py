"""A Faust agent that only counts records by their key, as Faust's own documentation writes it, but without decoding.

Prints the seconds from its first to its last record, and the seconds of CPU time until then.
"""

from __future__ import annotations

import asyncio
import sys
import time

import faust
import uvloop


async def main(broker: str, topic: str, group: str, records: int, partitions: int) -> None:
    """Count until all records were read."""
    app = faust.App(
        group,
        broker=f"kafka://{broker}",
        store="memory://",
        web_enabled=False,
        topic_partitions=partitions,
        topic_disable_leader=True,
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
        datadir=f"/tmp/{group}",
    )
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    counts = app.Table("counts", default=int, partitions=partitions, key_type=bytes)
    done = asyncio.Event()

    async def count(stream):  # type: ignore[no-untyped-def]
        seen, begun, cpu = 0, 0.0, 0.0
        async for key, _ in stream.items():  # noqa: PERF102 - a stream is no dict
            counts[key] += 1
            seen += 1
            if seen == 1:
                begun, cpu = time.monotonic(), time.process_time()
            elif seen == records:
                sys.stdout.write(f"{time.monotonic() - begun} {time.process_time() - cpu}\n")
                sys.stdout.flush()
                done.set()

    app.agent(app.topic(topic, **raw), name="count")(count)
    await app.start()
    await done.wait()
    await app.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        broker, topic, group, records, partitions = sys.argv[1:]
        runner.run(main(broker, topic, group, int(records), int(partitions)))
