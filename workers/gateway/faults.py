"""What a client is told if the model server, or the guard, does not go on."""

from __future__ import annotations

from workers.gateway.problems import Problem


class BadUpstream(Problem):
    """The model server sent something that is not an answer of this API."""

    def __init__(self, sentence: str) -> None:
        super().__init__(502, f"the model server's answer is not valid: {sentence}", code="upstream_invalid")


def upstream_ended(sentence: str) -> Problem:
    """Give the error of an answer that ended before its end."""
    return Problem(502, f"the model server's answer ended early: {sentence}", code="upstream_ended")


def upstream_timeout(what: str, seconds: float, setting: str) -> Problem:
    """Give the error of a model server that hangs."""
    return Problem(
        504, f"the model server sent no {what} for {seconds:g} s (gateway.upstream.{setting})", code="upstream_timeout"
    )


def slow_client(seconds: float) -> Problem:
    """Give the error of an answer that waited for its client."""
    return Problem(
        408, f"the client has not read the answer within {seconds:g} s (gateway.upstream.answer_s)", code="slow_client"
    )


def not_judged() -> Problem:
    """Give the error of a prompt or an answer for which the guard is unavailable."""
    return Problem(503, "the guard is unavailable: send the request again", code="guard_unavailable", retry_after_s=1)


def stopping() -> Problem:
    """Give the error of a stream whose gateway ends."""
    return Problem(503, "the gateway ends: send the request again", code="draining", retry_after_s=1)
