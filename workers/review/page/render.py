"""Turns templates into answers, with the headers that keep foreign scripts, frames and caches out."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

ROOT = "/review"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Texts must not stay in a cache or on the screen of the next person.
    "Cache-Control": "no-store",
}

_TYPES = {"page.css": "text/css", "page.js": "text/javascript"}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("workers.review.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(root=ROOT, version=_version())
    return environment


@cache
def static(name: str) -> bytes | None:
    """Give a file of the page, None if there is none of this name."""
    return files("workers.review.page").joinpath("static", name).read_bytes() if name in _TYPES else None


def page(template: str, csrf: str | None = None, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page. `csrf` is the value that every form of the page sends back."""
    hidden = Markup('<input type="hidden" name="csrf" value="{}">').format(csrf or "")
    defaults = {"person": None, "notice": None}
    text = _environment().get_template(template).render({**defaults, **values, "csrf": lambda: hidden})
    # A lone surrogate in a name cannot be written as UTF-8.
    return HTMLResponse(text.encode("utf-8", "replace"), status, HEADERS)


def moved(path: str) -> RedirectResponse:
    """Send the browser to a page by GET."""
    return RedirectResponse(ROOT + path, 303, HEADERS)


def file(name: str) -> Response:
    """Answer with a file of the page. Its address has its version, so a browser may keep it."""
    content = static(name)
    if content is None:
        return Response(status_code=404, headers=HEADERS)
    headers = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}
    return Response(content, headers=headers, media_type=f"{_TYPES[name]}; charset=utf-8")


def _version() -> str:
    return sha256(b"".join(static(name) or b"" for name in _TYPES)).hexdigest()[:12]
