"""The application that the review worker serves: the API, the page, and the callbacks of Coop."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from workers.review.api import create_app
from workers.review.coop import Bridge
from workers.review.page.routes import Pages
from workers.review.people import Tokens
from workers.review.service import Service
from workers.settings import Review


def application(service: Service, tokens: Tokens, settings: Review, now_ms: Callable[[], int]) -> FastAPI:
    """Make the application.

    Raises:
        Misconfigured: the key of Coop cannot be used.
    """
    app = create_app(service, tokens, max_body_bytes=settings.max_body_bytes)
    app.include_router(Pages(service, tokens, settings.lease_s, now_ms).router())
    if settings.coop.public_key_file is not None:
        app.include_router(Bridge(settings.coop, service).router())
    return app
