"""The layout of the numbers that the model class of `stream_vllm_model` returns, and how they are read.

vLLM returns numbers only for the last token of a chunk. The model class therefore puts the rows of the `ROWS` last
tokens side by side. Two more columns say how many of them are of the same request, and at which position the last one
is: a row of another session must never be read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES, SEVERITIES
from workers.engines.stream import Floats
from workers.errors import Unavailable

ROWS = 32
"""The most tokens of one chunk. A longer one takes one step of the engine for each `ROWS` tokens."""

ANSWER_WIDTH = len(SEVERITIES) + len(ANSWER_CATEGORIES)
PROMPT_WIDTH = len(SEVERITIES) + len(PROMPT_CATEGORIES)

COUNT = ROWS * ANSWER_WIDTH
POSITION = COUNT + 1
PROMPT = POSITION + 1
COLUMNS = PROMPT + PROMPT_WIDTH
"""The rows of the answer's heads from the oldest to the last one; the number of valid rows; the position of the last
one; the outputs of the prompt's heads at the last one."""


def read_rows(logprobs: Any, tokens: int, end: int) -> Floats:
    """Return the outputs of all heads at the `tokens` tokens before position `end`: (tokens, 23), for `Labels.judged`.

    `logprobs` is vLLM's `LogprobsLists` of one output. The outputs of the prompt's heads are those of the last token;
    the other rows have zeros there.

    Raises:
        Unavailable: the answer does not hold exactly these rows of this session.
    """
    # vLLM puts the sampled token before the requested columns, and sorts these by their values.
    columns = np.asarray(logprobs.logprob_token_ids[0][1:])
    if sorted(columns.tolist()) != list(range(COLUMNS)):
        raise Unavailable("vLLM returned other numbers than those of the guard's heads")
    values = np.empty(COLUMNS, np.float32)
    values[columns] = logprobs.logprobs[0][1:]
    if (values[COUNT], values[POSITION]) != (tokens, end - 1):
        raise Unavailable(
            f"vLLM did not return the rows of {tokens} tokens before position {end}: it returned {values[COUNT]:.0f} "
            f"before position {values[POSITION] + 1:.0f}"
        )
    rows = np.zeros((tokens, ANSWER_WIDTH + PROMPT_WIDTH), np.float32)
    rows[:, :ANSWER_WIDTH] = values[:COUNT].reshape(ROWS, ANSWER_WIDTH)[ROWS - tokens :]
    rows[-1, ANSWER_WIDTH:] = values[PROMPT:]
    return rows
