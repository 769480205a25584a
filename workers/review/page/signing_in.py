"""Signs people in and out: asks for their token, and begins and ends their sessions."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from fastapi.responses import Response

from schemas.review_command import ReviewRole
from workers.process.bearer import hash_of
from workers.review.page import render
from workers.review.page.forms import Narrowed, form_of, is_local, own_path
from workers.review.page.notices import sentence_of
from workers.review.page.sessions import COOKIE, HOURS, Session, Sessions
from workers.review.people import READS_ITEMS, Person, Tokens
from workers.review.refusal import Refusal

OVER = "Your session is over. Sign in again. Nothing was recorded since your last page."


class SigningIn:
    """The form for the token, and the sessions of the people who sent a valid one."""

    def __init__(self, tokens: Tokens, now_ms: Callable[[], int]) -> None:
        self._tokens = tokens
        self._now_ms = now_ms
        self._sessions = Sessions()

    def session(self, request: Request) -> tuple[Person, Session] | None:
        """Give who is signed in."""
        now_s = self._now_ms() / 1000
        session = self._sessions.read(request.cookies.get(COOKIE), self._tokens.hashes_of, now_s)
        person = None if session is None else self._tokens.named(session.name)
        return None if session is None or person is None else (person, session)

    def to_sign_in(self, request: Request) -> Response:
        """Ask for the token, and come back to the page that was asked for."""
        to = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if request.method == "GET" and COOKIE not in request.cookies:
            return render.moved(f"/sign-in{Narrowed().query(to=to)}")
        return self._sign_in_page(to if request.method == "GET" else "", OVER, 401)

    async def get_sign_in(self, request: Request) -> Response:
        """Show the form for the token."""
        return self._sign_in_page(request.query_params.get("to", ""))

    async def sign_in(self, request: Request) -> Response:
        """Check the token, and begin a session."""
        try:
            form = await form_of(request)
            token, to = form.one("token"), form.one("to", 2_048)
        except Refusal as refusal:
            return self._sign_in_page("", sentence_of(refusal), refusal.status)
        person = self._tokens.person(token)
        if person is None:
            return self._sign_in_page(to, "This token is not valid.", 403)
        if person.role not in READS_ITEMS or person.role is ReviewRole.SERVICE:
            return self._sign_in_page(to, "This token is for software. People need a token of their own.", 403)
        answer = render.moved(own_path(to))
        answer.set_cookie(
            COOKIE,
            self._sessions.begin(person.name, hash_of(token), self._now_ms() / 1000),
            path=render.ROOT,
            secure=not is_local(request),
            httponly=True,
            samesite="strict",
        )
        return answer

    def end(self, session: Session) -> Response:
        """End a session."""
        self._sessions.end(session, self._now_ms() / 1000)
        answer = render.moved("/sign-in")
        answer.delete_cookie(COOKIE, path=render.ROOT)
        return answer

    def _sign_in_page(self, to: str, failed: str = "", status: int = 200) -> Response:
        return render.page("sign_in.html", None, status, title="Sign in", to=to, failed=failed, hours=HOURS)
