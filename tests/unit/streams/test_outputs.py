"""The outputs of a record are those of the contracts, and fit into their topics."""

from __future__ import annotations

import orjson
import pytest

from schemas.stream import StreamVerdict
from tests.unit.streams.given import ORIGIN, item
from tests.unit.streams.world import TOPICS, policy_of
from workers.core.dead_letters import size_of
from workers.core.decide import verdict_id as verdict_id_of_event
from workers.core.records import Finished, Record, Source
from workers.live.session import Ruling
from workers.settings import Events
from workers.streams.outputs import Outputs, Terms, session_key, shrunk, verdict_id
from workers.streams.reading import Reading

TERMS = Terms(policy_of().reference, policy_of().stream)


def test_the_id_of_a_verdict_depends_on_pipeline_and_position_and_is_never_that_of_an_event() -> None:
    source = Source(ORIGIN, 1, 5)
    assert verdict_id("a", source) == verdict_id("a", Source(ORIGIN, 9, 5, 17, 3))
    others = [verdict_id("b", source), verdict_id("a", Source(ORIGIN, 1, 6)), verdict_id_of_event("a", source, "s1")]
    assert verdict_id("a", source) not in others


@pytest.mark.parametrize(("one", "other"), [(("a", "b|c"), ("a|b", "c")), (("1|a", "b"), ("1", "a|b"))])
def test_no_two_streams_have_the_same_key_of_their_sessions(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = {session_key(item("open", 0, tenant_id=tenant, stream_id=name)) for tenant, name in (one, other)}
    assert len(keys) == 2


def test_a_verdict_carries_the_headers_that_the_settings_name() -> None:
    record = Record(
        orjson.dumps({"kind": "open", "stream_id": "s", "tenant_id": "a", "seq": 0}), b"k", [("x", b"1"), ("y", b"2")]
    )
    (read,) = Reading(Events())(record, Source(ORIGIN, 1, 0))
    for names, headers in ((frozenset({"y", "z"}), [("y", b"2")]), (frozenset[str](), None)):
        output = Outputs(TOPICS, "p", names).verdict(
            read, "opened", TERMS, ruling=Ruling(shown_chars=0), judged_ms=None
        )
        assert (output.headers, output.key) == (headers, b"k")


@pytest.mark.parametrize("limit", [4_000, 20_000, 100_000])
def test_a_verdict_that_is_too_large_keeps_its_newest_positions(limit: int) -> None:
    """The cut is at the last one."""
    rows = [[0.5, 0.25, round(number / 10_000, 4)] for number in range(3_000)]
    ruling = Ruling(shown_chars=9, first_position=100, risk=rows, categories=[None] * 3_000)
    outputs = Outputs(TOPICS, "p")
    verdict = outputs.verdict(item("delta", 1, "x"), "judged", TERMS, ruling=ruling, judged_ms=1.0)
    tombstone = outputs.tombstone(item("delta", 1, "x"))
    found = shrunk(Finished(Source(ORIGIN, 1, 0), (verdict, tombstone)), dict.fromkeys(map(str, TOPICS.all), limit))
    assert found is not None
    assert found.outputs[1] == tombstone
    assert size_of(found.outputs[0]) <= limit
    read = StreamVerdict.model_validate_json(found.outputs[0].value or b"", strict=True)
    assert read.first_position is not None
    assert read.first_position + len(read.risk) == 3_100
    assert len(read.risk) == len(read.categories) >= 16
    assert read.risk[-1] == rows[-1]


def test_a_verdict_that_cannot_fit_becomes_a_dead_letter() -> None:
    verdict = Outputs(TOPICS, "p").verdict(
        item("open", 0), "opened", TERMS, ruling=Ruling(shown_chars=0), judged_ms=None
    )
    assert shrunk(Finished(Source(ORIGIN, 1, 0), (verdict,)), {TOPICS.stream_verdicts: 500}) is None
