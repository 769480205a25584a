"""Turns a verdict into a statement of reasons for the DSA Transparency Database. Pure.

A statement is public. So no field of a verdict that holds a name, an id of a person, content or a note becomes a part
of it: its sentences are made of closed sets and of the settings only. Fields, values and limits are those of the
database's API since July 2025: https://transparency.dsa.ec.europa.eu/page/api-documentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from schemas.taxonomy import Category, Decision, Severity
from workers.settings.dsa_sections import Clause, StatementCategory, Statements

CATEGORIES: Mapping[Category, StatementCategory] = {
    Category.VIOLENT: "VIOLENCE",
    Category.NON_VIOLENT_ILLEGAL_ACTS: "OTHER_VIOLATION_TC",
    Category.SEXUAL_CONTENT: "OTHER_VIOLATION_TC",
    Category.PII: "DATA_PROTECTION_AND_PRIVACY_VIOLATIONS",
    Category.SUICIDE_AND_SELF_HARM: "SELF_HARM",
    Category.UNETHICAL_ACTS: "ILLEGAL_OR_HARMFUL_SPEECH",
    Category.POLITICALLY_SENSITIVE_TOPICS: "NEGATIVE_EFFECTS_ON_CIVIC_DISCOURSE_OR_ELECTIONS",
    Category.COPYRIGHT_VIOLATION: "INTELLECTUAL_PROPERTY_INFRINGEMENTS",
    Category.JAILBREAK: "OTHER_VIOLATION_TC",
}
KEYWORDS: Mapping[Category, str] = {
    Category.SEXUAL_CONTENT: "KEYWORD_ADULT_SEXUAL_MATERIAL",
    Category.COPYRIGHT_VIOLATION: "KEYWORD_COPYRIGHT_INFRINGEMENT",
}

LANGUAGE_NAMES = (
    "AA AB AF AK AM AN AR AS AV AY AZ BA BE BG BH BI BM BN BO BR BS CA CE CH CO CR CS CU CV CY DA DE DV DZ EE EL EN "
    "EO ES ET EU FA FF FI FJ FO FR FY GA GD GL GN GU GV HA HE HI HO HR HT HU HY HZ IA ID IE IG IK IO IS IT IU JA JV "
    "KA KG KI KJ KK KL KM KN KO KR KS KU KV KW KY LA LB LG LI LN LO LT LU LV MG MH MI MK ML MN MR MS MT MY NA NB ND "
    "NE NG NL NN NO NR NV NY OC OJ OM OR OS PA PI PL PS PT QU RM RN RO RU RW SA SC SD SE SG SI SK SL SM SN SO SQ SR "
    "SS ST SU SV SW TA TE TG TH TI TK TL TN TO TR TS TT TW TY UG UK UR UZ VE VI VO WA WO XH YI YO ZA ZH ZU"
)
LANGUAGES = frozenset(LANGUAGE_NAMES.split())
"""The values of `content_language` that the database takes."""

EARLIEST_CONTENT, EARLIEST_DECISION, LATEST = date(2000, 1, 1), date(2020, 1, 1), date(2038, 1, 1)
"""The dates that the database takes."""


def is_restriction(verdict: Mapping[str, Any]) -> bool:
    """Say whether a verdict restricts a text that was not restricted before.

    A person who confirms a `block` restricts nothing anew: that decision has its statement. The database takes no
    statement about a restriction that ends.
    """
    return verdict["decision"] == Decision.BLOCK and verdict.get("superseded_decision") != Decision.BLOCK


def puid_of(verdict: Mapping[str, Any]) -> str:
    """Return the statement's id at the platform: 32 hexadecimal digits, the same whenever the decision is converted.

    A repeat of an event has the id of the first verdict on the event, so that one restriction has one statement.
    """
    if verdict.get("supersedes") is None and verdict.get("duplicate_of") is not None:
        return str(verdict["duplicate_of"])
    return str(verdict["verdict_id"])


def statement_of(verdict: Mapping[str, Any], at_ms: int, settings: Statements) -> dict[str, Any] | None:
    """Return the statement of a verdict (a `schemas.verdict.Verdict` as a dict), or None if none is due.

    `at_ms`: when the verdict was written, in milliseconds since 1970-01-01 UTC.

    Raises:
        LookupError, TypeError, ValueError: the verdict lacks a field.
    """
    if not is_restriction(verdict):
        return None
    assessment: Mapping[str, Any] = verdict["assessment"] or {}
    corrected: Mapping[str, Any] = verdict.get("corrected") or {}
    is_detected = Severity(assessment.get("severity") or Severity.SAFE) is not Severity.SAFE
    is_human = verdict.get("supersedes") is not None
    found = _known(assessment.get("categories") or [])
    counted = found if corrected.get("categories") is None else _known(corrected["categories"])
    clauses = [settings.by_category.get(category, Clause()) for category in counted] or [Clause()]
    categories = [clause.category or CATEGORIES[one] for one, clause in zip(counted, clauses, strict=False)]
    applied = _date(at_ms / 1000) or EARLIEST_DECISION
    statement: dict[str, Any] = {
        "puid": puid_of(verdict),
        "decision_visibility": [f"DECISION_VISIBILITY_CONTENT_{one.upper()}" for one in settings.restriction],
        "decision_ground": f"DECISION_GROUND_{settings.ground.upper()}",
        **_ground(settings, clauses[0]),
        "content_type": ["CONTENT_TYPE_TEXT"],
        "category": f"STATEMENT_CATEGORY_{categories[0] if categories else 'OTHER_VIOLATION_TC'}",
        "content_date": min(_content_date(verdict), applied).isoformat(),
        "application_date": max(applied, EARLIEST_DECISION).isoformat(),
        "decision_facts": _facts(verdict, found, corrected, is_human=is_human),
        "source_type": "SOURCE_VOLUNTARY",
        "automated_detection": "Yes" if is_detected or not is_human else "No",
        "automated_decision": f"AUTOMATED_DECISION_{_automation(is_human=is_human, is_detected=is_detected)}",
        "territorial_scope": settings.countries,
    }
    if additions := sorted({f"STATEMENT_CATEGORY_{one}" for one in categories} - {statement["category"]}):
        statement["category_addition"] = additions
    if keywords := sorted({KEYWORDS[one] for one in counted if one in KEYWORDS}):
        statement["category_specification"] = keywords
    if settings.reference_url is not None:
        statement["decision_ground_reference_url"] = settings.reference_url
    language = str(verdict.get("language") or "").partition("-")[0].upper()
    if settings.names_language and language in LANGUAGES:
        statement["content_language"] = language
    return statement


def _known(names: Iterable[str]) -> list[Category]:
    """Leave out categories of later versions."""
    return [Category(name) for name in names if name in set(Category)]


def _ground(settings: Statements, clause: Clause) -> dict[str, str]:
    reference, explanation = clause.reference or settings.reference, clause.explanation or settings.explanation
    if settings.ground == "illegal_content":
        return {"illegal_content_legal_ground": reference, "illegal_content_explanation": explanation}
    return {"incompatible_content_ground": reference, "incompatible_content_explanation": explanation}


def _automation(*, is_human: bool, is_detected: bool) -> str:
    """Say how the decision was taken, after the detection."""
    if not is_human:
        return "FULLY"
    return "PARTIALLY" if is_detected else "NOT_AUTOMATED"


def _facts(verdict: Mapping[str, Any], found: list[Category], corrected: Mapping[str, Any], *, is_human: bool) -> str:
    """Say what the decision relies on, in standard sentences."""
    assessment = verdict["assessment"]
    if assessment is None:
        sentences = ["The automated classifier could not assess the text."]
    else:
        said = _named(Severity(assessment["severity"]), found)
        sentences = [f"An automated classifier assessed the text as {said}."]
    if is_human:
        if corrected.get("severity") is not None:
            said = _named(Severity(corrected["severity"]), _known(corrected.get("categories") or []))
            sentences.append(f"A person found it {said}.")
        sentences.append("A person reviewed the text and took the decision.")
    else:
        sentences.append(
            "The moderation rules of the provider restrict such texts. No person took part in the decision."
        )
    return " ".join(sentences)


def _named(severity: Severity, categories: list[Category]) -> str:
    return f"{severity.value} ({', '.join(categories)})" if categories else severity.value


def _content_date(verdict: Mapping[str, Any]) -> date:
    """Return the day on which the text was posted, in UTC: by the event, else by Kafka, else when it was read."""
    created_at, timestamp_ms = verdict.get("created_at"), verdict["source"].get("timestamp")
    return (
        (None if created_at is None else _date(_seconds(created_at)))
        or (None if timestamp_ms is None else _date(timestamp_ms / 1000))
        or _date(verdict["timings"]["received_at"] / 1000)
        or EARLIEST_DECISION
    )


def _seconds(written: str) -> float:
    """Return an RFC 3339 time as seconds since 1970; not a number for a leap second, which Python cannot represent."""
    try:
        return datetime.fromisoformat(written).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _date(seconds: float) -> date | None:
    """Return the day in UTC of a time since 1970, or None if the database takes no such day: a clock was wrong."""
    try:
        day = datetime.fromtimestamp(seconds, UTC).date()
    except (ValueError, OverflowError, OSError):
        return None
    return day if EARLIEST_CONTENT <= day <= LATEST else None
