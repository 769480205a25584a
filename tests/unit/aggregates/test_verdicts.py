"""What the aggregates worker reads from a verdict, of whatever version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy import Strikes as StrikeRules
from tests.aggregates import harmless, verdict, verdict_id
from tests.unit.aggregates.seen import NOW_MS
from workers.aggregates.counting import Counter
from workers.aggregates.updates import Batch, Verdicts, decoded
from workers.aggregates.verdicts import Read, Skip, read, read_forget
from workers.core.forgotten import Forgotten
from workers.core.frames import by_prefix
from workers.policy.strikes import CompiledStrikes
from workers.settings import Aggregates

FIXTURES = sorted((Path(__file__).parents[2] / "fixtures" / "contracts" / "verdict").glob("*.json"))


def read_one(value: object, thread: str = "conversation_id") -> Read | Skip:
    content = value if isinstance(value, bytes) or value is None else orjson.dumps(value)
    return read(content, partition=3, offset=41, timestamp_ms=1_000, thread=thread)


def found(value: object) -> Read:
    answer = read_one(value)
    assert isinstance(answer, Read), answer
    return answer


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_verdict_of_every_version_is_read(path: Path) -> None:
    document = json.loads(path.read_text())
    answer = read_one(document)
    if document["duplicate_of"] and not document.get("supersedes"):
        assert answer == "duplicate"
    else:
        assert isinstance(answer, Read)
        assert answer.seen.verdict_id == document["verdict_id"]
        assert answer.seen.received_ms == document["timings"]["received_at"]


def test_a_verdict_is_read_with_its_position_its_thread_and_its_author() -> None:
    tenant, thread, seen = found(verdict(1, attributes={"conversation_id": "c1"}, similarity="00000000000000ff"))
    assert (tenant, thread, seen.author_id) == ("acme", "c1", "a0")
    assert (seen.partition, seen.offset, seen.similarity) == (3, 41, 255)
    as_verdict = seen.as_verdict()
    assert as_verdict["assessment"] == {"severity": "Unsafe", "categories": ["Violent"]}
    assert (as_verdict["decision"], as_verdict["verdict_id"]) == ("block", verdict_id(1))


def test_a_superseding_verdict_is_read_with_what_it_replaces_and_corrects() -> None:
    corrected = {"severity": "Controversial", "categories": ["PII", "Jailbreak"]}
    seen = found(
        verdict(2, supersedes=verdict_id(1), superseded_decision="block", decision="allow", corrected=corrected)
    ).seen
    assert seen.supersedes == verdict_id(1)
    assert seen.superseded_decision == 2
    assert seen.as_verdict()["corrected"] == corrected


def test_a_duplicate_is_skipped_and_a_decision_on_it_is_not() -> None:
    duplicate = verdict(2, duplicate_of=verdict_id(1))
    assert read_one(duplicate) == "duplicate"
    assert isinstance(read_one({**duplicate, "supersedes": verdict_id(2)}), Read)


def test_a_newer_version_is_read_as_far_as_it_is_known() -> None:
    newer = verdict(1, schema_version=9, later={"x": 1}, categories=["Violent", "Newest"], severity="Worst")
    newer["timings"]["judged_ms"] = {"per_view": [1]}
    newer["attributes"] = ["not", "an", "object"]
    seen = found(newer).seen
    assert (seen.severity, seen.author_id) == (0, "a0")
    assert found(verdict(1, categories=["Newest", "PII"])).seen.as_verdict()["assessment"]["categories"] == ["PII"]


def test_a_verdict_without_a_time_has_that_of_its_record() -> None:
    document = verdict(1)
    del document["timings"]
    assert found(document).seen.received_ms == 1_000


def test_a_framed_verdict_is_read() -> None:
    assert found(by_prefix(7).prefix + orjson.dumps(harmless(1))).seen.decision == 0


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[1]",
        b"{",
        verdict(1, verdict_id="../../etc"),
        verdict(1, decision="escalate"),
        verdict(1, tenant_id=""),
        {"verdict_id": verdict_id(1)},
        verdict(1, verdict_id="aa aaaaaaaaaaaaaa aaaaaaaaaaaaaa"),
        verdict(1, supersedes="x" * 2_000_000),
        orjson.dumps(verdict(1))[:-1] + b',"attributes":' + b'{"a":' * 1_100 + b"1" + b"}" * 1_101,
        orjson.dumps(verdict(1))[:-1] + b',"attributes":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    ],
    ids=[
        "empty",
        "not UTF-8",
        "null",
        "a list",
        "cut off",
        "a wrong id",
        "a wrong decision",
        "no tenant",
        "an id only",
        "an id with spaces",
        "a superseded id that is too long",
        "nested deeply",
        "nested more deeply",
    ],
)
def test_what_is_no_verdict_is_skipped(value: Any) -> None:
    assert read_one(value) == "junk"
    assert read_one(None) == "tombstone"


@pytest.mark.parametrize("time_ms", [-1, 10**17, 10**20, 10**30])
def test_a_time_that_is_no_date_is_left_out(time_ms: int) -> None:
    document = verdict(1)
    source = {**document["source"], "timestamp": time_ms}
    seen = found(
        json.dumps({**document, "source": source, "timings": {"received_at": time_ms, "judged_ms": 1.0}}).encode()
    ).seen
    assert (seen.received_ms, seen.sent_ms) == (1_000, None)


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(verdict(1))), inner, max_size=4),
    max_leaves=8,
)


@given(st.one_of(st.binary(max_size=60), documents.map(orjson.dumps)))
def test_no_record_raises(value: bytes) -> None:
    count(value)
    read_forget(value)


times = st.integers() | st.sampled_from([0, -1, 10**13, 10**15, 10**17, 2**63, 10**20])
ids = st.text(max_size=40) | st.text("0123456789abcdefABCDEF _-+x", min_size=16, max_size=32) | st.just(verdict_id(2))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "verdict_id": ids,
            "tenant_id": ids,
            "author_id": ids,
            "supersedes": ids,
            "superseded_decision": ids | st.sampled_from(["allow", "block"]),
            "similarity": ids | st.text("0123456789abcdef-+_ ", min_size=16, max_size=16),
            "timings": st.fixed_dictionaries({"received_at": times}),
            "source": st.fixed_dictionaries({"timestamp": times}),
            "attributes": st.fixed_dictionaries({"conversation_id": ids}),
            "corrected": st.fixed_dictionaries({"severity": st.sampled_from(["Unsafe", "x"])}),
        },
    )
)
def test_no_verdict_with_strange_values_stops_the_worker(changes: dict[str, Any]) -> None:
    count(json.dumps({**verdict(1), **changes}).encode())


class NoRows:
    """A table without a row."""

    are_full = False

    def get(self, key: bytes) -> bytes | None:
        return None


RULES = CompiledStrikes(StrikeRules.model_validate({"window_hours": 24, "thresholds": [{"name": "warn", "at": 1}]}))


def count(value: bytes) -> None:
    """Take a record through both steps of the worker."""
    answer = read_one(value)
    if isinstance(answer, Read):
        batch = Batch(4)
        batch.add(answer)
        for partition, record in batch.records(1):
            update = decoded(record)
            assert isinstance(update, Verdicts)
            Counter(Aggregates(), lambda _: RULES, Forgotten()).verdicts(update, NoRows(), partition, NOW_MS)


@given(st.data())
def test_a_field_of_any_other_type_loses_only_itself(data: st.DataObject) -> None:
    document = verdict(1, attributes={"conversation_id": "c"}, similarity="0" * 16)
    name = data.draw(st.sampled_from(sorted(set(document) - {"verdict_id", "tenant_id", "decision", "duplicate_of"})))
    document[name] = data.draw(st.one_of(st.none(), st.integers(0, 9), st.text(), st.lists(st.integers(0, 9))))
    assert found(document).seen.decision == 2


def test_a_request_to_forget_names_a_tenant_and_an_author() -> None:
    request = {
        "tenant_id": "acme",
        "author_id": "a",
        "forget_id": "x",
        "requested_at": "1970-01-01T00:00:01Z",
        "new": 1,
    }
    assert read_forget(orjson.dumps(request)) == ("acme", "a", 1_000)
    assert read_forget(orjson.dumps({**request, "requested_at": "1970-01-01t00:00:60z"})) == ("acme", "a", 59_000)
    assert read_forget(None) is None
    assert read_forget(b'{"tenant_id": "acme"}') is None
    assert read_forget(orjson.dumps({**request, "requested_at": "soon"})) is None
