import pytest
from pydantic import ValidationError

from workers.settings import Streams


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"max_tokens": 1_000, "anchor_tokens": 251},
            "streams.anchor_tokens (251) must be at most a quarter of streams.max_tokens (1000)",
        ),
        ({"idle_s": 61, "max_age_s": 60}, "streams.idle_s (61) must be at most streams.max_age_s (60)"),
        ({"vllm": {"trust_remote_code": True}}, "streams.vllm: trust_remote_code would let Python code"),
    ],
)
def test_bounds_of_streams_that_contradict_each_other_are_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Streams.model_validate(given)
    assert sentence in str(caught.value)


def test_the_default_session_is_below_the_length_at_which_vllm_compiles_anew() -> None:
    assert Streams().max_tokens < 8_192
