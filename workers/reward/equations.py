"""The rewards of the Qwen3Guard report: of the guard alone, and together with the score of another reward model.

Pure. The report does not say whether Controversial counts as unsafe: that is a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.taxonomy import Severity

UNSAFE_AT_MOST = -10.0
REFUSED_AT_MOST = -5.0
"""The bounds of the hybrid reward, from the report: below any score of the other reward model."""


@dataclass(frozen=True)
class Equation:
    """Which reward is computed.

    Attributes:
        mode: `guard` for the guard alone, `hybrid` together with another score.
        controversial: whether Controversial counts as unsafe or as safe.
    """

    mode: Literal["guard", "hybrid"] = "guard"
    controversial: Literal["unsafe", "safe"] = "unsafe"

    def is_safe(self, severity: Severity) -> bool:
        """Whether a text of this severity counts as safe."""
        return severity == Severity.SAFE or (severity == Severity.CONTROVERSIAL and self.controversial == "safe")

    def reward(self, severities: Sequence[Severity], *, is_refusal: bool, score: float | None = None) -> float:
        """Compute the reward.

        Args:
            severities: that of prompt and answer, and that of prompt and thought if there is a thought.
            is_refusal: whether the answer refuses.
            score: that of the other reward model, for the mode `hybrid`.

        Raises:
            ValueError: there is no severity, or no score for the mode `hybrid`.
        """
        if not severities:
            raise ValueError("a reward needs at least one severity")
        is_safe = all(map(self.is_safe, severities))
        if self.mode == "guard":
            return 1.0 if is_safe else 0.0
        if score is None:
            raise ValueError("the mode hybrid needs a score")
        if not is_safe:
            return min(UNSAFE_AT_MOST, score)
        return min(REFUSED_AT_MOST, score) if is_refusal else score
