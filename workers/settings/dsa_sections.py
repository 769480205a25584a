"""The settings of statements of reasons for the DSA Transparency Database: what a platform has to say of its own."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator

from schemas.taxonomy import Category
from workers.settings.section import Section

EUROPEAN_UNION_NAMES = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EUROPEAN_UNION = EUROPEAN_UNION_NAMES.split()
EUROPEAN_ECONOMIC_AREA = sorted([*EUROPEAN_UNION, "IS", "LI", "NO"])

AREAS = {"EU": EUROPEAN_UNION, "EEA": EUROPEAN_ECONOMIC_AREA}

Reference = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Explanation = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
StatementCategory = Literal[
    "ANIMAL_WELFARE",
    "CONSUMER_INFORMATION",
    "CYBER_VIOLENCE",
    "CYBER_VIOLENCE_AGAINST_WOMEN",
    "DATA_PROTECTION_AND_PRIVACY_VIOLATIONS",
    "ILLEGAL_OR_HARMFUL_SPEECH",
    "INTELLECTUAL_PROPERTY_INFRINGEMENTS",
    "NEGATIVE_EFFECTS_ON_CIVIC_DISCOURSE_OR_ELECTIONS",
    "NOT_SPECIFIED_NOTICE",
    "OTHER_VIOLATION_TC",
    "PROTECTION_OF_MINORS",
    "RISK_FOR_PUBLIC_SECURITY",
    "SCAMS_AND_FRAUD",
    "SELF_HARM",
    "UNSAFE_AND_PROHIBITED_PRODUCTS",
    "VIOLENCE",
]
Restriction = Literal["removed", "disabled", "demoted", "age_restricted", "interaction_restricted", "labelled"]


class Clause(Section):
    """What is different in the statements on texts of one category."""

    reference: Reference | None = None
    """replaces `reference`"""
    explanation: Explanation | None = None
    """replaces `explanation`"""
    category: StatementCategory | None = None
    """the database's category, such as `SCAMS_AND_FRAUD`, in the place of the one that Guardline chooses"""


class Statements(Section):
    """What the statements of reasons of a platform say, besides what a verdict says."""

    reference: Reference
    """the clause of your terms that a blocked text breaks, such as `Community rules, 3.1`; with `ground:
    illegal_content` the law. At most 500 characters"""
    explanation: Explanation
    """why a blocked text breaks this clause, in general words. At most 2,000 characters"""
    territorial_scope: list[str] = Field(min_length=1)
    """where the decision applies: `EU`, `EEA`, or countries of the EEA by two letters, such as `DE`"""
    ground: Literal["incompatible_content", "illegal_content"] = "incompatible_content"
    """`incompatible_content`: the text breaks your terms. `illegal_content`: it is illegal, which no model can
    establish"""
    reference_url: str | None = Field(None, max_length=500)
    """the address of the terms or of the law"""
    restriction: list[Restriction] = Field(["removed"], min_length=1)
    """what your platform does with a blocked text: `removed`, `disabled`, `demoted`, `age_restricted`,
    `interaction_restricted`, `labelled`"""
    names_language: bool = True
    """whether a statement names the language of the text, where the verdict has one"""
    by_category: dict[Category, Clause] = {}
    """another `reference`, `explanation` or `category` for the texts of a category, such as `Violent`"""

    @property
    def countries(self) -> list[str]:
        """The countries of `territorial_scope`, by two letters."""
        return sorted({country for name in self.territorial_scope for country in AREAS.get(name, [name])})

    @field_validator("territorial_scope")
    @classmethod
    def _check_scope(cls, scope: list[str]) -> list[str]:
        for number, name in enumerate(scope, 1):
            if name not in AREAS and name not in EUROPEAN_ECONOMIC_AREA:
                raise ValueError(f"number {number} is neither EU nor EEA nor a country of the EEA, such as DE")
        return scope

    @field_validator("reference_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None and not (url.startswith(("https://", "http://")) and urlsplit(url).hostname):
            raise ValueError("has to be an address, such as https://platform.example/terms")
        return url
