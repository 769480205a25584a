"""The page: every request with its form, its session and its answer. The service does the rest, as for the API."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from schemas.taxonomy import Category, Severity
from schemas.verdict import MAX_NOTE_CHARS
from workers.review.page import render
from workers.review.page.forms import Draft, Form, Narrowed, draft_of, form_of, narrowed_by
from workers.review.page.notices import Notice, none_for, said, sentence_of
from workers.review.page.sessions import Session, is_same
from workers.review.page.signing_in import OVER, SigningIn
from workers.review.page.times import moment
from workers.review.page.view import WITH_NOTE, page_of, title_of
from workers.review.people import DECIDES, Person, Tokens
from workers.review.queues import UNKNOWN_LANGUAGE
from workers.review.refusal import Refusal
from workers.review.service import Service
from workers.review.views import ItemView
from workers.shown import printable

REFRESH_S = 15
PARTS_OF_LEASE = 3
"""How many heartbeats a browser sends within the length of a lease."""

NOT_YET = "Not recorded yet: Kafka has not stored it in time. Send it again in a moment: it takes effect once."

SKIPPED = "The skip is recorded. The next item could not be taken: take it in a moment."

PATH = "/items/{verdict_id}"

Handler = Callable[["Pages", Request], Awaitable[Response]]
Signed = Callable[["Pages", Request, Person, Session], Awaitable[Response]]


def _signed_in(handler: Signed) -> Handler:
    """Ask for a session first, and make a page of each refusal."""

    @wraps(handler)
    async def checked(self: Pages, request: Request) -> Response:
        found = self._signing_in.session(request)
        if found is None:
            return self._signing_in.to_sign_in(request)
        try:
            return await handler(self, request, *found)
        except Refusal as refusal:
            return self.problem(refusal, *found)

    return checked


class Pages:
    """The handlers of the page. `lease_s` is the length of a lease."""

    def __init__(self, service: Service, tokens: Tokens, lease_s: float, now_ms: Callable[[], int]) -> None:
        self._service = service
        self._lease_s = lease_s
        self._now_ms = now_ms
        self._signing_in = SigningIn(tokens, now_ms)

    def problem(self, refusal: Refusal, person: Person, session: Session) -> Response:
        """Show why nothing was done."""
        titles = {
            403: "You may not do this",
            404: "There is no such item",
            409: "Not recorded",
            503: "Not recorded yet",
        }
        title = titles.get(refusal.status, "Not recorded")
        return render.page(
            "problem.html", session.csrf, refusal.status, title=title, text=sentence_of(refusal), person=_who(person)
        )

    @_signed_in
    async def sign_out(self, request: Request, person: Person, session: Session) -> Response:
        """End the session."""
        await _checked_form(request, session)
        return self._signing_in.end(session)

    @_signed_in
    async def queues(self, request: Request, person: Person, session: Session) -> Response:
        """Show the queues, and what this person has on lease."""
        now_ms = self._now_ms()
        queues = self._service.queues(person)
        held = [
            {
                "verdict_id": item.verdict_id,
                "title": title_of(item),
                "where": printable(f"{item.tenant_id} · {item.language or 'language not known'}"),
                "until": moment(item.lease.until, now_ms) if item.lease else None,
            }
            for item in self._service.leases(person)
        ]
        return render.page(
            "queues.html",
            session.csrf,
            title="Queues",
            person=_who(person),
            notice=self._notice(request, person) or none_for(request, queues),
            queues=[
                {
                    "id": queue.tenant_id,
                    "code": queue.language,
                    "tenant": printable(queue.tenant_id),
                    "language": "" if queue.language == UNKNOWN_LANGUAGE else printable(queue.language),
                    "waiting": queue.waiting,
                    "escalated": queue.escalated,
                    "overdue": queue.overdue,
                    "oldest": None if queue.oldest_since is None else moment(queue.oldest_since, now_ms),
                }
                for queue in queues
                if queue.waiting
            ],
            figures={
                "waiting": sum(queue.waiting for queue in queues),
                "overdue": sum(queue.overdue for queue in queues),
                "in work": sum(queue.leased for queue in queues),
            },
            held=held,
            may_take=person.role in DECIDES,
            refresh_s=REFRESH_S,
        )

    @_signed_in
    async def find(self, request: Request, person: Person, session: Session) -> Response:
        """Go to the item of an id."""
        verdict_id = request.query_params.get("id", "").strip().lower()
        return render.moved(f"/items/{verdict_id}" if _is_id(verdict_id) else "/items/-")

    @_signed_in
    async def next(self, request: Request, person: Person, session: Session) -> Response:
        """Take the next item, and show it."""
        form = await _checked_form(request, session)
        narrowed = Narrowed(form.one("tenant"), form.one("language"))
        return await self._next(person, narrowed, key=form.one("key") or None)

    @_signed_in
    async def item(self, request: Request, person: Person, session: Session) -> Response:
        """Show an item."""
        item = await self._service.item(person, _id(request))
        notice = self._notice(request, person)
        if notice is not None and notice.undo and item.lease is not None and item.lease.by == person.name:
            notice = notice._replace(taken=item.verdict_id)
        return self._item_page(request, person, session, item, notice)

    @_signed_in
    async def decide(self, request: Request, person: Person, session: Session) -> Response:
        """Decide, escalate or skip, and show the next item."""
        form = await _checked_form(request, session)
        verdict_id, draft = _id(request), draft_of(form)
        decision = form.one("decision")
        try:
            if decision == "skip":
                await self._service.skip(person, verdict_id, draft.key or None)
            else:
                await self._decide(person, verdict_id, decision, draft)
        except Refusal as refusal:
            if refusal.status in (403, 404):
                raise
            return await self._refused(request, person, session, draft, refusal)
        key, narrowed = draft.key and f"{draft.key}-next", narrowed_by(request)
        done = "" if decision == "skip" else verdict_id
        try:
            # Without a click on `next`, an item that was skipped stays free for others.
            return await self._next(person, narrowed, key=key, done=done, with_skipped=False)
        except Refusal:
            # The decision or the skip is recorded: the page must not look as if it were not.
            return render.moved(f"/{narrowed.query(done=done, skipped='' if done else '1')}")

    @_signed_in
    async def undo(self, request: Request, person: Person, session: Session) -> Response:
        """Take the own decision back, and show the item again."""
        form = await _checked_form(request, session)
        item = await self._service.undo(person, _id(request))
        if _is_id(taken := form.one("taken")):
            with suppress(Refusal):  # Its lease may be over.
                await self._service.release(person, taken)
        return render.moved(f"/items/{item.verdict_id}{narrowed_by(request).query(undone='1')}")

    @_signed_in
    async def change(self, request: Request, person: Person, session: Session) -> Response:
        """Take one item, reopen it, or pass on an appeal, and show it."""
        form = await _checked_form(request, session)
        verdict_id, draft = _id(request), draft_of(form)
        change = request.path_params["change"]
        try:
            match change:
                case "lease":
                    item = await self._service.lease(person, verdict_id)
                case "release":
                    await self._service.release(person, verdict_id)
                    return render.moved("/")
                case "reopen":
                    item = await self._service.reopen(person, verdict_id, draft.note or None, draft.key or None)
                case "appeal":
                    item = await self._service.appeal(person, verdict_id, draft.note, key=draft.key or None)
                case _:
                    raise Refusal(404, "there is no such page")
        except Refusal as refusal:
            if refusal.status != 503 or change not in WITH_NOTE:
                raise
            return await self._refused(request, person, session, draft._replace(path=change), refusal)
        return render.moved(f"/items/{item.verdict_id}{narrowed_by(request).query()}")

    async def heartbeat(self, request: Request) -> Response:
        """Keep a lease. Scripts of the page ask for this, so the answer is JSON."""
        found = self._signing_in.session(request)
        if found is None:
            return JSONResponse({"detail": OVER}, 401, render.HEADERS)
        try:
            await _checked_form(request, found[1])
            lease = self._service.beat(found[0], _id(request))
        except Refusal as refusal:
            return JSONResponse({"detail": refusal.sentence}, refusal.status, render.HEADERS)
        until = moment(lease.until, self._now_ms())
        return JSONResponse({"iso": until.iso, "clock": until.clock}, headers=render.HEADERS)

    async def static(self, request: Request) -> Response:
        """Give the style or the script."""
        return render.file(request.path_params["name"])

    async def home(self, request: Request) -> Response:
        """Lead from the bare address of the worker to the page."""
        return render.moved("/")

    @_signed_in
    async def nothing(self, request: Request, person: Person, session: Session) -> Response:
        """Say that there is no such page."""
        raise Refusal(404, "there is no such page")

    async def _decide(self, person: Person, verdict_id: str, decision: str, draft: Draft) -> None:
        if decision not in ("allow", "block", "escalate"):
            raise Refusal(422, "choose allow, block or escalate")
        if draft.severity not in ("", *Severity) or not set(draft.categories) <= set(Category):
            raise Refusal(422, "the correction names a severity or a category that does not exist")
        await self._service.decide(
            person,
            verdict_id,
            decision,
            note=draft.note or None,
            severity=draft.severity or None,
            categories=list(draft.categories) or None,
            key=draft.key or None,
        )

    async def _refused(
        self, request: Request, person: Person, session: Session, draft: Draft, refusal: Refusal
    ) -> Response:
        """Show the item again, with what the person has filled in."""
        notice = Notice("problem", NOT_YET if refusal.status == 503 else sentence_of(refusal))
        item = None
        if refusal.status != 503:
            with suppress(Refusal):
                item = await self._service.item(person, _id(request))
        if item is None:  # Kafka is down, so nothing can record that the person sees the text.
            item = self._service.without_content(person, _id(request))
        return self._item_page(request, person, session, item, notice, draft, refusal.status)

    async def _next(
        self, person: Person, narrowed: Narrowed, *, key: str | None, done: str = "", with_skipped: bool = True
    ) -> Response:
        tenants, languages = narrowed.tenants, narrowed.languages
        item = await self._service.next(person, key or None, tenants, languages, with_skipped=with_skipped)
        if item is None:
            return render.moved(f"/{narrowed.query(done=done, none='1')}")
        return render.moved(f"/items/{item.verdict_id}{narrowed.query(done=done)}")

    def _item_page(
        self,
        request: Request,
        person: Person,
        session: Session,
        item: ItemView,
        notice: Notice | None,
        draft: Draft | None = None,
        status: int = 200,
    ) -> Response:
        shown = page_of(item, person, self._now_ms())
        if status == 503:
            shown = shown._replace(why_no_text="The text is not shown while Kafka does not answer.")
            if draft is not None and draft.path:
                shown = shown._replace(offers=[WITH_NOTE[draft.path]])
        draft = draft or Draft(key=secrets.token_hex(16))
        return render.page(
            "item.html",
            session.csrf,
            status,
            title=shown.title,
            person=_who(person),
            notice=notice,
            item=shown,
            draft=draft,
            query=narrowed_by(request).query(),
            narrowed={"tenant": request.query_params.get("tenant"), "language": request.query_params.get("language")},
            may_take=person.role in DECIDES,
            severities=[one.value for one in Severity],
            categories=[one.value for one in Category],
            note_chars=MAX_NOTE_CHARS,
            heartbeat_s=max(1, self._lease_s / PARTS_OF_LEASE),
        )

    def _notice(self, request: Request, person: Person) -> Notice | None:
        """Say what the last request has done. The address names the item; what is said comes from its state."""
        if request.query_params.get("undone"):
            return Notice("done", "Undone.")
        if request.query_params.get("skipped"):
            return Notice("done", SKIPPED)
        done = request.query_params.get("done", "")
        if not _is_id(done):
            return None
        try:
            item = self._service.summary(person, done)
        except Refusal:
            return None
        return said(item, person, self._now_ms())

    def router(self) -> APIRouter:
        """Give the routes."""
        router = APIRouter()
        for method, path, handler in (
            ("GET", "/static/{name}", self.static),
            ("GET", "/sign-in", self._signing_in.get_sign_in),
            ("POST", "/sign-in", self._signing_in.sign_in),
            ("POST", "/sign-out", self.sign_out),
            ("GET", "", self.queues),
            ("GET", "/", self.queues),
            ("GET", "/items", self.find),
            ("POST", "/next", self.next),
            ("GET", PATH, self.item),
            ("POST", f"{PATH}/decide", self.decide),
            ("POST", f"{PATH}/undo", self.undo),
            ("POST", f"{PATH}/heartbeat", self.heartbeat),
            ("POST", PATH + "/{change}", self.change),
            ("GET", "/{rest:path}", self.nothing),
        ):
            router.add_route(render.ROOT + path, handler, methods=[method], include_in_schema=False)
        router.add_route("/", self.home, methods=["GET"], include_in_schema=False)
        return router


async def _checked_form(request: Request, session: Session) -> Form:
    form = await form_of(request)
    if not is_same(session, form.one("csrf")):
        raise Refusal(403, "this form belongs to another session: open the page again")
    return form


def _who(person: Person) -> dict[str, Any]:
    return {"name": person.name, "role": person.role.value}


def _id(request: Request) -> str:
    verdict_id = str(request.path_params["verdict_id"])
    if not _is_id(verdict_id):
        raise Refusal(404, "this is not the id of a verdict: it has 32 characters, 0-9 and a-f")
    return verdict_id


def _is_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")
