"""Reads the forms of the page, and where a request comes from."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode

from fastapi import Request

from schemas.verdict import MAX_NOTE_CHARS
from workers.review.page.render import ROOT
from workers.review.refusal import Refusal

MAX_FIELDS = 64


class Form:
    """The fields of a form. A field that is not there is empty."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def one(self, name: str, max_chars: int = 512) -> str:
        """Give a field, without spaces around it."""
        value = self._fields.get(name, [""])[0].strip()
        if len(value) > max_chars:
            raise Refusal(422, f"{name} has {len(value)} characters: at most {max_chars} are possible")
        return value

    def all(self, name: str) -> list[str]:
        """Give the values of a field that may be there several times."""
        return self._fields.get(name, [])


async def form_of(request: Request) -> Form:
    """Read a form.

    Raises:
        Refusal: it is no form, or another site has sent it.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refusal(403, "another site has sent this form")
    try:
        fields = parse_qs(
            (await request.body()).decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError:
        raise Refusal(400, "the form cannot be read") from None
    # A browser ends lines in a form by CR LF.
    return Form({name: [value.replace("\r\n", "\n") for value in values] for name, values in fields.items()})


class Draft(NamedTuple):
    """What a person has filled in, to be shown again after a refusal. `key` makes a repeated form harmless.

    `path` is that of the form if it is not the one to decide: `reopen` or `appeal`.
    """

    path: str = ""
    key: str = ""
    note: str = ""
    severity: str = ""
    categories: tuple[str, ...] = ()
    is_revealed: bool = False


def draft_of(form: Form) -> Draft:
    """Give what a person has filled in to decide."""
    return Draft(
        key=form.one("key", 64),
        note=form.one("note", MAX_NOTE_CHARS),
        severity=form.one("severity"),
        categories=tuple(dict.fromkeys(form.all("categories"))),
        is_revealed=bool(form.one("revealed")),
    )


def is_local(request: Request) -> bool:
    """Whether the browser is on this machine: only then does it keep a session without HTTPS."""
    host = request.url.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Narrowed:
    """The tenant and the language to which a person has narrowed the queue. Every link carries them."""

    def __init__(self, tenant: str = "", language: str = "") -> None:
        self._pairs = {name: value for name, value in (("tenant", tenant), ("language", language)) if value}

    @property
    def tenants(self) -> list[str]:
        """The tenant, or none for all."""
        return [self._pairs["tenant"]] if "tenant" in self._pairs else []

    @property
    def languages(self) -> list[str]:
        """The language, or none for all."""
        return [self._pairs["language"]] if "language" in self._pairs else []

    def query(self, **more: str) -> str:
        """Write the query of an address."""
        pairs = {**self._pairs, **{name: value for name, value in more.items() if value}}
        return f"?{urlencode(pairs)}" if pairs else ""


def narrowed_by(request: Request) -> Narrowed:
    """Read the query of an address."""
    return Narrowed(request.query_params.get("tenant", "")[:256], request.query_params.get("language", "")[:35])


def own_path(to: str) -> str:
    """Give the path to go to after signing in. An address of another site is not followed."""
    path = to.removeprefix(ROOT)
    is_own = to.startswith(f"{ROOT}/") and "//" not in to and "\\" not in to and to.isprintable() and to.isascii()
    return path if is_own and not path.startswith("/sign-") else "/"
