"""A review item: a verdict of `review`, and the content that a person has to look at."""

from pydantic import Field

from schemas.event import Attributes, Text, Timestamp, Turn
from schemas.verdict import Verdict


class ReviewItem(Verdict):
    """A verdict and what was judged. Only this contract carries the text on."""

    text: Text
    context: list[Turn] = Field(default_factory=list)
    created_at: Timestamp | None = None
    attributes: Attributes = Field(default_factory=dict)
