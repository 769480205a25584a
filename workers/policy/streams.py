"""The rules of a stream: where an answer is cut, and how much of it may be shown. Pure: no I/O, no clock.

The same judgements in the same order give the same outcome, however they were divided into chunks. So the rules can be
replayed from recorded stream verdicts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from schemas.policy import StreamPolicy
from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES, SEVERITIES
from workers.policy.sentences import Sentences

SAFE, CONTROVERSIAL, UNSAFE = (severity.value for severity in SEVERITIES)
_ANSWER = tuple(category.value for category in ANSWER_CATEGORIES)
_PROMPT = tuple(category.value for category in PROMPT_CATEGORIES)

DIGITS = 4
"""Probabilities are rounded to this many digits before the rules see them, and are recorded so. Chunks of other sizes
change the probabilities by about 1e-6, which the rounding removes nearly always. With weights in int8 it may be 0.001:
see docs/streams.md#sessions."""


class Cut(Struct, frozen=True, gc=False):
    """The end of a stream by its policy: the fields of `schemas.stream.Intervention` that the rules decide."""

    position: int
    shown_chars: int
    reason: str
    severity: str | None
    categories: tuple[str, ...] = ()


class _Run:
    """Positions in a row at which a condition holds. `begin`: the characters before the first of them."""

    __slots__ = ("begin", "length", "wanted")

    def __init__(self, wanted: int | None) -> None:
        self.wanted = wanted
        self.length = 0
        self.begin = 0

    def count(self, holds: bool, chars_before: int) -> bool:
        """Count a position. Returns whether the run is complete."""
        if not holds or self.wanted is None:
            self.length = 0
            return False
        if self.length == 0:
            self.begin = chars_before
        self.length += 1
        return self.length >= self.wanted


class StreamRules:
    """The rules of one stream, and how far it has come.

    Characters are counted over the whole answer, as the sender wrote them. Call `pushed` with each text before the
    positions that judge it.

    Guarantee: unless `hold_back.until` is `none` or the stream is not judged any more, `shown_chars` never exceeds the
    characters that are judged, and never covers a token of a run that may still lead to a cut.

    Attributes:
        positions: how many tokens of the answer are judged, without the one at which it was cut.
        shown_chars: how many characters may be shown by now. Only a cut lowers it, and only with the hold-back `none`.
        cut: the end of the stream. After it, nothing is judged any more.
        is_unjudged: whether the stream goes on without judgements, because the policy allows that.
    """

    __slots__ = (
        "_controversial",
        "_judged",
        "_last",
        "_mean",
        "_policy",
        "_pushed",
        "_sentences",
        "_threshold",
        "_unsafe",
        "cut",
        "is_unjudged",
        "positions",
        "shown_chars",
    )

    def __init__(self, policy: StreamPolicy, threshold: float | None = None) -> None:
        """Begin a stream. `threshold`: the checkpoint's recommended one, for a policy that sets none."""
        self._policy = policy
        self._threshold = threshold if policy.threshold is None else policy.threshold
        self._unsafe = _Run(policy.cut_unsafe)
        self._controversial = _Run(policy.cut_controversial)
        self._mean = 0.0
        self._pushed = self._judged = 0
        hold_back = policy.hold_back
        self._last: deque[int] = deque(maxlen=hold_back.tokens + 1)
        self._sentences = Sentences() if hold_back.until == "sentence" else None
        self.positions = 0
        self.shown_chars = 0
        self.cut: Cut | None = None
        self.is_unjudged = False

    def pushed(self, text: str) -> None:
        """Take the next part of the answer, which is not judged yet."""
        self._pushed += len(text)
        if self._sentences is not None:
            self._sentences.push(text)
        if self.cut is None and (self.is_unjudged or self._policy.hold_back.until == "none"):
            self.shown_chars = self._pushed

    def prompt(self, risk: Sequence[float], categories: Sequence[float]) -> Cut | None:
        """Decide on a turn of the user by its most likely severity. `risk` has 3 probabilities, `categories` 9."""
        severity, found = most_likely(risk, categories, _PROMPT)
        mildest = self._policy.cut_prompt
        if (mildest == "unsafe" and severity == UNSAFE) or (mildest == "controversial" and severity != SAFE):
            return self._cut("prompt", severity, found, self.shown_chars)
        return None

    def position(self, risk: Sequence[float], categories: Sequence[float], chars: int) -> Cut | None:
        """Decide on the next token of the answer. `risk` has 3 probabilities, `categories` 8.

        `chars`: how many characters of the answer the tokens up to this one cover completely.
        """
        before, self._judged = self._judged, max(self._judged, chars)
        unsafe, not_safe = self._counts(risk)
        is_unsafe = self._unsafe.count(unsafe, before)
        is_controversial = self._controversial.count(not_safe, before)
        weight = self._policy.mean_weight
        if weight is not None:
            self._mean += weight * (risk[2] - self._mean)
        found = (_ANSWER[highest(categories)],)
        if is_unsafe:
            return self._cut("unsafe", UNSAFE, found, self._unsafe.begin)
        if is_controversial:
            return self._cut("controversial", UNSAFE if unsafe else CONTROVERSIAL, found, self._controversial.begin)
        if weight is not None and self._mean >= self._policy.mean_threshold:
            return self._cut("mean", UNSAFE, found, before)
        self.positions += 1
        self._last.append(self._judged)
        self._release()
        return None

    def end_turn(self) -> None:
        """End the answer to a turn: all of it is judged, and is shown. Runs and the mean begin anew."""
        self._unsafe.length = self._controversial.length = 0
        self._mean = 0.0
        self._last.clear()
        if self.cut is None and not self.is_unjudged:
            self._judged = self.shown_chars = self._pushed

    def unavailable(self) -> Cut | None:
        """Decide on an answer whose next part cannot be judged. Without a cut, the rest is shown as it comes."""
        if self._policy.on_unavailable == "allow":
            self.is_unjudged = True
            self.shown_chars = self._pushed
            return None
        return self._cut("unavailable", None, (), self._limit())

    def _counts(self, risk: Sequence[float]) -> tuple[bool, bool]:
        """Return whether a position counts as Unsafe, and whether it counts as Controversial or Unsafe."""
        if self._threshold is None:
            likeliest = highest(risk)
            return likeliest == 2, likeliest > 0
        return risk[2] >= self._threshold, round(risk[1] + risk[2], DIGITS) >= self._threshold

    def _limit(self) -> int:
        """Return the characters that are judged and before every run that may still lead to a cut."""
        begins = [run.begin for run in (self._unsafe, self._controversial) if run.length]
        return min(begins, default=self._judged)

    def _release(self) -> None:
        hold_back = self._policy.hold_back
        limit = self._limit()
        if self._sentences is not None:
            released = self._sentences.last_end(limit)
        elif hold_back.until == "tokens" and len(self._last) > hold_back.tokens:
            released = min(self._last[0], limit)
        else:  # `all` waits for the end, and `none` has shown everything.
            return
        self.shown_chars = max(self.shown_chars, released)

    def _cut(self, reason: str, severity: str | None, categories: tuple[str, ...], stays: int) -> Cut:
        self.shown_chars = min(self.shown_chars, stays)
        position = 0 if reason == "prompt" else self.positions
        self.cut = Cut(position, self.shown_chars, reason, severity, categories)
        return self.cut


def most_likely(
    risk: Sequence[float], categories: Sequence[float], names: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """Return the most likely severity, and the most likely category unless the severity is Safe."""
    severity = SEVERITIES[highest(risk)].value
    return severity, () if severity == SAFE else (names[highest(categories)],)


def prompt_found(risk: Sequence[float], categories: Sequence[float]) -> tuple[str, tuple[str, ...]]:
    """Return the severity and categories of a turn of the user, as verdicts name them."""
    return most_likely(risk, categories, _PROMPT)


def answer_category(risk: Sequence[float], categories: Sequence[float]) -> str | None:
    """Return the category of a position, as verdicts name it: None if Safe is the most likely severity."""
    _, found = most_likely(risk, categories, _ANSWER)
    return found[0] if found else None


def highest(values: Sequence[float]) -> int:
    """Return the index of the highest value; of equal ones the last, which is the more severe."""
    return max(range(len(values)), key=lambda index: (values[index], index))
