"""Outputs that are too large for their topics lose what readers need least."""

from __future__ import annotations

from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import EventDict
from schemas.policy import Policy
from schemas.review import ReviewItem
from schemas.verdict import Verdict
from workers.core.dead_letters import size_of
from workers.core.decide import verdict
from workers.core.records import Event, Finished, Output, Source, TopicPartition
from workers.core.shrink import shrunk
from workers.policy.policy import CompiledPolicy

SOURCE = Source(TopicPartition("chat", 3), 1, 42)
POLICY = CompiledPolicy(Policy(id="x", on_unavailable="review"))


def judged(**changes: object) -> Finished:
    body = cast(EventDict, {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": "hello", **changes})
    event = Event(SOURCE, b"k", body, verdict_id="0" * 32, ignored_fields=("language",), truncated_text_chars=7)
    decided = verdict(event, POLICY, 1.5)
    return Finished(SOURCE, (Output("verdicts", b"k", decided.value), Output("reviews", b"k", decided.review)))


def documents(record: Finished | None) -> list[dict[str, Any]]:
    assert record is not None
    return [orjson.loads(output.value or b"") for output in record.outputs]


def test_an_output_loses_context_then_attributes_then_the_middle_of_its_text() -> None:
    turns, attributes, text = [{"role": "user", "text": "x" * 1_000}], {"a": "y" * 1_000}, "b" * 1_000 + "e" * 1_000
    record = judged(context=turns, attributes=attributes, text=text)
    least = size_of(judged(text="x").outputs[1])
    for limit, ignored, cut in (
        (least + 5_000, ["language"], 7),
        (least + 3_100, ["language", "context"], 7),
        (least + 2_100, ["language", "context", "attributes"], 7),
        (least + 1_100, ["language", "context", "attributes"], None),
    ):
        item = documents(shrunk(record, {"verdicts": 5_000, "reviews": limit}))[1]
        assert item["ignored_fields"] == ignored
        assert (item["context"], item["attributes"]) == (
            [] if "context" in ignored else turns,
            {} if "attributes" in ignored else attributes,
        )
        kept = item["text"].replace("\n", "")
        assert item["truncated_text_chars"] == 7 + 2_000 - len(kept)
        assert cut is None or kept == text
        assert kept[0] == "b"
        assert kept[-1] == "e"


def test_a_verdict_that_fits_is_not_changed_by_its_review_item() -> None:
    record = judged(text="x" * 5_000)
    shorter = shrunk(record, {"verdicts": 5_000, "reviews": 4_000})
    assert shorter is not None
    assert shorter.outputs[0] == record.outputs[0]


@pytest.mark.parametrize("limits", [{"verdicts": 1_000, "reviews": 9_000}, {"verdicts": 9_000, "reviews": 1_000}])
def test_outputs_that_cannot_be_made_to_fit_are_not_changed(limits: dict[str, int]) -> None:
    assert shrunk(judged(text="x" * 5_000), limits) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3_000), st.integers(1_000, 9_000))
def test_every_smaller_output_fits_and_keeps_the_contract(text: str, limit: int) -> None:
    record = shrunk(judged(text=text, attributes={"a": "x" * 500}), {"verdicts": limit, "reviews": limit})
    if record is not None:
        written, item = record.outputs
        assert max(size_of(written), size_of(item)) <= limit
        Verdict.model_validate_json(written.value or b"", strict=True)
        ReviewItem.model_validate_json(item.value or b"", strict=True)
