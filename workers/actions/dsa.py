"""The format `dsa`: statements of reasons for the DSA Transparency Database, up to 100 in one call.

The database takes all statements of a call or none. So an answer that names wrong statements, or those that it has
already, says of the others only that they were not taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from workers.actions.answers import wait_of
from workers.actions.delivery import Answer, Call, Delivery, Meaning, Result
from workers.actions.statements import statement_of
from workers.core.decide import compact
from workers.settings.action_sections import Kind
from workers.settings.dsa_sections import Statements

ATTEMPTS_TOGETHER = 3
"""After this many attempts a statement gets a call of its own: others that are wrong may have been in each call."""

MAX_SAID_CHARS = 500

BEARER = "Bearer "

ACCEPTED = Result(Meaning.ACCEPTED)
NOT_LOOKED_AT = "the database took none of the call's statements, because of others"


class Dsa:
    """Makes calls to the API of the database. The URL of the endpoint is that of the API, without `statements`."""

    max_batch = 100
    answer_bytes = 1_000_000
    names_authors = False

    def __init__(self, statements: Statements, headers: Callable[[], Mapping[str, str]]) -> None:
        """`headers` gives the headers of the settings as they are now; one of them has the token."""
        self._statements = statements
        self._headers = headers

    def body(self, kind: Kind, document: Mapping[str, Any], value: bytes, at_ms: int) -> bytes | None:
        """Return the statement of a verdict, or None if no statement is due. See `Format.body`."""
        if kind not in ("verdict", "superseding"):
            return None
        statement = statement_of(document, at_ms, self._statements)
        return None if statement is None else compact(statement)

    def call(self, batch: Sequence[Delivery], now_s: float) -> Call:
        """Return one call with the statements, each once. See `Format.call`."""
        headers = {
            **{name: _login(name, value) for name, value in self._headers().items()},
            "Content-Type": "application/json",
            "Accept": "application/json",  # Without it the database answers with a redirect.
        }
        return Call(b'{"statements":[%b]}' % b",".join(_by_puid(batch).values()), headers, path="statements")

    def read(self, batch: Sequence[Delivery], answer: Answer) -> Sequence[Result]:
        """See `Format.read`."""
        status = answer.status
        if status == 201:
            return [ACCEPTED] * len(batch)
        said = f"the database answered {status}"
        if status == 422:
            return _results(batch, answer.body, said)
        if status in (400, 413):
            return [_refused(said, is_single=len(batch) == 1)] * len(batch)
        # Every other answer is about the service or the token: the law asks for the statement all the same.
        return [Result(Meaning.FAILED, said, wait_of(answer.retry_after, time.time()))] * len(batch)


def _login(name: str, value: str) -> str:
    """Return a header's value. The file of the token need not hold the word `Bearer`."""
    return f"{BEARER}{value}" if name.lower() == "authorization" and not value.startswith(BEARER) else value


def _by_puid(batch: Sequence[Delivery]) -> dict[str, bytes]:
    """Return the statements by their ids. A call with one id twice would be refused as if the database had it."""
    return {orjson.loads(delivery.body)["puid"]: delivery.body for delivery in batch}


def _results(batch: Sequence[Delivery], body: bytes, said: str) -> Sequence[Result]:
    """Read an answer 422: it names statements by their places, or those that exist by their ids."""
    try:
        answer = orjson.loads(body)
        errors = answer.get("errors") or {}
        existing = {str(puid) for puid in errors.get("existing_puids") or []}
        existing.update(str(found) for found in [(answer.get("existing") or {}).get("puid")] if found is not None)
        wrong = {name: _fields(fields) for name, fields in errors.items() if name.startswith("statement_")}
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        existing, wrong = set(), {}
    places = {puid: f"statement_{place}" for place, puid in enumerate(_by_puid(batch))}
    if not existing & places.keys() and not wrong.keys() & set(places.values()):
        # Nothing says which statement is meant: each one gets a call of its own.
        return [_refused(said, is_single=len(batch) == 1)] * len(batch)
    results = []
    for delivery in batch:
        puid = orjson.loads(delivery.body)["puid"]
        if puid in existing:
            results.append(ACCEPTED)
        elif (fields := wrong.get(places[puid])) is not None:
            results.append(Result(Meaning.REFUSED, f"{said}: {fields}", is_about_content=True, is_single=True))
        else:
            alone = delivery.attempts >= ATTEMPTS_TOGETHER
            results.append(Result(Meaning.FAILED, NOT_LOOKED_AT, is_about_content=True, is_single=alone))
    return results


def _refused(said: str, *, is_single: bool) -> Result:
    """Return the result for a call that was refused as a whole: the statement itself is refused if it was alone."""
    meaning = Meaning.REFUSED if is_single else Meaning.FAILED
    return Result(meaning, said, is_about_content=True, is_single=True)


def _fields(errors: Mapping[str, Sequence[str]]) -> str:
    """Write the errors of a statement's fields as the database words them. A statement holds no personal data."""
    found = "; ".join(f"{field}: {' '.join(map(str, messages))}" for field, messages in errors.items())
    return "".join(char if char.isprintable() else " " for char in found)[:MAX_SAID_CHARS]
