"""Pseudonyms of authors: Redis and reports name authors by them, and hold no author id. Pure."""

from __future__ import annotations

from hashlib import blake2b

import orjson

PSEUDONYM_CHARS = 32


class Pseudonyms:
    """Makes the pseudonyms of authors with one secret.

    A person who has the secret can find the records of an author whose id is known. Without the secret, nobody can test
    a guessed id. If the secret is changed, no earlier pseudonym can be connected with an author any more.
    """

    def __init__(self, secret: str) -> None:
        # Hashed first: a secret may be longer than the 64 bytes that BLAKE2b takes for a key. The person separates
        # these hashes from those of `Keys`, which may have the same secret.
        key = blake2b(secret.encode(), digest_size=32).digest()
        self._keyed = blake2b(key=key, digest_size=PSEUDONYM_CHARS // 2, person=b"pseudonym")

    def of(self, tenant_id: str, author_id: str) -> str:
        """Give the pseudonym of an author: 32 hexadecimal digits. The same id at another tenant has another one."""
        digest = self._keyed.copy()
        # JSON gives different bytes for different pairs, with any characters.
        digest.update(orjson.dumps((tenant_id, author_id)))
        return digest.hexdigest()
