"""One Chromium for all tests; each test has its own desk, and its own browser session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.page.local import LocalDesk, token_of

WAIT_MS = 30_000


class Person:
    """Somebody in front of a browser. `complaints` are the errors of the page, `hosts` where its requests went."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        self.hosts: set[str] = set()
        page.set_default_timeout(WAIT_MS)
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}"))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)

    def _asked(self, request: Request) -> None:
        self.hosts.add(request.url.split("/")[2] if "//" in request.url else request.url.split(":")[0])

    def sign_in(self, name: str = "mara", path: str = "/review/") -> Page:
        self.page.goto(self.address + path)
        self.page.get_by_label("Your token").fill(token_of(name))
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_selector("h1:not(:has-text('Sign in'))")
        return self.page

    def take(self) -> Page:
        self.page.get_by_role("button", name="Next item").first.click()
        self.page.wait_for_selector("#decide")
        return self.page


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=which("chromium") or "/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Person]]:
    """Open a browser session at a desk."""
    with ExitStack() as ends:
        addresses: dict[int, str] = {}

        def opened(desk: LocalDesk, **options: Any) -> Person:
            if id(desk) not in addresses:
                addresses[id(desk)] = ends.enter_context(desk.served())
            context = chromium.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
            ends.callback(context.close)
            return Person(context.new_page(), addresses[id(desk)])

        yield opened


@pytest.fixture
def desk(tmp_path: Path) -> LocalDesk:
    return LocalDesk(tmp_path)
