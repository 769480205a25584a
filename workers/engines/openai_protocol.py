"""What a kind of server differs in, and what all of them have in common. Pure: nothing here talks to anybody.

Servers accept fields that they do not know without a word, so an answer counts only if it holds what was asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from workers.engines.engine import Refused
from workers.errors import Unavailable

Json = dict[str, Any]

LOWEST = -9_998
"""vLLM writes -9999 where a log-probability is minus infinity."""


BROKEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What comes of reading an answer that has another shape, or of numbers and depths beyond all bounds."""


class AnotherModel(Unavailable):
    """The answer is of another model than was asked for: nothing that the server says counts until it is checked."""


class Doubtful(Unavailable):
    """The server failed, perhaps because of the prompts. One that is well but for these refuses them."""


class KeyRefused(Doubtful):
    """The server refuses our key. Waiting does not heal that, but another server may take it."""


@dataclass(frozen=True)
class Served:
    """A model that a server offers."""

    weights: str
    """Where they come from: it changes when the server is started again with others under the same name."""
    room: int | None
    """Tokens that a prompt and its answer may have together; None: the server does not say."""


class ServerProtocol(Protocol):
    """The requests and answers of one kind of server. Its methods take and give plain JSON.

    Raises (what reads an answer):
        Unavailable: it does not hold everything that the request asks for.
        BROKEN: it has another shape.
    """

    name: str
    since: str
    """The first version that gives the log-probabilities of chosen tokens."""
    well_path: str
    """Answers with success when the server takes requests."""
    about_paths: Sequence[str]
    """Answer with what `served` needs besides the list of models."""
    ask_path: str
    weights_path: str | None
    """Asked after each answer, where answers do not name their model."""

    def served(self, models: Sequence[Json], about: Sequence[Json]) -> Mapping[str, Served]:
        """Return the models by name."""
        ...

    def weights_in(self, answer: Json) -> str:
        """Read the answer to `weights_path`, as `Served.weights`."""
        ...

    def score_request(self, model: str, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> Json:
        """Ask for the log-probabilities of the candidates after each prompt."""
        ...

    def scores_in(self, request: Json, answer: object) -> list[list[float] | Refused]:
        """Read the answer to `score_request`; a prompt without a number is refused."""
        ...

    def complete_request(self, model: str, prompts: Sequence[Sequence[int]], max_tokens: int) -> Json:
        """Ask for the greedy completion of each prompt, as token ids."""
        ...

    def completions_in(self, request: Json, answer: object) -> list[list[int]]:
        """Read the answer to `complete_request`; the end-of-text token that ended one is no part of it."""
        ...


def checked_row(values: Sequence[object]) -> list[float] | Refused:
    """Return the log-probabilities of one prompt, or refuse it where one cannot be a log-probability."""
    # As a number, `false` would be 0, which is certainty.
    row = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(row) != len(values) or not all(math.isfinite(value) and LOWEST < value <= 0 for value in row):
        return Refused("no_number", f"the server gave log-probabilities that are none: {list(values)}")
    return row


def checked_ids(ids: object) -> list[int]:
    """Return the token ids of one completion.

    Raises:
        Unavailable: they are none.
    """
    if not isinstance(ids, list) or not all(isinstance(index, int) and 0 <= index < 2**32 for index in ids):
        raise Unavailable(f"the server's answer lacks token ids: {str(ids)[:100]}")
    return ids


def message_in(body: bytes) -> str:
    """Find the sentence in an error's body, whose shape differs from server to server and from error to error."""
    text = body.decode("utf-8", "replace").strip()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = text
    for _ in range(3):
        if isinstance(document, dict):
            document = next((document[name] for name in ("error", "message", "detail") if document.get(name)), text)
    return str(document)[:300] or "no reason given"
