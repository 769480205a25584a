"""The usage of committed records, summed by tenant and minute."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import EventDict
from schemas.usage import Usage
from workers.core.dead_letters import size_of
from workers.core.frames import by_header
from workers.core.marks import Marks
from workers.core.records import Event, Finished, Source, TopicPartition, Used
from workers.core.siblings import Siblings
from workers.core.usage import MIN_USAGE_BYTES, Period, Usages, outputs_of, used_by
from workers.settings import Settings

MINUTE = 1_764_000_000_000 // 60_000
SOURCE = Source(TopicPartition("chat", 0), 1, 7, received_at_ms=MINUTE * 60_000 + 59_999)

used = st.builds(
    Used,
    tenant_id=st.sampled_from(["acme", "other", '\n"ü']),
    minute=st.integers(MINUTE, MINUTE + 2),
    tokens=st.integers(0, 9_999),
    engine_ms=st.floats(0, 1_000),
    is_cache_hit=st.booleans(),
)
records = st.lists(
    st.builds(lambda entries: Finished(SOURCE, (), usage=tuple(entries)), st.lists(used, max_size=3)), max_size=30
)


@given(records)
def test_one_record_for_each_tenant_and_minute_has_the_sums(finished: list[Finished]) -> None:
    outputs = outputs_of("usage", finished)
    written = [Usage.model_validate_json(output.value or b"") for output in outputs]
    expected: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for record in finished:
        for entry in record.usage:
            minutes = entry.minute - MINUTE
            total = expected[(entry.tenant_id, f"2025-11-24T16:{minutes:02}:00Z")]
            for index, value in enumerate((1, entry.is_cache_hit, entry.tokens, entry.engine_ms)):
                total[index] += value
    assert {
        (one.tenant_id, one.minute): [one.events, one.cache_hits, one.tokens, one.engine_ms] for one in written
    } == {place: [*total[:3], round(total[3], 3)] for place, total in expected.items()}
    assert len(written) == len(expected)
    assert [output.key.decode() for output in outputs] == [one.tenant_id for one in written]
    assert [orjson.loads(output.value or b"") for output in outputs] == [one.model_dump(mode="json") for one in written]


def test_the_longest_record_fits_into_the_least_topic() -> None:
    settings = Settings(cloudevents={"write": True, "source": "s" * 256})
    marks = Marks(settings, {settings.topics.usage: by_header("0af76519-16cd-43dd-8448-eb211c80319c")})
    used = Used("\x01" * 256, MINUTE, 2**62, 1e15, True)
    (output,) = outputs_of(
        settings.topics.usage,
        [Finished(SOURCE, (), usage=(used,))],
        lambda output, first, minute: marks.put_usage(output, first, minute, b"2025-11-24T16:00:00.250Z"),
    )
    assert size_of(output) <= MIN_USAGE_BYTES


def event(assessment: dict[str, object] | None, engine_ms: float | None) -> Event:
    body: EventDict = {"event_id": "e", "tenant_id": "acme", "text": "x", "surface": "chat"}
    return Event(SOURCE, b"k", body, assessment=assessment, engine_ms=engine_ms)


def test_an_event_adds_what_it_is_charged_with() -> None:
    assert used_by(event({"tokens": 40}, 2.5)) == Used("acme", MINUTE, 40, 2.5, False)
    assert used_by(event({"tokens": 40}, None)) == Used("acme", MINUTE, 0, 0.0, True)
    assert used_by(event(None, 2.5)) == Used("acme", MINUTE, 0, 2.5, False)
    assert used_by(event(None, None)) == Used("acme", MINUTE, 0, 0.0, False)


def test_a_record_with_several_events_has_the_usage_of_all() -> None:
    siblings = Siblings(2)
    entries = [Used("acme", MINUTE, number, 0.0, False) for number in range(2)]
    assert siblings.finish(1, Finished(SOURCE, (), usage=(entries[1],))) is None
    whole = siblings.finish(0, Finished(SOURCE, (), usage=(entries[0],)))
    assert whole is not None
    assert whole.usage == tuple(entries)


def record(tenant: str, minute: str, events: int) -> bytes:
    return orjson.dumps(
        {
            "tenant_id": tenant,
            "minute": minute,
            "events": events,
            "cache_hits": 0,
            "tokens": 2 * events,
            "engine_ms": 0.5,
        }
    )


@pytest.mark.parametrize(
    ("by", "periods"),
    [
        (None, ["", ""]),
        ("minute", ["2026-01-31T22:59:00Z", "2026-01-31T23:00:00Z", "2026-02-01T00:00:00Z"]),
        ("hour", ["2026-01-31T22:00:00Z", "2026-01-31T23:00:00Z", "2026-02-01T00:00:00Z"]),
        ("day", ["2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"]),
    ],
)
def test_records_are_summed_by_tenant_and_period(by: Period | None, periods: list[str]) -> None:
    usages = Usages(since=None, until=None, by=by)
    for tenant, minute, events in [
        ("a", "2026-01-31T22:59:00Z", 1),
        ("b", "2026-01-31T23:00:00Z", 2),
        ("b", "2026-01-31T23:00:00Z", 3),
        ("a", "2026-02-01T00:00:00Z", 4),
    ]:
        usages.add(record(tenant, minute, events))
    expected = {(periods[0], "a"): 1, (periods[1], "b"): 5}
    expected[(periods[-1], "a")] = 5 if by is None else 4
    assert {place: total.events for place, total in usages.sums.items()} == expected
    assert all(total.tokens == 2 * total.events for total in usages.sums.values())


def test_only_the_wanted_tenants_and_minutes_are_summed() -> None:
    since, until = (datetime(2026, 1, 31, hour, tzinfo=UTC).timestamp() for hour in (10, 11))
    usages = Usages(tenants=["a"], since=since, until=until, by=None)
    for minute in ("09:59", "10:00", "10:59", "11:00"):
        for tenant in ("a", "b"):
            usages.add(record(tenant, f"2026-01-31T{minute}:00Z", 1))
    assert {place: total.events for place, total in usages.sums.items()} == {("", "a"): 2}


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"null", b'{"tenant_id": "a", "minute": 7, "events": 1}'])
def test_a_record_of_another_program_is_refused(value: bytes) -> None:
    usages = Usages(since=None, until=None, by=None)
    with pytest.raises((ValueError, LookupError, TypeError)):
        usages.add(value)
    assert not usages.sums
