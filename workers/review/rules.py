"""The state machine of a review item: `applied` gives the item after a command. Pure: no I/O, no clock.

A command that is not permitted raises a `Refusal` and changes nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from schemas.review_command import ReviewCommand
from schemas.taxonomy import Decision
from schemas.verdict import Verdict
from workers.core.decide import carried
from workers.review import urgency
from workers.review.item import MAX_SKIPPED, NO_CONTENT, REPUBLISHED, Item, Lease, Opinion, Step, parsed, raw, with_step
from workers.review.permits import require_appellant, require_fewer, require_own_lease, require_turn, unknown
from workers.review.refusal import Refusal, conflict, not_allowed
from workers.review.terms import Change, Given
from workers.review.verdicts import MAX_NAMES_CHARS


def applied(item: Item | None, given: Given) -> Change:
    """Give the item after a command.

    Raises:
        Refusal: the command is not permitted. 404: there is no such item. 403: the role may not do this. 409: the
            item's state does not permit it. 422: something is missing.
    """
    kind = given.command.kind.value
    if item is None:
        if kind == "appeal":
            return _first_appeal(given)
        if kind == "arrive":
            return _arrive(given)
        raise unknown(given.command.verdict_id)
    if kind == "arrive":
        return Change(item, ())
    return _HANDLERS[kind](item, given)


def _arrive(given: Given) -> Change:
    return Change(_with_step(_opened(given, given.command.key or ""), given, "arrived"), ("arrived",))


def _opened(given: Given, key: str) -> Item:
    """Make an item of the document of a review item or a verdict. `key`: that of its record, in Base64."""
    document = given.document
    content = {name: document.get(name, default) for name, default in _CONTENT.items()} if "text" in document else None
    verdict = {name: value for name, value in document.items() if name not in ("text", "context")}
    if content is not None:
        verdict["attributes"] = carried(document.get("attributes") or {}, given.terms.carry_attributes)
    # A worker with a clock ahead of this one must not make an item wait longer than others.
    since = min(int(document["timings"]["received_at"]), given.now_ms)
    assessment = document.get("assessment")
    tenant = given.tenant
    reach = (document.get("attributes") or {}).get(tenant.reach_attribute) if tenant.reach_attribute else None
    categories = frozenset(assessment["categories"] if assessment else ())
    return Item(
        verdict_id=document["verdict_id"],
        tenant_id=document["tenant_id"],
        language=document.get("language"),
        status="open",
        key=key,
        opened_at=given.now_ms,
        waiting_since=since,
        due_at=since + tenant.sla_ms,
        turn_at=urgency.turn_at(since, tenant.sla_ms, urgency.urgency(assessment, reach)),
        current=document["verdict_id"],
        current_decision=document["decision"],
        verdict=raw(verdict),
        content=NO_CONTENT if content is None else raw(content),
        expires_at=None if tenant.retention_ms is None else since + tenant.retention_ms,
        four_eyes=bool(categories & tenant.four_eyes),
    )


_CONTENT: Mapping[str, Any] = {"text": "", "context": [], "attributes": {}}


def _lease(item: Item, given: Given) -> Change:
    command = given.command
    require_turn(item, given)
    if any(lease.command_id == command.command_id for lease in given.leases):
        raise conflict("the same request has taken another item already")
    require_fewer(command.by, len(given.leases), given.terms.max_leases)
    lease = Lease(command.by, command.command_id, given.now_ms, given.now_ms + given.terms.lease_ms)
    return Change(_with_step(replace(item, lease=lease), given, "leased"), ("leased",))


def _release(item: Item, given: Given) -> Change:
    require_own_lease(item, given)
    return Change(_with_step(replace(item, lease=None), given, "released"), ("released",))


def _view(item: Item, given: Given) -> Change:
    return Change(item, ("viewed",))


def _skip(item: Item, given: Given) -> Change:
    by = given.command.by
    require_own_lease(item, given)
    skipped = (*item.skipped_by, by) if by not in item.skipped_by else item.skipped_by
    after = replace(item, lease=None, skipped_by=skipped[-MAX_SKIPPED:])
    return Change(_with_step(after, given, "skipped"), ("skipped",))


def _decide(item: Item, given: Given) -> Change:
    command = given.command
    require_turn(item, given)
    if command.decision == "escalate" and item.status == "escalated":
        raise conflict("the item is escalated already: decide allow or block")
    opinion = Opinion(
        by=command.by,
        role=command.role.value,
        command_id=command.command_id,
        at=given.now_ms,
        decision=str(command.decision),
        note=command.note,
        severity=command.severity and command.severity.value,
        categories=None if command.categories is None else tuple(one.value for one in command.categories),
    )
    pending = replace(
        item,
        lease=None,
        pending=opinion,
        settles_at=given.now_ms + given.terms.undo_ms,
        # The category that a person finds counts like one that the model finds.
        four_eyes=item.four_eyes or bool(given.tenant.four_eyes.intersection(opinion.categories or ())),
    )
    decided = Change(_with_step(pending, given, "decided"), ("decided",))
    return decided if given.terms.undo_ms > 0 else _joined(decided, given)


def _undo(item: Item, given: Given) -> Change:
    pending = item.pending
    if pending is None:
        raise conflict("there is no decision to undo: its time to undo is over, or nobody has decided")
    if pending.by != given.command.by:
        raise conflict(f"{pending.by} has decided, and nobody else can undo that", by=pending.by, at_ms=pending.at)
    lease = Lease(given.command.by, given.command.command_id, given.now_ms, given.now_ms + given.terms.lease_ms)
    item = replace(item, pending=None, settles_at=None, lease=lease)
    return Change(_with_step(item, given, "undone"), ("undone",))


def _settle(item: Item, given: Given) -> Change:
    """Let a decision take effect: nobody has undone it."""
    if item.pending is None or item.settles_at is None:
        raise conflict("no decision waits to take effect")
    if given.now_ms < item.settles_at:
        raise conflict("the decision can still be undone")
    return _effect(item, given)


def _effect(item: Item, given: Given) -> Change:
    opinion = item.pending
    assert opinion is not None  # The callers have checked it.
    item = replace(item, pending=None, settles_at=None)
    if opinion.decision == "escalate":
        return Change(_with_step(replace(item, status="escalated"), given, "escalated", opinion), ("escalated",))
    opinions = (*item.opinions, opinion)
    item = replace(item, opinions=opinions)
    alike = tuple(one for one in opinions if one.decision == opinion.decision)
    if len({one.by for one in alike}) >= (2 if item.four_eyes else 1):
        return _decided(item, given, alike)
    if len(alike) < len(opinions):
        return Change(_with_step(replace(item, status="escalated"), given, "escalated", opinion), ("escalated",))
    item = replace(item, status="second_opinion")
    return Change(_with_step(item, given, "second_opinion", opinion), ("second_opinion",))


def _decided(item: Item, given: Given, opinions: tuple[Opinion, ...]) -> Change:
    last = opinions[-1]
    keep_ms = given.terms.keep_decided_ms if item.has_content else given.terms.keep_history_ms
    published = given.superseding_id(last.command_id)
    after = replace(
        item,
        status="decided",
        content=item.content if keep_ms > 0 else NO_CONTENT,
        expires_at=given.now_ms + (keep_ms or given.terms.keep_history_ms),
        settled=opinions,
        lease=None,
        previous=item.current,
        previous_decision=item.current_decision,
        current=published,
        current_decision=last.decision,
        published=(*item.published, published),
    )
    return Change(_with_step(after, given, "published", last), ("published",))


def _reopen(item: Item, given: Given) -> Change:
    if given.command.role.value != "senior":
        raise not_allowed("only a person with the role senior can reopen an item")
    if item.status not in ("decided",):
        raise conflict(f"the item is {item.status}: only a decided item can be reopened")
    if not item.has_content:
        raise conflict("the item has lost its content (review.keep_decided_hours): pass it with an appeal instead")
    return Change(_again(item, given, "reopened"), ("reopened",))


def _appeal(item: Item, given: Given) -> Change:
    command = given.command
    require_appellant(command)
    if item.appeal is not None and item.status not in ("decided", "closed"):
        raise conflict("an appeal of this item waits already")
    if item.status != "decided":
        because = "its author was forgotten, or its time was over" if item.status == "closed" else "nobody has decided"
        raise conflict(f"the item is {item.status}: {because}, so there is no decision to appeal against")
    if command.text is not None:
        item = replace(item, content=_passed(command))
    if not item.has_content:
        raise Refusal(422, "text: the worker does not have the content any more: pass it, so that people can read it")
    item = replace(item, appeal=command.note or "")
    return Change(_again(item, given, "appealed"), ("appealed",))


def _first_appeal(given: Given) -> Change:
    """Open an item for an appeal against a verdict of which the worker has none."""
    command = given.command
    require_appellant(command)
    if command.verdict is None:
        raise Refusal(
            404,
            f"the review worker does not know the verdict {command.verdict_id}: pass the verdict's record as "
            "`verdict`, and the content as `text`",
        )
    if command.verdict.verdict_id != command.verdict_id:
        raise Refusal(422, "verdict: its verdict_id is not the verdict_id of the appeal")
    if command.text is None:
        raise Refusal(422, "text: the worker does not have the content: pass it, so that people can read it")
    if command.key is None:
        raise Refusal(422, "key: pass the key of the verdict's record: the superseding verdict has the same")
    if command.verdict.decision is Decision.REVIEW:
        raise conflict("the verdict says review: nobody has decided, so there is no decision to appeal against")
    item = _opened(given, base64.b64encode(command.key.encode()).decode())
    item = replace(item, content=_passed(command), appeal=command.note or "", deciders=_deciders(command.verdict))
    return Change(_again(item, given, "appealed"), ("appealed",))


def _deciders(verdict: Verdict) -> tuple[str, ...]:
    """Give everybody who has decided about the event. Earlier versions wrote only `decided_by`."""
    named = verdict.decided_by
    if verdict.deciders or named is None:
        return tuple(verdict.deciders or ())
    if len(named) < MAX_NAMES_CHARS and "," not in named:
        return (named,)
    raise Refusal(
        422,
        "verdict: it has no deciders, and decided_by may name several people, so it is not known who may not decide "
        "the appeal. A version before this one wrote the verdict, or it is not as it is in the topic of verdicts",
    )


def _again(item: Item, given: Given, status: str) -> Item:
    """Put a decided item back into the queue."""
    tenant = given.tenant
    urgent = urgency.urgency(parsed(item.verdict).get("assessment"), None)
    item = replace(
        item,
        status=status,
        waiting_since=given.now_ms,
        due_at=given.now_ms + tenant.sla_ms,
        turn_at=urgency.turn_at(given.now_ms, tenant.sla_ms, urgent),
        expires_at=None if tenant.retention_ms is None else given.now_ms + tenant.retention_ms,
        opinions=(),
        deciders=item.everybody,
        skipped_by=(),
    )
    return _with_step(item, given, status)


def _passed(command: ReviewCommand) -> Any:
    context = [turn.model_dump(mode="json") for turn in command.context]
    return raw({"text": command.text or "", "context": context, "attributes": {}})


def _end_lease(item: Item, given: Given) -> Change:
    lease = item.lease
    if lease is None or lease.until > given.now_ms:
        raise conflict("no lease is over")
    return Change(_with_step(replace(item, lease=None), given, "lease_ended"), ("lease_ended",))


def _expire(item: Item, given: Given) -> Change:
    """Close an item, take the content of a decided one, or delete one without content, if its time is over."""
    if item.expires_at is None or given.now_ms < item.expires_at or item.pending is not None:
        raise conflict("the time of the item is not over")
    if item.status not in ("decided", "closed"):
        return Change(_closed(item, given, "expired"), ("expired",))
    if item.has_content:
        item = replace(item, content=NO_CONTENT, expires_at=given.now_ms + given.terms.keep_history_ms)
        return Change(_with_step(item, given, "expired"), ("expired",))
    return Change(None, ("deleted",))


def _forget(item: Item, given: Given) -> Change:
    """Remove the author, the content and the words of an appeal. A decision that waits to take effect does so first.

    The key of the record may name the author, so the item's id replaces it.
    """
    settled = _effect(item, given) if item.pending is not None else Change(item, ())
    after = settled.item
    assert after is not None  # A decision deletes no item.
    verdict = {**parsed(after.verdict), "author_id": None, "attributes": {}}
    if after.status == "decided":
        after = replace(after, content=NO_CONTENT, expires_at=given.now_ms + given.terms.keep_history_ms)
        after = _with_step(after, given, "forgotten")
    else:
        after = _closed(after, given, "forgotten")
    key = base64.b64encode(after.verdict_id.encode()).decode()
    after = replace(after, verdict=raw(verdict), appeal=None, key=key)
    return Change(after, (*settled.actions, "forgotten"))


def forgotten(arrived: Change, given: Given) -> Change:
    """Give the item of an author who was forgotten before the item was read: closed, without author and content."""
    assert arrived.item is not None  # An arrival deletes no item.
    after = _forget(arrived.item, given)
    return Change(after.item, (*arrived.actions, *after.actions))


def _republish(item: Item, given: Given) -> Change:
    """Write the newest superseding verdict again: `guardline review reconcile` has found that it is missing."""
    if not item.settled:
        raise conflict("nobody has decided: there is no superseding verdict to write again")
    # The step tells a repeated command from a new one.
    return Change(_with_step(item, given, REPUBLISHED), ("published",))


_HANDLERS: Mapping[str, Callable[[Item, Given], Change]] = {
    "lease": _lease,
    "release": _release,
    "view": _view,
    "decide": _decide,
    "undo": _undo,
    "skip": _skip,
    "reopen": _reopen,
    "appeal": _appeal,
    "settle": _settle,
    "end_lease": _end_lease,
    "expire": _expire,
    "forget": _forget,
    "republish": _republish,
}


def _closed(item: Item, given: Given, because: str) -> Item:
    item = replace(
        item,
        status="closed",
        content=NO_CONTENT,
        lease=None,
        closed_because=because,
        expires_at=given.now_ms + given.terms.keep_history_ms,
    )
    return _with_step(item, given, because)


def _with_step(item: Item, given: Given, action: str, opinion: Opinion | None = None) -> Item:
    command = given.command
    decision = opinion.decision if opinion is not None else command.decision
    by, role = command.by, command.role.value
    step = Step(given.now_ms, action, by, role, command.command_id, decision)
    return replace(item, history=with_step(item.history, step))


def _joined(first: Change, given: Given) -> Change:
    """Let a decision take effect at once."""
    assert first.item is not None  # A decision deletes no item.
    second = _effect(first.item, given)
    return Change(second.item, (*first.actions, *second.actions))
