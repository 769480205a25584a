"""What the stages tell a trace. A worker without traces uses `UNTRACED`, whose calls do nothing.

A span for each event would cost 15 µs. So a span belongs to a stage of a micro-batch, and links to the traces of its
events. No call here may block, or raise because of the traces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Protocol

from workers.errors import Misconfigured, to_install

RecordHeaders = Sequence[tuple[str, bytes | None]]
Values = Mapping[str, str | int | float | bool]


class Stage(Protocol):
    """One stage, from the beginning of its `with` block to the end. Stages that begin inside are its children."""

    @property
    def context(self) -> object | None:
        """The span, for `follow` of a later stage. None without traces."""
        ...

    def set(self, values: Values) -> None:
        """Add attributes. Never content, nor ids of people."""
        ...

    def link(self, events: Iterable[RecordHeaders | None]) -> None:
        """Link to the traces of events, by the headers of their records: those whose producers record the trace."""
        ...

    def follow(self, contexts: Iterable[object | None]) -> None:
        """Link to earlier stages. The same context may come several times."""
        ...

    def __enter__(self) -> Stage: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Stages(Protocol):
    """Begins stages. Any thread may call it.

    Guarantee: no call blocks, and no failure of an exporter reaches a stage.
    """

    @property
    def carried(self) -> frozenset[str]:
        """The headers that a verdict needs, so that its reader continues the event's trace."""
        ...

    def stage(self, name: str, values: Values | None = None) -> Stage:
        """Begin a stage."""
        ...

    async def close(self) -> None:
        """Export what is left, within a time limit."""
        ...


class Untraced:
    """Stages without traces, and each of their stages."""

    carried: frozenset[str] = frozenset()
    context = None

    def stage(self, name: str, values: Values | None = None) -> Untraced:
        """Begin nothing."""
        return self

    async def close(self) -> None:
        """Nothing is left."""

    def set(self, values: Values) -> None:
        """Drop the attributes."""

    def link(self, events: Iterable[RecordHeaders | None]) -> None:
        """Drop the links, without looking at the events."""

    def follow(self, contexts: Iterable[object | None]) -> None:
        """Drop the links."""

    def __enter__(self) -> Untraced:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


UNTRACED = Untraced()


def stages_of(is_traced: bool, worker_id: str) -> Stages:
    """Return the stages of a worker. Only with traces it imports the SDK.

    Raises:
        Misconfigured: the SDK is not installed, or a variable of OpenTelemetry has a wrong value.
    """
    if not is_traced:
        return UNTRACED
    try:
        from workers.tracing.spans import recorded
    except ModuleNotFoundError as error:
        raise Misconfigured(f"telemetry.traces: {to_install('otel')}") from error
    return recorded(worker_id)
