"""Who may use the review worker: tokens, and what each role may do."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from schemas.review_command import ReviewRole
from workers.errors import Misconfigured
from workers.review.queues import Reader, language_of
from workers.settings import ReviewToken, secret_files

MIN_TOKEN_CHARS = 32

READS_CONTENT = frozenset({ReviewRole.REVIEWER, ReviewRole.SENIOR})
DECIDES = frozenset({ReviewRole.REVIEWER, ReviewRole.SENIOR})
READS_ITEMS = frozenset({ReviewRole.REVIEWER, ReviewRole.SENIOR, ReviewRole.AUDITOR, ReviewRole.SERVICE})
APPEALS = frozenset({ReviewRole.SENIOR, ReviewRole.SERVICE})


class Person(NamedTuple):
    """Who makes a request: the name and the role of a token, and what the token shows."""

    name: str
    role: ReviewRole
    reader: Reader


class Tokens:
    """The tokens of the settings. Only hashes are kept, and every comparison takes the same time."""

    def __init__(self, tokens: Sequence[ReviewToken]) -> None:
        """Read the files.

        Raises:
            Misconfigured: a file cannot be read, or a token is too short, or two tokens are equal.
        """
        self._people: list[tuple[bytes, Person]] = []
        for token in tokens:
            person = Person(
                token.name,
                ReviewRole(token.role),
                Reader(
                    token.name,
                    token.role == "senior",
                    frozenset(token.tenants),
                    frozenset(language_of(language) for language in token.languages),
                ),
            )
            for value in _values(token):
                self._people.append((hash_of(value), person))
        if len({digest for digest, _ in self._people}) < len(self._people):
            raise Misconfigured("review.tokens: two files hold the same token: give everybody a token of their own")

    def person(self, token: str) -> Person | None:
        """Give the person with this token; None if it is not valid."""
        digest = hash_of(token)
        found = [person for known, person in self._people if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    def named(self, name: str) -> Person | None:
        """Give the person of this name."""
        return next((person for _, person in self._people if person.name == name), None)

    def hashes_of(self, name: str) -> list[bytes]:
        """Give the hashes of the tokens of a person. They sign the person's sessions."""
        return [known for known, person in self._people if person.name == name]


def _values(token: ReviewToken) -> list[str]:
    try:
        text = secret_files.read(token.file)
    except ValueError as error:
        raise Misconfigured(f"review.tokens: {token.name}: {error}") from None
    values = [line.strip() for line in text.splitlines() if line.strip()]
    if any(len(value) < MIN_TOKEN_CHARS for value in values):
        raise Misconfigured(
            f"review.tokens: {token.name}: {token.file} holds a token of fewer than {MIN_TOKEN_CHARS} characters: make "
            "one with `openssl rand -hex 32`"
        )
    return values


def hash_of(token: str) -> bytes:
    """Give the hash that is kept of a token."""
    return sha256(token.encode(errors="surrogatepass")).digest()
