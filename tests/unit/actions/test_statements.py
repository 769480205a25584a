"""Statements of reasons: the database takes each of them, and none holds what a verdict knows of a person."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.taxonomy import Category, Severity
from tests.dsa_database import CATEGORIES, errors_of
from tests.verdicts import AT_MS, CANARY, NAME, assessment, superseding, verdict
from workers.actions.statements import CATEGORIES as CHOSEN
from workers.actions.statements import puid_of, statement_of
from workers.settings.dsa_sections import Statements

SETTINGS = Statements(
    reference="Community rules, 3",
    explanation="The rules forbid texts that harm people.",
    territorial_scope=["EEA"],
)
severities, categories = st.sampled_from(list(Severity)), st.lists(st.sampled_from(list(Category)), unique=True)
times = st.sampled_from(
    [
        "2026-11-27T23:59:59.5Z",
        "2026-11-27T23:30:00-02:00",
        "1970-01-01T00:00:00Z",
        "2099-01-01T00:00:00Z",
        "2016-12-31T23:59:60Z",
    ]
)


def statement(document: dict[str, Any], settings: Statements = SETTINGS) -> dict[str, Any]:
    made = statement_of(document, AT_MS, settings)
    assert made is not None
    assert errors_of(made) == {}
    return made


def test_a_blocked_text_has_a_statement_with_all_that_the_database_requires() -> None:
    made = statement(verdict())
    facts = made.pop("decision_facts")
    assert facts == (
        "An automated classifier assessed the text as Unsafe (Violent). The moderation rules of the provider restrict "
        "such texts. No person took part in the decision."
    )
    assert made == {
        "puid": "0a" * 16,
        "decision_visibility": ["DECISION_VISIBILITY_CONTENT_REMOVED"],
        "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
        "incompatible_content_ground": "Community rules, 3",
        "incompatible_content_explanation": "The rules forbid texts that harm people.",
        "content_type": ["CONTENT_TYPE_TEXT"],
        "category": "STATEMENT_CATEGORY_VIOLENCE",
        "content_date": "2026-11-27",
        "application_date": "2026-11-28",
        "source_type": "SOURCE_VOLUNTARY",
        "automated_detection": "Yes",
        "automated_decision": "AUTOMATED_DECISION_FULLY",
        "content_language": "EN",
        "territorial_scope": SETTINGS.countries,
    }
    assert len(SETTINGS.countries) == 30


@given(
    st.builds(
        verdict,
        assessment=st.one_of(st.none(), st.builds(assessment, severities, categories)),
        supersedes=st.one_of(st.none(), st.just("0b" * 16)),
        superseded_decision=st.sampled_from([None, "allow", "review"]),
        corrected=st.one_of(
            st.none(),
            st.fixed_dictionaries({"severity": st.none() | severities, "categories": st.none() | categories}),
        ),
        note=st.just(f"{CANARY}: see the message"),
        decided_by=st.just(NAME),
        created_at=st.none() | times,
        language=st.sampled_from([None, "en", "zh-Hans", "tlh", "de-AT"]),
    )
)
def test_the_database_takes_every_statement_and_none_repeats_a_name_or_a_text(document: dict[str, Any]) -> None:
    assert CANARY not in json.dumps(statement(document)).lower()


@pytest.mark.parametrize(
    ("document", "automation", "detection"),
    [
        (verdict(), "FULLY", "Yes"),
        (verdict(assessment=None), "FULLY", "Yes"),
        (superseding("review"), "PARTIALLY", "Yes"),
        (superseding("allow"), "PARTIALLY", "Yes"),
        (superseding("allow", assessment=assessment("Safe", [])), "NOT_AUTOMATED", "No"),
        (superseding("review", assessment=None), "NOT_AUTOMATED", "No"),
    ],
)
def test_a_statement_says_how_much_of_the_decision_was_automated(
    document: dict[str, Any], automation: str, detection: str
) -> None:
    made = statement(document)
    assert made["automated_decision"] == f"AUTOMATED_DECISION_{automation}"
    assert made["automated_detection"] == detection
    assert ("No person" in made["decision_facts"]) == (automation == "FULLY")


@pytest.mark.parametrize(
    "document",
    [verdict(decision="allow"), verdict(decision="review"), superseding("block", "allow"), superseding("block")],
)
def test_no_statement_is_due_where_nothing_is_restricted_anew(document: dict[str, Any]) -> None:
    assert statement_of(document, AT_MS, SETTINGS) is None


def test_one_restriction_has_one_id_and_a_later_one_has_another() -> None:
    first, repeat = verdict(), verdict(verdict_id="0c" * 16, duplicate_of="0a" * 16)
    assert puid_of(first) == puid_of(repeat) == "0a" * 16
    later = superseding("allow", verdict_id="0d" * 16, duplicate_of="0a" * 16)
    assert puid_of(later) == "0d" * 16


def test_every_category_of_the_taxonomy_has_one_of_the_database() -> None:
    assert set(CHOSEN) == set(Category)
    assert {f"STATEMENT_CATEGORY_{name}" for name in CHOSEN.values()} <= CATEGORIES


def test_further_categories_are_additions_and_what_a_person_corrected_counts() -> None:
    found = [Category.SEXUAL_CONTENT, Category.PII, Category.JAILBREAK, Category.COPYRIGHT_VIOLATION]
    made = statement(verdict(assessment=assessment("Unsafe", found)))
    assert made["category"] == "STATEMENT_CATEGORY_OTHER_VIOLATION_TC"
    assert made["category_addition"] == [
        "STATEMENT_CATEGORY_DATA_PROTECTION_AND_PRIVACY_VIOLATIONS",
        "STATEMENT_CATEGORY_INTELLECTUAL_PROPERTY_INFRINGEMENTS",
    ]
    assert made["category_specification"] == ["KEYWORD_ADULT_SEXUAL_MATERIAL", "KEYWORD_COPYRIGHT_INFRINGEMENT"]
    corrected = {"severity": "Controversial", "categories": ["Suicide & Self-Harm"]}
    made = statement(superseding("review", corrected=corrected))
    assert made["category"] == "STATEMENT_CATEGORY_SELF_HARM"
    assert "A person found it Controversial (Suicide & Self-Harm)." in made["decision_facts"]


def test_the_settings_of_a_category_replace_the_general_ones() -> None:
    clause = {"reference": "Community rules, 7", "category": "CYBER_VIOLENCE"}
    settings = Statements.model_validate({**SETTINGS.model_dump(), "by_category": {"Violent": clause}})
    made = statement(verdict(), settings)
    assert (made["incompatible_content_ground"], made["category"]) == (
        "Community rules, 7",
        "STATEMENT_CATEGORY_CYBER_VIOLENCE",
    )
    assert made["incompatible_content_explanation"] == SETTINGS.explanation
    others = assessment("Unsafe", [Category.PII])
    assert statement(verdict(assessment=others), settings)["incompatible_content_ground"] == "Community rules, 3"


def test_a_platform_may_declare_another_ground_restriction_and_scope() -> None:
    settings = Statements(
        reference="Act 1",
        explanation="It is illegal.",
        territorial_scope=["DE", "EU"],
        ground="illegal_content",
        reference_url="https://platform.example/law",
        restriction=["demoted", "labelled"],
        names_language=False,
    )
    made = statement(verdict(), settings)
    assert made["illegal_content_legal_ground"] == "Act 1"
    assert made["decision_visibility"] == [
        "DECISION_VISIBILITY_CONTENT_DEMOTED",
        "DECISION_VISIBILITY_CONTENT_LABELLED",
    ]
    assert len(made["territorial_scope"]) == 27
    assert "content_language" not in made


@pytest.mark.parametrize(
    ("created_at", "timestamp", "day"),
    [
        ("2026-11-27T23:30:00-02:00", None, "2026-11-28"),
        ("1970-01-01T00:00:00Z", AT_MS - 86_400_000 * 3, "2026-11-25"),
        ("2016-12-31T23:59:60Z", None, "2026-11-27"),
        ("2037-01-01T00:00:00Z", None, "2026-11-28"),
        (None, None, "2026-11-27"),
    ],
)
def test_a_wrong_clock_makes_no_statement_that_the_database_refuses(
    created_at: str | None, timestamp: int | None, day: str
) -> None:
    source = {"topic": "t", "partition": 0, "offset": 0, "timestamp": timestamp}
    assert statement(verdict(created_at=created_at, source=source))["content_date"] == day


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": " "}, "at least 1 character"),
        ({"explanation": "x" * 2_001}, "at most 2000 characters"),
        ({"territorial_scope": []}, "at least 1 item"),
        ({"territorial_scope": ["DE", "US"]}, "number 2 is neither EU nor EEA"),
        ({"reference_url": "platform.example"}, "has to be an address"),
    ],
)
def test_settings_that_the_database_would_refuse_are_refused_at_start(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Statements.model_validate({**SETTINGS.model_dump(), **changes})
