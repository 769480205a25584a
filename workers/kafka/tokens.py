"""Gets the tokens for OAUTHBEARER from the function that `kafka.token_provider` names.

All clients of a process share its tokens, so that the function is called once for each token. A token must never be in
an error or in the log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

import structlog

from workers.errors import GuardlineError, Misconfigured, Unavailable
from workers.shown import MASK, shown, without

log = structlog.get_logger(__name__)

ANSWER_S = 10.0
"""How long the function may take. The constructor of a client waits for a token for as long."""

REUSED = 0.1
"""A client that asks in the first tenth of a token's lifetime gets the same token. Later it gets a new one, so that
every client has nearly a whole lifetime ahead. A token that is half used would be renewed too late: librdkafka looks
once a second whether a fifth of the time is left, and logs in again when a tenth is left."""

MILLISECONDS = 1e11
"""An expiry above this was meant as milliseconds: as seconds it is in the year 5138. librdkafka would never renew the
token."""

SETTING = "kafka.token_provider"

_SHAPE = (
    "(token, expiry in seconds since 1970), or the same with a principal, or with a principal and a map of extensions"
)

_LIKE_A_TOKEN = re.compile(r"[\w.~+/=-]{40,}", re.ASCII)
"""A word in an error that may be a token, or a part of one."""

Token = tuple[str, float] | tuple[str, float, str] | tuple[str, float, str, dict[str, str]]


@cache
def provider(name: str) -> Provider:
    """Return the provider of this process for `package.module:function`.

    Raises:
        Misconfigured: there is no such module or function.
    """
    module_name, _, path = name.partition(":")
    try:
        found: Any = import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        # An import runs code of others, which may raise anything.
        raise Misconfigured(
            f"{SETTING}: {name!r} cannot be imported: {_said(error)}. The module has to be installed with Guardline, "
            "or to be in a folder that PYTHONPATH names"
        ) from error
    if not callable(found):
        raise Misconfigured(f"{SETTING}: {name!r} is not a function")
    return Provider(name, found)


class Provider:
    """Calls one function, and keeps its last token.

    librdkafka calls it in a background thread of each client, so no client has to be polled for its token.
    """

    def __init__(self, name: str, function: Callable[[str], Any]) -> None:
        self._name = name
        self._function = function
        self._lock = Lock()
        self._token: Token | None = None
        self._renew_at = 0.0
        self._running: Thread | None = None
        self._has_failed = False

    def fetch(self, config: str = "") -> Token:
        """Return a token; `config` is `sasl.oauthbearer.config`. Blocks for `ANSWER_S` at most.

        If the function fails, the last token is returned as long as it is valid, and the log says why.

        Raises:
            Unavailable: the function raised or did not return, and no token is valid any more.
            Misconfigured: the function returned something other than a token.
        """
        with self._lock:
            if self._token is not None and time.time() < self._renew_at:
                return self._token
            try:
                token = self._checked(self._called(config))
            except GuardlineError as error:
                self._note(error)
                if self._token is None or self._left_s() <= 0:
                    raise
                return self._token
            self._token, now = token, time.time()
            self._renew_at = now + REUSED * (token[1] - now)
            if self._has_failed:
                log.info(f"{SETTING}: a new token came")
            self._has_failed = False
            return token

    def _left_s(self) -> float:
        return 0.0 if self._token is None else self._token[1] - time.time()

    def _note(self, error: GuardlineError) -> None:
        """Say at the first of several failures why no new token came."""
        if not self._has_failed and self._token is not None:
            log.warning("Kafka's clients got no new token", reason=str(error), valid_for_s=round(self._left_s()))
        self._has_failed = True

    def _called(self, config: str) -> Any:
        """Call the function in a thread: one that hangs must not hang the start."""
        if self._running is not None and self._running.is_alive():
            raise Unavailable(f"{SETTING}: {self._name} has still not returned")
        answers: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()

        def run() -> None:
            try:
                answers.put((self._function(config), None))
            except Exception as error:
                answers.put((None, error))

        self._running = Thread(target=run, name="token-provider", daemon=True)
        self._running.start()
        try:
            token, error = answers.get(timeout=ANSWER_S)
        except Empty:
            raise Unavailable(f"{SETTING}: {self._name} has not returned within {ANSWER_S:g} s") from None
        if error is not None:
            known = [] if self._token is None else [self._token[0]]
            raise Unavailable(f"{SETTING}: {self._name} raised {_said(error, known)}") from None
        return token

    def _checked(self, token: Any) -> Token:
        if not _is_token(token):
            raise Misconfigured(f"{SETTING}: {self._name} has to return {_SHAPE}")
        if token[1] > MILLISECONDS:
            raise Misconfigured(
                f"{SETTING}: {self._name} returned an expiry in milliseconds: divide it by 1000, because the expiry is "
                "in seconds since 1970"
            )
        if token[1] <= time.time():
            raise Unavailable(
                f"{SETTING}: {self._name} returned a token that expired {time.time() - token[1]:.0f} s ago: check the "
                "clock, and that the expiry is in seconds since 1970"
            )
        checked: Token = token
        return checked


def _is_token(token: Any) -> bool:
    """Whether this is what librdkafka takes. Otherwise it would say that no token was set, and not why."""
    if not (isinstance(token, tuple) and 2 <= len(token) <= 4):
        return False
    value, expiry, *rest = token
    is_number = isinstance(expiry, int | float) and not isinstance(expiry, bool)
    are_others = all(isinstance(other, kind) for other, kind in zip(rest, (str, dict), strict=False))
    return isinstance(value, str) and value != "" and is_number and are_others


def _said(error: Exception, known: list[str] | None = None) -> str:
    """Return an error of the function in one line, without anything that may be a token."""
    text = _LIKE_A_TOKEN.sub(MASK, without(known or [], shown(str(error))))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
