"""A review item: a verdict of `review`, and the content that a person has to look at."""

from schemas.event import Turn
from schemas.verdict import Verdict


class ReviewItem(Verdict):
    """A verdict and what was judged. Only this contract carries the text, and it has all attributes."""

    text: str
    context: list[Turn]
