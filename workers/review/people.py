"""Who may use the review worker: tokens, and what each role may do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from schemas.review_command import ReviewRole
from workers.process.bearer import Bearers, TokenFile
from workers.review.queues import Reader, language_of
from workers.settings import ReviewToken

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
    """The tokens of the settings, and the people who have them."""

    def __init__(self, tokens: Sequence[ReviewToken]) -> None:
        """Read the files.

        Raises:
            Misconfigured: a file cannot be read, or a token is too short, or two tokens are equal.
        """
        self._people = Bearers("review.tokens", [TokenFile(token.name, token.file, _person(token)) for token in tokens])

    def person(self, token: str) -> Person | None:
        """Give the person with this token; None if it is not valid."""
        return self._people.owner(token)

    def named(self, name: str) -> Person | None:
        """Give the person of this name."""
        return next((person for _, person in self._people.hashed if person.name == name), None)

    def hashes_of(self, name: str) -> list[bytes]:
        """Give the hashes of the tokens of a person. They sign the person's sessions."""
        return [known for known, person in self._people.hashed if person.name == name]


def _person(token: ReviewToken) -> Person:
    return Person(
        token.name,
        ReviewRole(token.role),
        Reader(
            token.name,
            token.role == "senior",
            frozenset(token.tenants),
            frozenset(language_of(language) for language in token.languages),
        ),
    )
