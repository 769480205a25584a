"""A stand-in for Coop: it enforces the request format that Coop publishes, and signs callbacks as Coop does.

The format is that of commit 1f1c54d of roostorg/coop. Bodies: `server/routes/reporting/ReportingRoutes.ts`, with the
checks of `submitReport.ts` and `submitAppeal.ts` beside it, and `server/services/itemProcessingService/types.ts`. The
signature: `server/services/signingKeyPairService/signingKeyPairService.ts`.
"""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jsonschema
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

API_KEY = "the-key-of-the-organisation"


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


TEXT, MAYBE = {"type": "string"}, {"type": ["string", "null"]}
ITEM = _object(("id", "data", "typeId"), id=TEXT, data={"type": "object"}, typeId=TEXT)
ITEMS = {"type": "array", "items": ITEM}
POINTER = _object(("id", "typeId"), id=TEXT, typeId=TEXT)
REPORT = _object(
    ("reporter", "reportedAt", "reportedItem"),
    reporter=_object(("kind", "typeId", "id"), kind={"type": "string", "enum": ["user"]}, typeId=TEXT, id=TEXT),
    reportedAt=TEXT,
    reportedForReason=_object((), policyId=MAYBE, reason=MAYBE, csam={"type": ["boolean", "null"]}),
    reportedItem=ITEM,
    reportedItemThread=ITEMS,
    reportedItemsInThread={"type": "array", "items": POINTER},
    additionalItems=ITEMS,
)
APPEAL = _object(
    ("appealId", "appealedAt", "actionedItem", "appealedBy", "actionsTaken"),
    appealId=TEXT,
    appealedBy=POINTER,
    appealedAt=TEXT,
    actionedItem=ITEM,
    actionsTaken={"type": "array", "items": TEXT},
    additionalItems=ITEMS,
    violatingPolicies={"type": "array", "items": _object(("id",), id=TEXT)},
    appealReason=TEXT,
)


@dataclass
class Coop:
    """One organisation: its item types with the kinds of their fields, its actions, and what it was sent."""

    item_types: dict[str, dict[str, str]] = field(
        default_factory=lambda: {
            "message-type": {"content": "STRING", "sent": "DATETIME", "author": "RELATED_ITEM", "room": "STRING"},
            "user-type": {},
        }
    )
    required: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"message-type": ("content",)})
    actions: tuple[str, ...] = ("action-block", "action-allow")
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)

    @property
    def public_key(self) -> bytes:
        """The webhook signature verification key as Coop shows it."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any] | None]:
        """Answer a request as Coop does."""
        given = {name.lower(): value for name, value in headers.items()}
        if given.get("x-api-key") != API_KEY:
            return _error(401, "Invalid API Key")
        schemas = {"/api/v1/report": REPORT, "/api/v1/report/appeal": APPEAL}
        if path not in schemas:
            return _error(404, "no such route")
        try:
            assert given["content-type"] == "application/json"
            document = json.loads(body)
            jsonschema.validate(document, schemas[path])
            self._check(document)
        except (ValueError, AssertionError, jsonschema.ValidationError) as error:
            return _error(400, str(error))
        self.received.append((path, document))
        return (201, {"reportId": str(uuid.uuid4())}) if path == "/api/v1/report" else (204, None)

    def signed(self, document: object) -> tuple[bytes, dict[str, str]]:
        """Give the body and the headers of a callback."""
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        signature = base64.b64encode(self._key.sign(body, PKCS1v15(), SHA256())).decode()
        return body, {"Content-Type": "application/json", "coop-signature": signature}

    def _check(self, document: dict[str, Any]) -> None:
        moment = document.get("reportedAt") or document["appealedAt"]
        datetime.fromisoformat(moment)
        for one in [document.get("reportedItem") or document["actionedItem"], *document.get("additionalItems", [])]:
            self._check_item(one)
        for one in document.get("reportedItemThread", []):
            self._check_item(one)
        unknown = [one for one in document.get("actionsTaken", []) if one not in self.actions]
        assert not unknown, f"unknown actions {unknown}"

    def _check_item(self, item: dict[str, Any]) -> None:
        fields = self.item_types.get(item["typeId"])
        assert fields is not None, f"no item type {item['typeId']}"
        missing = [name for name in self.required.get(item["typeId"], ()) if not item["data"].get(name)]
        assert not missing, f"missing fields {missing}"
        for name, value in item["data"].items():
            match fields.get(name):
                case "STRING":
                    assert isinstance(value, str), f"{name} is no text"
                case "DATETIME":
                    datetime.fromisoformat(value)
                case "RELATED_ITEM":
                    assert set(value) == {"id", "typeId"}, f"{name} is no related item"
                    assert value["typeId"] in self.item_types, f"{name}: no item type {value['typeId']}"


def _error(status: int, title: str) -> tuple[int, dict[str, Any]]:
    return status, {"errors": [{"status": status, "type": [], "title": title}]}


def action_callback(verdict_id: str, action: str = "action-block", **more: Any) -> dict[str, Any]:
    """The body of an action's callback, as `publishAction` in `server/rule_engine/ActionPublisher.ts` makes it."""
    return {
        "item": {"id": verdict_id, "typeId": "message-type", "typeName": "Message"},
        "policies": [{"id": "policy-violence", "name": "Violence", "penalty": "HIGH"}],
        "rules": [],
        "action": {"id": action},
        "custom": {},
        "actorEmail": "mara@platform.example",
        **more,
    }


def appeal_callback(appeal_id: str, verdict_id: str, decision: str) -> dict[str, Any]:
    """The body of an appeal's callback, as `server/iocContainer/index.ts` makes it."""
    return {
        "appealId": appeal_id,
        "appealedBy": {"id": "u-1", "typeId": "user-type"},
        "appealDecision": decision,
        "item": {"id": verdict_id, "typeId": "message-type"},
    }


def ignore_callback(verdict_id: str) -> dict[str, Any]:
    """The body of an ignored report's callback, as `server/iocContainer/index.ts` makes it."""
    return {"id": verdict_id, "typeId": "message-type", "data": {"content": "see you"}}
