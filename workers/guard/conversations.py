"""The orders of roles that events can have, on which the guard tries a template at start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, cycle, islice, product

from schemas.event import MAX_CONTEXT_TURNS
from schemas.taxonomy import Role

Roles = tuple[str, ...]

USUAL: tuple[Roles, ...] = ((Role.USER.value,), (Role.USER.value, Role.ASSISTANT.value))
"""A prompt, and a response to a prompt. The template of every guard shows these."""

ALL_UP_TO = 6
"""Up to this many turns, all 126 orders of roles are tried. Up to 33 turns there are 17 billion orders."""

LONGEST_PERIOD = 3
"""Longer conversations are tried if their roles repeat after at most this many turns."""

NAMED = 3
"""The number of orders that a log line names, the shortest first."""


def possible_roles() -> Iterator[Roles]:
    """Return orders of roles that events can have, the judged turn last: all short ones, and the regular long ones.

    Templates test the first turn, the last turn, a turn and the one before it, and the number of turns. A template that
    refuses another order and none of these would have to test more than that.
    """
    roles = tuple(role.value for role in Role)
    lengths = range(1, MAX_CONTEXT_TURNS + 2)
    short = chain.from_iterable(product(roles, repeat=length) for length in lengths[:ALL_UP_TO])
    patterns = chain.from_iterable(product(roles, repeat=period) for period in range(1, LONGEST_PERIOD + 1))
    long = (tuple(islice(cycle(pattern), length)) for pattern in patterns for length in lengths[ALL_UP_TO:])
    return iter(dict.fromkeys(chain(short, long)))


def sentence_on(refused: Mapping[Roles, str]) -> str:
    """Describe the orders of roles that a template does not show: the shortest ones, and the reason."""
    shortest = sorted(refused, key=len)[:NAMED]
    named = "; ".join(" ".join(roles) for roles in shortest)
    return f"{len(refused)} orders of roles, the shortest: {named} ({refused[shortest[0]]})"
