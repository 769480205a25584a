"""The tokenizers that text is encoded with while it arrives: guard-nano's and Qwen's."""

from __future__ import annotations

import pytest

from tests.checkpoints.qwen import shared_qwen
from workers.guard.load import checkpoint_folder
from workers.guard.tokens import Tokens
from workers.live.vocabulary import Vocabulary

Tokenizer = tuple[Tokens, Vocabulary]


@pytest.fixture(scope="session", params=["nano", "qwen"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Each of the two: the encoder of whole texts, and that of deltas."""
    is_qwen = request.param == "qwen"
    tokens = Tokens(shared_qwen(tmp_path_factory) if is_qwen else checkpoint_folder("guard-nano"))
    return tokens, Vocabulary(tokens.byte_pairs)
