"""Sessions of the page: a cookie that is signed with the hash of the person's own token, so the server keeps none.

A session ends when its time is over, when its token is not valid any more, or when the person signs out.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import NamedTuple

COOKIE = "guardline_review"
HOURS = 12
LENGTH_S = HOURS * 3_600


class Session(NamedTuple):
    """Who is signed in. `csrf` has to be in every form that changes something."""

    name: str
    expires_s: int
    nonce: str
    csrf: str


class Sessions:
    """Makes and checks cookies. Pure, but for the random numbers and the list of sessions that were signed out."""

    def __init__(self) -> None:
        self._ended: dict[str, int] = {}
        """The nonces of sessions that were signed out, until they would end. A restart forgets them."""

    def begin(self, name: str, key: bytes, now_s: float) -> str:
        """Give the cookie of a new session. `key` is the hash of the token, which was checked."""
        plain = f"{_encoded(name.encode())}.{int(now_s) + LENGTH_S}.{secrets.token_hex(16)}"
        return f"{plain}.{_mac(key, 'session', plain)}"

    def read(self, cookie: str | None, keys_of: Callable[[str], Iterable[bytes]], now_s: float) -> Session | None:
        """Give the session of a cookie, None if it is not valid. `keys_of`: the hashes of the tokens of a name."""
        plain, _, mac = (cookie or "").rpartition(".")
        match plain.split("."):
            case [encoded, expires, nonce] if expires.isascii() and expires.isdigit() and len(expires) < 16:
                pass
            case _:
                return None
        name = _decoded(encoded)
        if name is None or int(expires) <= now_s or nonce in self._ended:
            return None
        fitting = [
            one
            for one in keys_of(name)
            if hmac.compare_digest(_mac(one, "session", plain).encode(), mac.encode("utf-8", "replace"))
        ]
        if not fitting:
            return None
        return Session(name, int(expires), nonce, _mac(fitting[0], "csrf", plain))

    def end(self, session: Session, now_s: float) -> None:
        """Sign out: no copy of the cookie is valid any more."""
        self._ended = {nonce: until for nonce, until in self._ended.items() if until > now_s}
        self._ended[session.nonce] = session.expires_s


def is_same(session: Session, csrf: str | None) -> bool:
    """Whether a form was made for this session."""
    return hmac.compare_digest(session.csrf.encode(), (csrf or "").encode("utf-8", "surrogatepass"))


def _mac(key: bytes, purpose: str, text: str) -> str:
    return hmac.digest(key, f"guardline review {purpose} {text}".encode(), sha256).hex()


def _encoded(name: bytes) -> str:
    return base64.urlsafe_b64encode(name).decode().rstrip("=")


def _decoded(text: str) -> str | None:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return None
