"""The state machine of a review item."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.review_state import ReviewState
from schemas.verdict import Verdict
from tests.reviewing import review_item
from tests.unit.review.given import (
    AT_ONCE,
    FOUR_EYES,
    MINUTE,
    NOW,
    TENANT,
    TERMS,
    Case,
    command,
    given,
    opened,
)
from workers.kafka.topic_settings import STATE_BYTES
from workers.review.item import MAX_SKIPPED, MAX_STEPS, RECENT_STEPS, Item, Lease, decoded, encoded, parsed
from workers.review.queues import Queues, Reader
from workers.review.refusal import Refusal
from workers.review.rules import applied
from workers.review.terms import Change
from workers.review.verdicts import superseding


def refused(case: Case, kind: str, by: str, **fields: Any) -> Refusal:
    before = case.item
    with pytest.raises(Refusal) as refusal:
        case.do(kind, by, **fields)
    assert case.item is before
    return refusal.value


def test_a_decision_supersedes_the_verdict() -> None:
    case = Case()
    case.do("lease", "ana")
    case.do("decide", "ana", decision="block", note="A threat.", severity="Controversial", categories=["PII"])
    verdict = Verdict.model_validate(superseding(case.item))
    original = review_item(1)
    assert (verdict.decision.value, verdict.decided_by, verdict.note) == ("block", "ana", "A threat.")
    assert (verdict.supersedes, verdict.superseded_decision) == (original["verdict_id"], "review")
    assert verdict.verdict_id == case.item.current != original["verdict_id"]
    assert verdict.corrected is not None
    assert (verdict.corrected.severity, verdict.corrected.categories) == ("Controversial", ["PII"])
    kept = {name: original[name] for name in ("event_id", "tenant_id", "author_id", "source", "assessment")}
    assert {name: superseding(case.item)[name] for name in kept} == kept
    assert case.actions == ["leased", "decided", "published"]


def test_the_first_of_two_people_wins_and_the_second_learns_who_was_first_and_when() -> None:
    case = Case()
    case.do("decide", "ana", decision="block")
    late = refused(case, "decide", "bob", decision="allow")
    assert (late.status, late.by, late.at_ms) == (409, "ana", NOW)
    assert late.sentence == "ana was first and has decided block"


def test_a_leased_item_is_for_its_holder_until_the_lease_is_over() -> None:
    case = Case()
    case.do("lease", "ana")
    for kind, fields in (("lease", {}), ("decide", {"decision": "allow"}), ("skip", {}), ("release", {})):
        refusal = refused(case, kind, "bob", **fields)
        assert (refusal.status, refusal.by, refusal.at_ms) == (409, "ana", NOW)
    assert refused(case, "end_lease", "guardline").status == 409
    case.now += TERMS.lease_ms
    case.do("lease", "bob")
    assert case.item.lease is not None
    assert case.item.lease.by == "bob"
    assert refused(case, "decide", "ana", decision="allow").by == "bob"


def test_a_decision_can_be_undone_by_its_person_until_it_settles() -> None:
    case = Case(terms=TERMS)
    case.do("decide", "ana", decision="block")
    assert (case.item.status, case.item.is_waiting) == ("open", False)
    assert refused(case, "undo", "bob").by == "ana"
    assert refused(case, "decide", "bob", decision="allow").by == "ana"
    assert refused(case, "settle", "guardline").sentence == "the decision can still be undone"
    case.do("undo", "ana")
    assert case.item.lease is not None
    assert case.item.lease.by == "ana"
    case.do("decide", "ana", decision="allow")
    case.now += TERMS.undo_ms
    case.do("settle")
    assert (case.item.status, case.item.current_decision) == ("decided", "allow")
    assert refused(case, "undo", "ana").status == 409
    assert case.actions.count("published") == 1


def test_a_skipped_item_is_free_and_comes_last_for_the_person_who_skipped_it() -> None:
    case = Case()
    case.do("lease", "ana")
    case.do("skip", "ana")
    assert case.item.lease is None
    queues = Queues()
    queues.add(case.item)
    queues.add(replace(opened(), verdict_id="f" * 32, turn_at=case.item.turn_at + 1))
    assert queues.first(Reader("bob", is_senior=False)) == case.item.verdict_id
    assert queues.first(Reader("ana", is_senior=False)) == "f" * 32
    queues.remove("f" * 32)
    assert queues.first(Reader("ana", is_senior=False)) == case.item.verdict_id


def test_an_escalated_item_waits_for_a_senior() -> None:
    case = Case()
    case.do("decide", "ana", decision="escalate", note="Unclear.")
    assert (case.item.status, case.actions[-1]) == ("escalated", "escalated")
    assert refused(case, "lease", "bob").status == 403
    assert refused(case, "decide", "bob", decision="block").status == 403
    assert refused(case, "decide", "sue", decision="escalate").status == 409
    case.do("decide", "sue", decision="allow")
    assert case.item.status == "decided"


@pytest.mark.parametrize("by", ["aud", "coop", "guardline"])
def test_roles_that_are_no_people_never_decide(by: str) -> None:
    case = Case()
    assert refused(case, "decide", by, decision="allow").status == 403
    assert refused(case, "lease", by).status == 403


class TestFourEyes:
    def test_two_different_people_have_to_decide_alike(self) -> None:
        case = Case(FOUR_EYES)
        case.do("decide", "ana", decision="block")
        assert case.item.status == "second_opinion"
        assert case.item.excluded() == {"ana"}
        assert refused(case, "decide", "ana", decision="block").status == 403
        assert refused(case, "lease", "ana").status == 403
        case.do("decide", "bob", decision="block", note="Also a threat.")
        assert (case.item.status, superseding(case.item)["decided_by"]) == ("decided", "ana, bob")

    def test_a_disagreement_escalates_and_a_senior_person_decides(self) -> None:
        case = Case(FOUR_EYES)
        case.do("decide", "ana", decision="block")
        case.do("decide", "bob", decision="allow")
        assert case.item.status == "escalated"
        case.do("decide", "sue", decision="allow")
        assert (case.item.status, superseding(case.item)["decided_by"]) == ("decided", "bob, sue")

    def test_a_senior_person_alone_is_not_two_people(self) -> None:
        case = Case(FOUR_EYES)
        case.do("decide", "ana", decision="escalate")
        case.do("decide", "sue", decision="block")
        assert case.item.status == "second_opinion"
        case.do("decide", "ana", decision="block")
        assert case.item.status == "decided"

    def test_only_the_categories_of_the_policy_want_two_people(self) -> None:
        case = Case(TENANT._replace(four_eyes=frozenset({"PII"})))
        case.do("decide", "ana", decision="block")
        assert case.item.status == "decided"

    def test_a_category_that_the_first_person_finds_wants_two_people_too(self) -> None:
        case = Case(TENANT._replace(four_eyes=frozenset({"PII"})), TERMS)
        case.do("decide", "ana", decision="block", categories=["PII"])
        assert case.item.four_eyes
        assert refused(case, "decide", "bob", decision="allow").sentence == "ana was first and has decided"
        case.now += TERMS.undo_ms
        case.do("settle")
        assert case.item.status == "second_opinion"


class TestAppeals:
    def decided(self) -> Case:
        case = Case()
        case.do("decide", "ana", decision="block")
        return case

    def test_another_person_decides_an_appeal_and_supersedes_the_last_verdict(self) -> None:
        case = self.decided()
        first = case.item.current
        case.do("appeal", "coop", note="It was a quote.")
        assert (case.item.status, case.item.appeal) == ("appealed", "It was a quote.")
        assert case.item.excluded() == {"ana"}
        assert refused(case, "decide", "ana", decision="allow").status == 403
        assert refused(case, "decide", "coop", decision="allow").status == 403
        case.do("decide", "bob", decision="allow")
        verdict = superseding(case.item)
        assert (verdict["supersedes"], verdict["superseded_decision"], verdict["decision"]) == (first, "block", "allow")
        assert verdict["deciders"] == ("ana", "bob")
        case.do("appeal", "coop")
        assert case.item.excluded() == {"ana", "bob"}

    def test_there_is_nothing_to_appeal_against_before_a_decision(self) -> None:
        assert refused(Case(), "appeal", "coop").sentence.startswith("the item is open: nobody has decided")

    def test_a_second_appeal_is_refused_while_the_first_one_waits(self) -> None:
        case = self.decided()
        case.do("appeal", "coop")
        refusal = refused(case, "appeal", "coop")
        assert (refusal.status, refusal.sentence) == (409, "an appeal of this item waits already")

    def test_reviewers_and_auditors_do_not_appeal(self) -> None:
        assert refused(self.decided(), "appeal", "bob").status == 403

    def test_without_its_content_an_item_needs_the_text(self) -> None:
        case = self.decided()
        case.now += AT_ONCE.keep_decided_ms
        case.do("expire")
        assert not case.item.has_content
        assert refused(case, "appeal", "coop").status == 422
        case.do("appeal", "coop", text="the quote")
        assert case.item.has_content
        assert parsed(case.item.content)["text"] == "the quote"

    def verdict(self, **changes: Any) -> dict[str, Any]:
        item = review_item(9, decision="block")
        return {name: value for name, value in item.items() if name not in ("text", "context")} | changes

    def test_an_unknown_verdict_is_refused_with_what_to_pass(self) -> None:
        verdict = self.verdict()
        for fields, status in (
            ({}, 404),
            ({"verdict": verdict}, 422),
            ({"verdict": self.verdict(verdict_id="0" * 32), "text": "x"}, 422),
            ({"verdict": verdict, "text": "x"}, 422),
            ({"verdict": self.verdict(decision="review"), "text": "x", "key": "room"}, 409),
        ):
            with pytest.raises(Refusal) as refusal:
                applied(None, given(command("appeal", "coop", verdict["verdict_id"], **fields), document=verdict))
            assert refusal.value.status == status

    def test_a_verdict_that_never_went_to_review_becomes_an_item(self) -> None:
        verdict = self.verdict(decided_by="ana, bo", deciders=["ana", "bo, bert"], unknown="kept")
        wanted = command("appeal", "coop", verdict["verdict_id"], verdict=verdict, text="hello", key="room", note="why")
        change = applied(None, given(wanted, document=verdict))
        assert change.item is not None
        assert (change.item.status, change.item.deciders) == ("appealed", ("ana", "bo, bert"))
        decide = command("decide", "bob", verdict["verdict_id"], decision="allow")
        after = applied(change.item, given(decide, terms=AT_ONCE)).item
        assert after is not None
        assert superseding(after)["superseded_decision"] == "block"
        assert superseding(after)["unknown"] == "kept"
        assert superseding(after)["deciders"] == ("ana", "bo, bert", "bob")

    def test_an_old_verdict_that_names_one_person_keeps_that_person_from_the_appeal(self) -> None:
        def appealed(decided_by: str) -> Change:
            verdict = self.verdict(decided_by=decided_by)
            wanted = command("appeal", "coop", verdict["verdict_id"], verdict=verdict, text="hello", key="room")
            return applied(None, given(wanted, document=verdict))

        item = appealed("ana").item
        assert item is not None
        assert item.deciders == ("ana",)
        assert item.excluded() == {"ana"}
        for cut_or_several in ("ana, bob", "a" * 256):
            with pytest.raises(Refusal, match="not known who may not decide the appeal"):
                appealed(cut_or_several)


def test_long_names_are_cut_where_they_are_shown_and_nowhere_else() -> None:
    names = [f"coop:{letter * 140}" for letter in "abc"]
    case = Case(FOUR_EYES)
    for name in names[:2]:
        case.do("decide", name, decision="block", role="reviewer")
    verdict = superseding(case.item)
    assert (len(verdict["decided_by"]), verdict["deciders"]) == (256, tuple(names[:2]))
    case.do("appeal", "coop")
    assert refused(case, "decide", names[1], decision="allow", role="reviewer").status == 403
    case.do("decide", names[2], decision="allow", role="reviewer")


def test_the_state_of_an_item_stays_small_whatever_people_do_with_it() -> None:
    """Leases and undone decisions cost nothing, so a program could make them without end."""
    text = "\U0001f600" * 2_000
    case = Case(FOUR_EYES, TERMS, attributes={"a": "x" * 1_000})
    size = len(encoded(case.item))
    by = f"{'s' * 64}:{'p' * 64}"
    for _ in range(120):
        case.do("lease", by, role="senior")
        case.do("skip", by, role="senior")
        case.do("decide", by, role="senior", decision="escalate", note=text)
        case.do("undo", by, role="senior")
        case.do("release", by, role="senior")
    assert len(case.item.history) == MAX_STEPS
    assert (case.item.history[0].action, case.item.history[-1].action) == ("arrived", "released")
    assert {step.action for step in case.item.history[1:-RECENT_STEPS]} == {"decided", "undone"}
    for name in (by, f"b{by}"):
        case.do("decide", name, role="senior", decision="block", note=text)
        case.now += TERMS.undo_ms
        case.do("settle")
    case.do("appeal", "coop", note=text)
    for name in (f"c{by}", f"d{by}"):
        case.do("decide", name, role="senior", decision="block", note=text)
        case.now += TERMS.undo_ms
        case.do("settle")
    case.do("appeal", "coop", note=text)
    assert len(encoded(case.item)) < size + STATE_BYTES


def test_an_item_remembers_a_limited_number_of_people_who_skipped_it() -> None:
    case = Case()
    for number in range(MAX_SKIPPED + 1):
        case.do("lease", f"p{number}", role="reviewer")
        case.do("skip", f"p{number}", role="reviewer")
    assert case.item.skipped_by == tuple(f"p{number}" for number in range(1, MAX_SKIPPED + 1))


def test_a_person_has_at_most_so_many_items_on_lease() -> None:
    item, terms = opened(), TERMS._replace(max_leases=2)
    others = [Lease("ana", f"{number:032x}", NOW, NOW) for number in range(2)]
    lease = command("lease", "ana")
    with pytest.raises(Refusal, match="ana has 2 items on lease"):
        applied(item, given(lease, terms=terms)._replace(leases=others))
    again = lease.model_copy(update={"command_id": others[0].command_id})
    with pytest.raises(Refusal, match="the same request has taken another item"):
        applied(item, given(again, terms=terms)._replace(leases=others[:1]))
    assert applied(item, given(lease, terms=terms)._replace(leases=others[:1])).item is not None


def test_a_decided_item_is_reopened_by_a_senior_person_only() -> None:
    case = Case()
    assert refused(case, "reopen", "sue").status == 409
    case.do("decide", "ana", decision="block")
    assert refused(case, "reopen", "ana").status == 403
    case.do("reopen", "sue", note="Look again.")
    assert (case.item.status, case.item.excluded()) == ("reopened", frozenset())
    case.do("decide", "ana", decision="allow")
    assert case.item.current_decision == "allow"


class TestTime:
    def test_an_item_that_nobody_decides_is_closed_and_loses_its_content(self) -> None:
        case = Case()
        assert refused(case, "expire", "guardline").status == 409
        case.now += int(TENANT.retention_ms or 0)
        case.do("expire")
        assert (case.item.status, case.item.closed_because, case.item.has_content) == ("closed", "expired", False)
        assert refused(case, "decide", "ana", decision="allow").status == 409

    def test_an_item_without_content_is_deleted_at_last(self) -> None:
        case = Case()
        case.do("decide", "ana", decision="block")
        for length, has_content in ((AT_ONCE.keep_decided_ms, True), (AT_ONCE.keep_history_ms, False)):
            assert case.item.has_content is has_content
            case.now += length
            change = applied(case.item, given(command("expire"), case.now))
            if change.item is not None:
                case.item = change.item
        assert change == (None, ("deleted",))

    def test_a_worker_with_a_clock_ahead_does_not_put_its_items_last(self) -> None:
        ahead = opened(timings={"received_at": NOW + 60 * MINUTE, "judged_ms": 1.0})
        assert ahead.waiting_since == NOW
        assert opened().waiting_since < NOW


class TestForgetting:
    def test_an_item_loses_author_and_content_and_is_closed(self) -> None:
        case = Case()
        case.do("lease", "ana")
        case.do("forget")
        assert (case.item.status, case.item.has_content, case.item.author_id) == ("closed", False, None)
        assert b"u-17" not in encoded(case.item)
        assert b"message 1" not in encoded(case.item)

    def test_an_item_loses_the_words_of_its_appeal_and_the_key_that_may_name_the_author(self) -> None:
        case = Case()
        case.do("decide", "ana", decision="block")
        case.do("appeal", "coop", note="I am Jane, and it was a quote.")
        case.do("forget")
        assert case.item.appeal is None
        assert base64.b64decode(case.item.key).decode() == case.item.verdict_id

    def test_a_decision_that_can_still_be_undone_takes_effect_first(self) -> None:
        case = Case(terms=TERMS)
        case.do("decide", "ana", decision="block")
        change = case.do("forget")
        assert change.actions == ("published", "forgotten")
        assert (case.item.status, case.item.current_decision) == ("decided", "block")
        assert b"u-17" not in encoded(case.item)


def test_the_state_keeps_its_contract_and_is_read_as_it_was_written() -> None:
    case = Case(FOUR_EYES, TERMS)
    case.do("lease", "ana")
    case.do("decide", "ana", decision="block", note="n", severity="Unsafe", categories=["Violent"])
    state = ReviewState.model_validate_json(encoded(case.item))
    assert state.pending is not None
    assert state.content is not None
    assert decoded(encoded(case.item)) == case.item
    newer = encoded(case.item).replace(b'{"verdict_id"', b'{"from_the_future":1,"verdict_id"', 1)
    assert decoded(newer) == case.item


KINDS = [
    "lease",
    "release",
    "view",
    "decide",
    "undo",
    "skip",
    "reopen",
    "appeal",
    "settle",
    "end_lease",
    "expire",
    "forget",
]


@examples(
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from(["ana", "bob", "sue", "sam", "coop", "guardline"]),
            st.sampled_from(["allow", "block", "escalate"]),
            st.sampled_from([0, 1_000, 6_000, 3 * MINUTE, 70 * MINUTE]),
        ),
        max_size=40,
    ),
)
def test_no_sequence_of_commands_breaks_the_rules(is_four_eyes: bool, wanted: list[tuple[str, str, str, int]]) -> None:
    """Each superseding verdict follows the last one, comes from enough people, and from none that it may not."""
    tenant = FOUR_EYES if is_four_eyes else TENANT
    item: Item | None = opened(tenant)
    now, chain = NOW, [review_item(1)["verdict_id"]]
    for kind, by, decision, later in wanted:
        now += later
        fields = {"decision": decision} if kind == "decide" else {}
        before = item
        try:
            item = applied(before, given(command(kind, by, **fields), now, TERMS, tenant)).item
        except Refusal:
            assert item is before
            continue
        if item is None:
            return
        assert decoded(encoded(item)) == item
        if before is not None and item.current != before.current:
            assert item.previous == chain[-1]
            chain.append(item.current)
            people = {opinion.by for opinion in item.settled}
            assert len(people) >= (2 if is_four_eyes else 1)
            assert people <= {"ana", "bob", "sue", "sam"}
            if item.appeal is not None:
                assert not people & set(item.deciders)
        if item.status == "closed":
            assert not item.has_content
        if item.is_waiting:
            assert item.has_content
        assert item.lease is None or item.is_waiting
    assert len(set(chain)) == len(chain)
