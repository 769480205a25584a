"""The keys under which an event and its content are remembered. Pure.

They are keyed hashes: who reads them cannot try texts against them without the secret.
"""

from __future__ import annotations

from hashlib import blake2b

import orjson

from schemas.event import EventDict


class Keys:
    """Gives the keys of events for one namespace, one secret, and one way to judge (the guard's fingerprint)."""

    def __init__(self, namespace: str, *, secret: str, fingerprint: str) -> None:
        self._event_prefix = f"{namespace}:event:".encode()
        self._content_prefix = f"{namespace}:content:".encode()
        # Hashed first: a secret may be longer than the 64 bytes that BLAKE2b takes for a key.
        key = blake2b(secret.encode(), digest_size=32).digest()
        self._keyed = blake2b(fingerprint.encode(), key=key, digest_size=16)

    def of(self, body: EventDict, *, is_shared: bool) -> tuple[bytes, bytes]:
        """Give an event's key and its content's.

        Content is the same with the same role, text and context, of the same tenant or of tenants that share; an event
        is the same with the same content, tenant, id, surface and language.
        """
        digest = self._keyed.copy()
        tenant = body["tenant_id"]
        # As JSON, so that no two different contents are hashed alike, whatever characters they hold.
        owner = None if is_shared else tenant
        digest.update(orjson.dumps((body.get("role", "user"), owner, body["text"], body.get("context") or None)))
        content_key = self._content_prefix + digest.digest()
        # Goes on from the content: an event is the same only with the same content.
        digest.update(orjson.dumps((tenant, body["event_id"], body["surface"], body.get("language"))))
        return self._event_prefix + digest.digest(), content_key
