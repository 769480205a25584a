"""The tokens by which an API knows its clients: read from files, kept as hashes, and compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from workers.errors import Misconfigured
from workers.settings import secret_files

MIN_TOKEN_CHARS = 32

Owner = TypeVar("Owner")


class TokenFile(NamedTuple, Generic[Owner]):
    """Whose tokens a file holds, one on each line. `name` is for sentences."""

    name: str
    file: Path
    owner: Owner


class Bearers(Generic[Owner]):
    """The owners of tokens. Every look-up compares all tokens, so it takes the same time for each."""

    def __init__(self, setting: str, files: Iterable[TokenFile[Owner]], noun: str = "token") -> None:
        """Read the files. `setting` names them, and `noun` what they hold.

        Raises:
            Misconfigured: a file cannot be read, or a token is too short, or two tokens are equal.
        """
        self._owners = [(hash_of(token), file.owner) for file in files for token in _tokens(setting, file, noun)]
        if len({digest for digest, _ in self._owners}) < len(self._owners):
            raise Misconfigured(f"{setting}: two files hold the same {noun}: give everybody a {noun} of their own")

    def owner(self, token: str) -> Owner | None:
        """Give the owner of this token; None if it is not valid."""
        digest = hash_of(token)
        found = [owner for known, owner in self._owners if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    @property
    def hashed(self) -> list[tuple[bytes, Owner]]:
        """The hashes of all tokens, and their owners."""
        return self._owners


def _tokens(setting: str, file: TokenFile[Owner], noun: str) -> list[str]:
    try:
        text = secret_files.read(file.file)
    except ValueError as error:
        raise Misconfigured(f"{setting}: {file.name}: {error}") from None
    tokens = [line.strip() for line in text.splitlines() if line.strip()]
    if any(len(token) < MIN_TOKEN_CHARS for token in tokens):
        raise Misconfigured(
            f"{setting}: {file.name}: {file.file} holds a {noun} of fewer than {MIN_TOKEN_CHARS} characters: make one "
            "with `openssl rand -hex 32`"
        )
    return tokens


def hash_of(token: str) -> bytes:
    """Give the hash that is kept of a token."""
    return sha256(token.encode(errors="surrogatepass")).digest()
