"""Several events of one record: it is finished when all of them are. Pure."""

from __future__ import annotations

from workers.core.records import Finished


class Siblings:
    """The events of one record, each known by its place among them. Owned by the event-loop thread.

    Guarantee: `finish` gives the record once, when the last event is finished, with all outputs in the events' order,
    and the usage of all events.
    """

    def __init__(self, count: int) -> None:
        self._finished: list[Finished | None] = [None] * count

    def finish(self, place: int, finished: Finished) -> Finished | None:
        """Note that an event is finished. Give the record when it was the last one."""
        self._finished[place] = finished
        present = [one for one in self._finished if one is not None]
        if len(present) < len(self._finished):
            return None
        outputs = tuple(output for one in present for output in one.outputs)
        memories = tuple(memory for one in present for memory in one.memories)
        counted = tuple(counter for one in present for counter in one.counted)
        created_at = tuple(time for one in present for time in one.created_at)
        usage = tuple(used for one in present for used in one.usage)
        headers, trace = finished.headers, finished.trace
        return Finished(finished.source, outputs, memories, headers, counted, created_at, usage, trace)
