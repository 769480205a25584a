"""The keys under which Redis stores an event, its content, and the strikes of its author. Pure.

They are keyed hashes: without the secret, a person who reads them cannot test guessed texts.
"""

from __future__ import annotations

from hashlib import blake2b

import orjson

from schemas.event import EventDict
from workers.core.pseudonyms import Pseudonyms

TAGS = 64
"""Hash tags of the keys. On a Redis Cluster the keys with one tag are in one slot, so that one command reads them: a
command for each of 512 keys took ten times as long as the look-up of a micro-batch may take. 64 spread evenly enough
over a dozen nodes."""


class StrikeKeys:
    """Makes the keys of authors' strikes for one namespace. They hold a pseudonym, and no author's id."""

    def __init__(self, namespace: str, *, secret: str) -> None:
        self._prefixes = [f"{namespace}:strikes:{{{tag:02x}}}:".encode() for tag in range(TAGS)]
        self._pseudonyms = Pseudonyms(secret)

    def of(self, tenant_id: str, author_id: str) -> bytes:
        """Return the key of an author at a tenant."""
        pseudonym = self._pseudonyms.of(tenant_id, author_id)
        return self._prefixes[int(pseudonym[:2], 16) % TAGS] + pseudonym.encode()


class Keys:
    """Makes the keys of events for one namespace, one secret, and one fingerprint of the guard."""

    def __init__(self, namespace: str, *, secret: str, fingerprint: str) -> None:
        self._event_prefixes = [f"{namespace}:event:{{{tag:02x}}}".encode() for tag in range(TAGS)]
        self._content_prefixes = [f"{namespace}:content:{{{tag:02x}}}".encode() for tag in range(TAGS)]
        # Hashed first: a secret may be longer than the 64 bytes that BLAKE2b takes for a key.
        key = blake2b(secret.encode(), digest_size=32).digest()
        self._keyed = blake2b(fingerprint.encode(), key=key, digest_size=16)

    def of(self, body: EventDict, *, is_shared: bool) -> tuple[bytes, bytes]:
        """Return an event's key and its content's key.

        Content is the same if role, text and context are the same, for the same tenant or for tenants that share. An
        event is the same if its content, tenant, id, surface and language are the same.
        """
        digest = self._keyed.copy()
        tenant = body["tenant_id"]
        # JSON gives different bytes for different contents, with any characters.
        owner = None if is_shared else tenant
        digest.update(orjson.dumps((body.get("role", "user"), owner, body["text"], body.get("context") or None)))
        content = digest.digest()
        tag = content[0] % TAGS
        # Continues the content's hash, because an event is the same only if its content is.
        digest.update(orjson.dumps((tenant, body["event_id"], body["surface"], body.get("language"))))
        return self._event_prefixes[tag] + digest.digest(), self._content_prefixes[tag] + content
