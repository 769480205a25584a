"""What the outputs of a worker have besides their JSON: the headers of CloudEvents, and the ids of schemas. Pure.

A worker without `cloudevents.write` and without `registry.url` makes no marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from schemas.review import ReviewItem
from schemas.usage import Usage
from schemas.verdict import Verdict
from workers.core.cloudevents import CONTENT_TYPE, SPEC_VERSION
from workers.core.decide import verdict_id
from workers.core.frames import Frame
from workers.core.records import Headers, Output, Source
from workers.settings import Settings


class _Mark(Struct, frozen=True):
    """The mark of one topic: what all its outputs share, and what follows the verdict's id in that of a CloudEvent."""

    prefix: bytes
    headers: Headers
    id_suffix: str


class Marks:
    """Marks verdicts, review items and usage. What all outputs of a topic share is made once."""

    def __init__(self, settings: Settings, frames: Mapping[str, Frame]) -> None:
        topics, self._writes_cloud_events = settings.topics, settings.cloudevents.write
        self._pipeline = settings.worker.pipeline
        self._of: dict[str, _Mark] = {}
        for topic, kind, model, id_suffix in (
            (topics.verdicts, "verdict", Verdict, ""),
            (topics.review, "review", ReviewItem, "/review"),
            (topics.usage, "usage", Usage, "/usage"),
        ):
            version = model.model_fields["schema_version"].default
            frame = frames.get(topic, Frame())
            headers: Headers = list(frame.headers)
            if self._writes_cloud_events:
                headers += [
                    ("ce_specversion", SPEC_VERSION.encode()),
                    ("ce_type", f"guardline.{kind}.v{version}".encode()),
                    ("ce_source", settings.cloudevents.source.encode()),
                    (CONTENT_TYPE, b"application/json"),
                ]
            # No two CloudEvents of one source may have the same id, so those of other kinds have a suffix.
            self._of[topic] = _Mark(frame.prefix, headers, id_suffix)

    def put(self, output: Output, name: str, time: bytes) -> Output:
        """Give the output with its marks; `name` is the verdict's id, or that of usage. `time`: when it was made."""
        mark = self._of[output.topic]
        headers = [*(output.headers or ()), *mark.headers]
        if self._writes_cloud_events:
            headers += [("ce_id", f"{name}{mark.id_suffix}".encode()), ("ce_time", time)]
        return Output(output.topic, output.key, mark.prefix + (output.value or b""), headers or None)

    def put_usage(self, output: Output, first: Source, minute: int, time: bytes) -> Output:
        """Give a record of usage with its marks; `first` is the first record that it counts, `minute` its minute.

        Its id is a hash like that of a verdict. Each input record is committed once, so no two committed records of
        usage have the same id.
        """
        return self.put(output, verdict_id(self._pipeline, first, f"{minute}|{output.key.decode()}"), time)


def marks_of(settings: Settings, frames: Mapping[str, Frame]) -> Marks | None:
    """Give the marks of the settings; None if outputs have none."""
    return Marks(settings, frames) if settings.cloudevents.write or frames else None


def written_time(seconds: float) -> bytes:
    """Write a time (seconds since 1970-01-01 UTC) as RFC 3339 in UTC, in milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
