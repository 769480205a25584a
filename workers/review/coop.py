"""Reads the callbacks of Coop: whose they are, and which decision they are.

Written after commit 1f1c54d of roostorg/coop. Signature: `docs/development/api-auth.md` and
`server/services/signingKeyPairService/signingKeyPairService.ts`. Actions: `docs/api/actions.md` and `publishAction` in
`server/rule_engine/ActionPublisher.ts`. Appeals and ignored reports: `server/iocContainer/index.ts`.

Coop signs the body and no time, so an old callback stays valid for ever. Repeated callbacks are harmless for another
reason: the id of the command is a hash of the body, and an appeal's callback names the verdict that was appealed.
"""

from __future__ import annotations

import base64
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from schemas.review_command import ReviewRole
from schemas.taxonomy import Category
from schemas.verdict import MAX_NOTE_CHARS
from workers.errors import Misconfigured
from workers.review.item import Item
from workers.review.people import Person
from workers.review.queues import Reader
from workers.review.refusal import Refusal, conflict
from workers.review.service import Service, id_of
from workers.review.views import ItemView
from workers.settings.coop_sections import CoopCallbacks

NAME = "coop"
AUTOMATIC = "coop:rules"
"""Who decided, if it was a rule in Coop."""
SHOWN_DIGITS = 8
"""How much of the appealed verdict's id the name has of whoever decides an appeal: Coop does not name the person."""

_OPPOSITE = {"allow": "block", "block": "allow"}


class Callback(NamedTuple):
    """What a callback says. `decision` is None for an appeal: then `is_accepted` counts, and `appealed` has to fit."""

    verdict_id: str
    by: str
    decision: str | None = None
    note: str | None = None
    categories: tuple[Category, ...] = ()
    appealed: str | None = None
    is_accepted: bool = False


class Signatures:
    """Checks signatures: RSASSA-PKCS1-v1_5 with SHA-256 over the raw body, by the public key that Coop shows."""

    def __init__(self, file: Path) -> None:
        """Read the key.

        Raises:
            Misconfigured: the file is no public key of RSA.
        """
        self._file = file
        try:
            self._key()
        except (OSError, ValueError) as error:
            raise Misconfigured(f"review.coop.public_key_file: {error}") from None

    def check(self, body: bytes, signature: str | None) -> None:
        """Check a callback. Reads the key's file again, because Coop's key can be replaced at any time.

        Raises:
            Refusal: 401, the signature is missing or not Coop's.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        if not signature:
            raise Refusal(401, "the header Coop-Signature is missing")
        try:
            key = self._key()
        except (OSError, ValueError):
            raise Refusal(503, "review.coop.public_key_file: the key cannot be read now") from None
        try:
            key.verify(base64.b64decode(signature, validate=True), body, PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):
            raise Refusal(401, "the header Coop-Signature is not Coop's signature of this body") from None

    def _key(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            text = self._file.read_bytes()
        except OSError as error:
            raise OSError(f"cannot read {self._file}: {error.strerror}") from None
        try:
            key = load_pem_public_key(text)
        except ValueError:
            raise ValueError(f"{self._file} is not a public key as PEM") from None
        if isinstance(key, RSAPublicKey):
            return key
        raise ValueError(f"{self._file} is not a key of RSA, which Coop signs with")


def read(body: bytes, settings: CoopCallbacks) -> Callback:
    """Read a callback: of an action, of an ignored report, or of an appeal.

    Raises:
        Refusal: 400: it is none of them. 422: no decision is set for the action.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise Refusal(400, "the body is not a JSON object")
    if "appealDecision" in document:
        return _appeal(document)
    if "action" in document:
        return _action(document, settings)
    if "typeId" in document and "data" in document:
        return Callback(_text(document, "id"), f"{NAME}:ignored", decision=settings.ignored)
    raise Refusal(400, "the body is no callback of an action, of an ignored report or of an appeal in Coop")


def decision_of(callback: Callback, item: Item, *, is_repeated: bool) -> str:
    """Give the decision that a callback means for its item.

    Raises:
        Refusal: 409, the callback does not belong to what the item waits for.
    """
    if callback.decision is None:
        if not is_repeated and (item.status != "appealed" or item.current != callback.appealed):
            raise conflict("the callback belongs to an appeal that does not wait any more")
        return _OPPOSITE[item.current_decision] if callback.is_accepted else item.current_decision
    if item.status == "appealed" and not is_repeated:
        raise conflict("the item waits for an appeal: only the callback of the appeal decides it")
    return callback.decision


class Bridge:
    """Makes a decision of each callback. Owned by the event loop.

    Guarantee: a callback that was answered with 200 is stored, and a repeated one changes nothing.
    """

    def __init__(self, settings: CoopCallbacks, service: Service) -> None:
        """Read the key.

        Raises:
            Misconfigured: there is none that can be used.
        """
        assert settings.public_key_file is not None  # The caller has checked it.
        self._settings = settings
        self._service = service
        self._signatures = Signatures(settings.public_key_file)

    async def take(self, body: bytes, signature: str | None) -> ItemView:
        """Check a callback, and decide.

        Raises:
            Refusal: nothing was changed.
        """
        self._signatures.check(body, signature)
        callback = read(body, self._settings)
        reader = Reader(callback.by, True, frozenset(self._settings.tenants))
        person = Person(callback.by, ReviewRole.SENIOR, reader)
        item = self._service.visible(person, callback.verdict_id)
        key = blake2b(body, digest_size=16, person=NAME.encode()).hexdigest()
        step = item.step_of(id_of(person, "decide", key, item.verdict_id))
        return await self._service.decide(
            person,
            item.verdict_id,
            decision_of(callback, item, is_repeated=step is not None),
            note=callback.note,
            categories=[*callback.categories] or None,
            key=key,
        )

    async def answer(self, request: Request) -> Response:
        """Answer `POST /v1/coop/callback`."""
        item = await self.take(await request.body(), request.headers.get("coop-signature"))
        return JSONResponse({"verdict_id": item.verdict_id, "status": item.status, "decision": item.current_decision})

    def router(self) -> APIRouter:
        """Give the route."""
        router = APIRouter()
        router.add_route("/v1/coop/callback", self.answer, methods=["POST"], include_in_schema=False)
        return router


def _action(document: dict[str, Any], settings: CoopCallbacks) -> Callback:
    action = document["action"]
    identity = action.get("id") if isinstance(action, dict) else None
    decision = settings.actions.get(str(identity))
    if decision is None:
        raise Refusal(422, "no decision is set for this action of Coop: name its id in review.coop.actions")
    policies = document.get("policies")
    found = [
        settings.policies.get(str(policy.get("id")))
        for policy in (policies if isinstance(policies, list) else [])
        if isinstance(policy, dict)
    ]
    note = document.get("decisionReason") or document.get("actorNote")
    return Callback(
        _item_id(document),
        _person(document.get("actorEmail")),
        decision=decision,
        note=str(note)[:MAX_NOTE_CHARS] if note else None,
        categories=tuple(dict.fromkeys(one for one in found if one is not None)),
    )


def _appeal(document: dict[str, Any]) -> Callback:
    verdict_id, dot, appealed = _text(document, "appealId").partition(".")
    if not dot:
        raise Refusal(404, "the appeal is not one that Guardline has sent")
    decision = document["appealDecision"]
    if decision not in ("ACCEPT", "REJECT"):
        raise Refusal(400, "appealDecision is neither ACCEPT nor REJECT")
    # Each appeal has a name of its own: one name could not decide a second appeal on the same item.
    by = f"{NAME}:appeals:{appealed[:SHOWN_DIGITS]}"
    return Callback(verdict_id, by, appealed=appealed, is_accepted=decision == "ACCEPT")


def _item_id(document: dict[str, Any]) -> str:
    item = document.get("item")
    if not isinstance(item, dict):
        raise Refusal(400, "item is missing")
    return _text(item, "id")


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise Refusal(400, f"{name} is missing, or is no text")
    return value


def _person(email: object) -> str:
    """Name a person in Coop without the e-mail address: verdicts are read by many. Coop itself knows who it was."""
    if not isinstance(email, str) or not email:
        return AUTOMATIC
    return f"{NAME}:{blake2b(email.lower().encode(), digest_size=6).hexdigest()}"
