"""What people do with items: every request becomes a command in Kafka, and is answered after the command's commit.

The API and the page call it. It never changes an item itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import orjson
from msgspec.structs import replace
from pydantic import ValidationError

from schemas.event import Turn
from schemas.review_command import CommandKind, ReviewCommand, ReviewRole
from schemas.verdict import Verdict
from workers.core.records import Output
from workers.errors import Unavailable
from workers.review import views
from workers.review.desk import Desk, may_see
from workers.review.item import NO_CONTENT, Item
from workers.review.people import APPEALS, DECIDES, READS_CONTENT, Person
from workers.review.permits import require_fewer, unknown
from workers.review.processing import Processor, written
from workers.review.queues import language_of
from workers.review.reading import command_id
from workers.review.refusal import Refusal, conflict, not_allowed
from workers.settings import Review, Topics

ATTEMPTS = 3
"""How often `next` tries another item, if somebody took the first one in the meantime."""

COUNTED_MS = 1_000
"""How old the counts of the queues may be: 100,000 items take about 50 ms to count."""

NOT_STORED = (
    "Kafka has not stored the command in time (review.answer_s). Send the request again with the same Idempotency-Key: "
    "it takes effect once"
)


TOO_LARGE = (
    "the request is too large for topics.review_commands: send less context, or raise max.message.bytes of the topic"
)


class Service:
    """The review desk, for people with tokens. Owned by the event loop.

    Guarantee: a request that was answered is committed. A request without an answer may be repeated with the same key
    (`Idempotency-Key`), and takes effect once within the steps that the item's history keeps (`item.MAX_STEPS`). Every
    method raises `Refusal` if the request is not permitted.
    """

    def __init__(
        self,
        desk: Desk,
        processor: Processor,
        send: Callable[[Output], Awaitable[None]],
        settings: Review,
        topics: Topics,
        now_ms: Callable[[], int],
    ) -> None:
        self._desk = desk
        self._processor = processor
        self._send = send
        self._settings = settings
        self._topics = topics
        self._now_ms = now_ms
        self._counted: tuple[int, dict[tuple[str, str], views.QueueView]] = (-COUNTED_MS, {})

    async def next(
        self,
        person: Person,
        key: str | None = None,
        tenants: Collection[str] = (),
        languages: Collection[str] = (),
        *,
        with_skipped: bool = True,
    ) -> views.ItemView | None:
        """Give the item whose turn comes first, on lease; None if none waits. The item comes with its content.

        `with_skipped`: also an item that the person skipped, if no other one waits.
        """
        _require(person, DECIDES, "take items")
        causing = id_of(person, "next", key)
        read = {language_of(one) for one in languages}
        for attempt in range(ATTEMPTS):
            held = self._desk.leased_by(person.name)
            for item in held:
                if item.lease is not None and item.lease.command_id == causing:
                    return self._full(await self._give(person, item.verdict_id, CommandKind.LEASE, causing), person)
            # The rules check this again: requests of one person may come at the same time.
            require_fewer(person.name, len(held), self._settings.max_leases)
            reserved = self._desk.reserve(person.reader, tenants, read, with_skipped=with_skipped)
            if reserved is None:
                return None
            try:
                return self._full(await self._give(person, reserved.verdict_id, CommandKind.LEASE, causing), person)
            except Refusal as refusal:
                if refusal.status != 409 or attempt == ATTEMPTS - 1:
                    raise
            finally:
                self._desk.free(reserved.verdict_id)
        return None

    async def lease(self, person: Person, verdict_id: str, key: str | None = None) -> views.ItemView:
        """Take one item, and give it with its content."""
        _require(person, DECIDES, "take items")
        return await self._do(person, verdict_id, CommandKind.LEASE, key)

    async def item(self, person: Person, verdict_id: str) -> views.ItemView:
        """Give an item. For roles that see content, an audit record says that the person has seen it."""
        item = self.visible(person, verdict_id)
        if person.role in READS_CONTENT and item.has_content:
            item = await self._give(person, item.verdict_id, CommandKind.VIEW, secrets.token_hex(16))
        return self._full(item, person)

    def without_content(self, person: Person, verdict_id: str) -> views.ItemView:
        """Give an item without its content and without an audit record, so also while Kafka is down."""
        return self._full(replace(self.visible(person, verdict_id), content=NO_CONTENT), person)

    async def decide(
        self,
        person: Person,
        verdict_id: str,
        decision: str,
        *,
        note: str | None = None,
        severity: str | None = None,
        categories: list[str] | None = None,
        key: str | None = None,
        on_behalf_of: str | None = None,
    ) -> views.ItemView:
        """Decide. A service names the person of its own system who decided: software alone does not decide."""
        asking = person
        if person.role is ReviewRole.SERVICE and on_behalf_of is not None:
            person = person._replace(name=f"{person.name}:{on_behalf_of}", role=ReviewRole.REVIEWER)
        elif on_behalf_of is not None:
            raise not_allowed("person: only a token with the role service passes on the decisions of other people")
        elif person.role is ReviewRole.SERVICE:
            raise not_allowed("person: name the person who decided: the role service does not decide itself")
        _require(person, DECIDES, "decide")
        return await self._do(
            person,
            verdict_id,
            CommandKind.DECIDE,
            key,
            asking=asking,
            decision=decision,
            note=note,
            severity=severity,
            categories=categories,
        )

    async def undo(self, person: Person, verdict_id: str, key: str | None = None) -> views.ItemView:
        """Take the person's own decision back, and the item on lease again."""
        _require(person, DECIDES, "undo decisions")
        return await self._do(person, verdict_id, CommandKind.UNDO, key)

    async def skip(self, person: Person, verdict_id: str, key: str | None = None) -> views.ItemView:
        """Leave an item to others."""
        _require(person, DECIDES, "skip items")
        return await self._do(person, verdict_id, CommandKind.SKIP, key)

    async def release(self, person: Person, verdict_id: str, key: str | None = None) -> views.ItemView:
        """Give an item back. The person may get it again."""
        _require(person, DECIDES, "release items")
        return await self._do(person, verdict_id, CommandKind.RELEASE, key)

    async def reopen(
        self, person: Person, verdict_id: str, note: str | None = None, key: str | None = None
    ) -> views.ItemView:
        """Put a decided item back into the queue."""
        _require(person, frozenset({ReviewRole.SENIOR}), "reopen items")
        return await self._do(person, verdict_id, CommandKind.REOPEN, key, note=note)

    async def appeal(
        self,
        person: Person,
        verdict_id: str,
        reason: str,
        *,
        verdict: dict[str, Any] | None = None,
        record_key: str | None = None,
        text: str | None = None,
        context: list[Turn] | None = None,
        key: str | None = None,
    ) -> views.ItemView:
        """Put an item back into the queue, or open one for a verdict that never went to review."""
        _require(person, APPEALS, "appeal")
        root = self._desk.root_of(verdict_id)
        causing = id_of(person, CommandKind.APPEAL.value, key, root)
        known = self._desk.items.get(root)
        if known is not None and not may_see(person.reader, known):
            raise unknown(verdict_id)
        if known is None and verdict is not None:
            tenant_id = verdict.get("tenant_id")
            if person.reader.tenants and tenant_id not in person.reader.tenants:
                raise not_allowed("verdict: this token is for other tenants")
        item = await self._give(
            person,
            root,
            CommandKind.APPEAL,
            causing,
            brought=None if verdict is None else {"verdict": verdict},
            verdict=None if verdict is None else _verdict(verdict),
            note=reason,
            key=record_key,
            text=text,
            context=context or [],
        )
        return self._full(item, person)

    def beat(self, person: Person, verdict_id: str) -> views.LeaseView:
        """Lengthen a lease."""
        self.visible(person, verdict_id)
        now = self._now_ms()
        item = self._desk.beat(verdict_id, person.name, now + int(self._settings.lease_s * 1000), now)
        lease = item.lease
        assert lease is not None  # `beat` has lengthened it.
        return views.LeaseView(by=lease.by, since=lease.since, until=lease.until)

    def summary(self, person: Person, verdict_id: str) -> views.ItemSummary:
        """Give an item without its content and without an audit record."""
        return views.summary(self.visible(person, verdict_id), person, self._now_ms())

    def leases(self, person: Person) -> list[views.ItemSummary]:
        """Give the items that the person has on lease."""
        return [views.summary(item, person, self._now_ms()) for item in self._desk.leased_by(person.name)]

    def queues(self, person: Person) -> list[views.QueueView]:
        """Count the waiting items of each tenant and language that the person may see."""
        return [
            view
            for (tenant_id, language), view in sorted(self.counted().items())
            if person.reader.may_see(tenant_id, language)
        ]

    def counted(self) -> dict[tuple[str, str], views.QueueView]:
        """Count the waiting items of each tenant and language. The counts may be a second old."""
        now = self._now_ms()
        if now - self._counted[0] >= COUNTED_MS or now < self._counted[0]:
            self._counted = (now, _counts(self._desk, now))
        return self._counted[1]

    def visible(self, person: Person, verdict_id: str) -> Item:
        """Give an item if the person may see it."""
        item = self._desk.find(verdict_id)
        if not may_see(person.reader, item):
            raise unknown(verdict_id)
        return item

    def _full(self, item: Item, person: Person) -> views.ItemView:
        return views.full(item, person, self._now_ms())

    async def _do(
        self,
        person: Person,
        verdict_id: str,
        kind: CommandKind,
        key: str | None,
        asking: Person | None = None,
        **fields: Any,
    ) -> views.ItemView:
        """Write a command of a person. `asking`: whose request it is, if it is a system's for that person."""
        root = self.visible(person, verdict_id).verdict_id
        item = await self._give(person, root, kind, id_of(person, kind.value, key, root), **fields)
        return self._full(item, asking or person)

    async def _give(
        self,
        person: Person,
        root: str,
        kind: CommandKind,
        causing: str,
        brought: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Item:
        """Write a command, and wait until it was applied and committed."""
        known = self._desk.items.get(root)
        if known is not None and known.step_of(causing) is not None and not self._processor.is_pending(causing):
            if kind is CommandKind.DECIDE and known.is_undone(causing):
                raise conflict("the decision with this Idempotency-Key was undone: decide with a new key")
            # The request was repeated. No audit record says that the person sees the content now.
            lease = known.holder(self._now_ms())
            return known if lease is not None and lease.by == person.name else replace(known, content=NO_CONTENT)
        command = ReviewCommand(
            command_id=causing,
            verdict_id=root,
            kind=kind,
            by=person.name,
            role=person.role,
            at=self._now_ms(),
            **fields,
        )
        record = written(self._topics, command, brought)
        if self._processor.is_too_large(record):
            raise Refusal(413, TOO_LARGE)
        future = self._processor.expect(causing)
        try:
            async with asyncio.timeout(self._settings.answer_s):
                await self._send(record)
                item = await asyncio.shield(future)
        except (TimeoutError, Unavailable):
            self._processor.give_up(causing)
            raise Refusal(503, NOT_STORED) from None
        except asyncio.CancelledError:
            # The client has gone away, or another request with the same command gave up.
            if future.cancelled():
                raise Refusal(503, NOT_STORED) from None
            self._processor.give_up(causing)
            raise
        if item is None:
            raise unknown(root)
        return item


def id_of(person: Person, kind: str, key: str | None, root: str = "") -> str:
    """Give the id of a command: a request that is repeated with its key has the same."""
    return secrets.token_hex(16) if key is None else command_id("request", person.name, kind, root, key)


def _verdict(document: dict[str, Any]) -> Verdict:
    try:
        orjson.dumps(document)
        return Verdict.model_validate(document)
    except TypeError:
        raise Refusal(422, "verdict: holds half of a surrogate pair, which is not Unicode") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Refusal(422, f"verdict: {where}: {first['msg']}: pass the record of the topic of verdicts") from None


def _require(person: Person, roles: Collection[ReviewRole], what: str) -> None:
    if person.role not in roles:
        allowed = " or ".join(sorted(role.value for role in roles))
        raise not_allowed(f"the role {person.role.value} may not {what}: a token with the role {allowed} has to")


def _counts(desk: Desk, now_ms: int) -> dict[tuple[str, str], views.QueueView]:
    counts: dict[tuple[str, str], list[int]] = {}
    for item in desk.items.values():
        if not item.is_waiting or desk.is_hidden(item.verdict_id):
            continue
        place = (item.tenant_id, language_of(item.language))
        count = counts.setdefault(place, [0, 0, 0, 0, item.waiting_since])
        if item.lease is not None:
            count[2] += 1
        else:
            count[0] += 1
            count[1] += item.status == "escalated"
        count[3] += now_ms > item.due_at
        count[4] = min(count[4], item.waiting_since)
    return {
        (tenant_id, language): views.QueueView(
            tenant_id=tenant_id,
            language=language,
            waiting=waiting,
            escalated=escalated,
            leased=leased,
            overdue=overdue,
            oldest_since=oldest,
        )
        for (tenant_id, language), (waiting, escalated, leased, overdue, oldest) in counts.items()
    }
