"""Which orders of roles events can have, so that a template is tried on them before live traffic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, cycle, islice, product

from schemas.event import MAX_CONTEXT_TURNS
from schemas.taxonomy import Role

Roles = tuple[str, ...]

USUAL: tuple[Roles, ...] = ((Role.USER.value,), (Role.USER.value, Role.ASSISTANT.value))
"""A prompt, and the response to one: a template that does not show these is not a guard's."""

ALL_UP_TO = 6
"""Turns up to which all orders of roles are tried: 126. Up to 33 turns there are 17 billion."""

LONGEST_PERIOD = 3
"""Longer conversations are tried where their roles repeat after so many turns, whichever turn they begin with."""

NAMED = 3
"""How many orders a sentence names, the shortest first."""


def possible_roles() -> Iterator[Roles]:
    """Give orders of roles that events can have, the judged turn last: all short ones, and the regular long ones.

    Templates look at the first turn, at the last one, at a turn and the one before it, and at how many there are. One
    that refuses none of these orders and refuses another would have to count further than that.
    """
    roles = tuple(role.value for role in Role)
    lengths = range(1, MAX_CONTEXT_TURNS + 2)
    short = chain.from_iterable(product(roles, repeat=length) for length in lengths[:ALL_UP_TO])
    patterns = chain.from_iterable(product(roles, repeat=period) for period in range(1, LONGEST_PERIOD + 1))
    long = (tuple(islice(cycle(pattern), length)) for pattern in patterns for length in lengths[ALL_UP_TO:])
    return iter(dict.fromkeys(chain(short, long)))


def sentence_on(refused: Mapping[Roles, str]) -> str:
    """Say which orders of roles a template does not show, by the shortest of them, and why."""
    shortest = sorted(refused, key=len)[:NAMED]
    named = "; ".join(" ".join(roles) for roles in shortest)
    return f"{len(refused)} orders of roles, the shortest: {named} ({refused[shortest[0]]})"
