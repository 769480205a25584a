"""A stand-in for the API of the DSA Transparency Database: it enforces the rules that the database publishes.

The rules are those of the documentation of the API and of the validation in the database's public source
(digital-services-act/transparency-database: `StatementStoreRequest`, `GroupedSubmissionsService`,
`PlatformUniqueIdService`), as of June 2026. It shares no code with the conversion that it checks.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from aiohttp import web

TOKEN = "7|stand-in"

VISIBILITY_NAMES = (
    "CONTENT_REMOVED CONTENT_DISABLED CONTENT_DEMOTED CONTENT_AGE_RESTRICTED CONTENT_INTERACTION_RESTRICTED "
    "CONTENT_LABELLED OTHER"
)
VISIBILITIES = {f"DECISION_VISIBILITY_{name}" for name in VISIBILITY_NAMES.split()}
CONTENT_TYPES = {
    f"CONTENT_TYPE_{name}" for name in ["APP", "AUDIO", "IMAGE", "PRODUCT", "SYNTHETIC_MEDIA", "TEXT", "VIDEO", "OTHER"]
}
CATEGORY_NAMES = (
    "ANIMAL_WELFARE CONSUMER_INFORMATION CYBER_VIOLENCE CYBER_VIOLENCE_AGAINST_WOMEN "
    "DATA_PROTECTION_AND_PRIVACY_VIOLATIONS ILLEGAL_OR_HARMFUL_SPEECH INTELLECTUAL_PROPERTY_INFRINGEMENTS "
    "NEGATIVE_EFFECTS_ON_CIVIC_DISCOURSE_OR_ELECTIONS NOT_SPECIFIED_NOTICE OTHER_VIOLATION_TC PROTECTION_OF_MINORS "
    "RISK_FOR_PUBLIC_SECURITY SCAMS_AND_FRAUD SELF_HARM UNSAFE_AND_PROHIBITED_PRODUCTS VIOLENCE"
)
CATEGORIES = {f"STATEMENT_CATEGORY_{name}" for name in CATEGORY_NAMES.split()}
SOME_KEYWORDS = {"KEYWORD_ADULT_SEXUAL_MATERIAL", "KEYWORD_COPYRIGHT_INFRINGEMENT", "KEYWORD_OTHER"}
"""Of the database's 80: enough for the tests, since any other value is an error here."""

COUNTRY_NAMES = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK"
COUNTRIES = set(COUNTRY_NAMES.split())
SOME_LANGUAGES = {"DE", "EN", "FR", "PL", "ZH"}

CHOICES: dict[str, set[str]] = {
    "decision_ground": {"DECISION_GROUND_ILLEGAL_CONTENT", "DECISION_GROUND_INCOMPATIBLE_CONTENT"},
    "category": CATEGORIES,
    "source_type": {
        "SOURCE_ARTICLE_16",
        "SOURCE_TRUSTED_FLAGGER",
        "SOURCE_TYPE_OTHER_NOTIFICATION",
        "SOURCE_VOLUNTARY",
    },
    "automated_detection": {"Yes", "No"},
    "automated_decision": {
        "AUTOMATED_DECISION_FULLY",
        "AUTOMATED_DECISION_PARTIALLY",
        "AUTOMATED_DECISION_NOT_AUTOMATED",
    },
}
LISTS: dict[str, set[str]] = {
    "decision_visibility": VISIBILITIES,
    "content_type": CONTENT_TYPES,
    "category_addition": CATEGORIES,
    "category_specification": SOME_KEYWORDS,
    "territorial_scope": COUNTRIES,
}
REQUIRED = {*CHOICES, "content_type", "content_date", "application_date", "decision_facts", "puid"}
LENGTHS = {
    "puid": 500,
    "decision_facts": 5_000,
    "decision_ground_reference_url": 500,
    "illegal_content_legal_ground": 500,
    "illegal_content_explanation": 2_000,
    "incompatible_content_ground": 500,
    "incompatible_content_explanation": 2_000,
}
GROUNDS = {
    "DECISION_GROUND_ILLEGAL_CONTENT": ("illegal_content_legal_ground", "illegal_content_explanation"),
    "DECISION_GROUND_INCOMPATIBLE_CONTENT": ("incompatible_content_ground", "incompatible_content_explanation"),
}
DATES = {"content_date": date(2000, 1, 1), "application_date": date(2020, 1, 1)}


def errors_of(statement: dict[str, Any]) -> dict[str, list[str]]:
    """Return what the database says of each field of a statement; empty if it takes the statement."""
    errors: dict[str, list[str]] = {}

    def wrong(field: str, what: str) -> None:
        errors.setdefault(field, []).append(what.format(field.replace("_", " ")))

    required = REQUIRED | set(GROUNDS.get(statement.get("decision_ground", ""), ()))
    if not any(statement.get(f"decision_{kind}") for kind in ("visibility", "monetary", "provision", "account")):
        wrong("decision_visibility", "The {} field is required when no other decision is present.")
    for field in required:
        if not statement.get(field):
            wrong(field, "The {} field is required.")
    for field, choices in CHOICES.items():
        if statement.get(field) and statement[field] not in choices:
            wrong(field, "The selected {} is invalid.")
    for field, choices in LISTS.items():
        held = statement.get(field)
        if held is not None and not isinstance(held, list):
            wrong(field, "The {} must be an array.")
        elif held and not set(held) <= choices:
            wrong(field, "The selected {} is invalid.")
    for field, length in LENGTHS.items():
        if len(statement.get(field) or "") > length:
            wrong(field, f"The {{}} must not be greater than {length} characters.")
    for field, earliest in DATES.items():
        if (written := statement.get(field)) and not _is_date(written, earliest):
            wrong(field, "The {} does not match the format YYYY-MM-DD, or is out of range.")
    if (puid := statement.get("puid")) and not re.fullmatch(r"[a-zA-Z0-9_-]+", puid):
        wrong("puid", "The {} format is invalid.")
    if (url := statement.get("decision_ground_reference_url")) and not url.startswith(("https://", "http://")):
        wrong("decision_ground_reference_url", "The {} must be a valid URL.")
    if (language := statement.get("content_language")) and language not in SOME_LANGUAGES:
        wrong("content_language", "The selected {} is invalid.")
    return errors


def _is_date(written: str, earliest: date) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", written):
        return False
    return earliest <= date.fromisoformat(written) <= date(2038, 1, 1)


class Database:
    """Takes statements at `/api/v1/statements`: all of a call, or none.

    `answers` are given first, one for each call, as (status, body, headers) or None for a real answer.
    """

    def __init__(self) -> None:
        self.statements: dict[str, dict[str, Any]] = {}
        self.calls: list[list[str]] = []
        self.answers: list[tuple[int, Any, dict[str, str]] | None] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Database:
        app = web.Application(client_max_size=16_000_000)
        app.router.add_post("/api/v1/statements", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """The URL of the API."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    async def _take(self, request: web.Request) -> web.Response:
        document = await request.json()
        statements = document.get("statements")
        self.calls.append([str(one.get("puid")) for one in statements or []])
        if (answer := self.answers.pop(0) if self.answers else None) is not None:
            status, body, headers = answer
            return web.json_response(body, status=status, headers=headers)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"message": "Unauthenticated."}, status=401)
        if request.headers.get("Accept") != "application/json":
            return web.Response(status=302, headers={"Location": "/"})  # As the framework does for a browser.
        if not isinstance(statements, list) or not 1 <= len(statements) <= 100:
            return _invalid({"errors": {"statements": ["The statements field must have between 1 and 100 items."]}})
        errors = {f"statement_{place}": found for place, one in enumerate(statements) if (found := errors_of(one))}
        if errors:
            return _invalid({"errors": errors})
        if doubled := self._doubled([one["puid"] for one in statements]):
            said = "The platform identifier(s) are not all unique within this call."
            return _invalid({"message": said, "errors": {"puid": [said], "existing_puids": doubled}})
        self.statements.update({one["puid"]: one for one in statements})
        return web.json_response({"statements": statements}, status=201)

    def _doubled(self, puids: Sequence[str]) -> list[str]:
        within = [puid for puid, count in Counter(puids).items() if count > 1]
        return within or [puid for puid in puids if puid in self.statements]


def _invalid(body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=422)


@contextmanager
def running(database: Database) -> Iterator[Database]:
    """Run the stand-in in a thread of its own while the block runs, for workers that are processes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(database.__aenter__(), loop).result(20)
        yield database
    finally:
        asyncio.run_coroutine_threadsafe(database.__aexit__(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
