"""The requests and answers of vLLM's OpenAI-compatible server. Pure: nothing here talks to anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workers.engines.engine import Refused
from workers.engines.openai_protocol import AnotherModel, Json, Served, checked_ids, checked_row
from workers.errors import Unavailable

GREEDY = {"temperature": 0, "top_p": 1, "top_k": 0, "repetition_penalty": 1}
"""All of it, because what is left out comes from the model's own generation config."""


class VllmProtocol:
    """See `ServerProtocol`."""

    name = "vLLM"
    since = "0.26"
    well_path = "/health"
    about_paths: Sequence[str] = ()
    ask_path = "/v1/completions"
    weights_path: str | None = None

    def served(self, models: Sequence[Json], about: Sequence[Json]) -> Mapping[str, Served]:
        """Adapters are models too."""
        return {str(model["id"]): Served(str(model.get("root")), model.get("max_model_len")) for model in models}

    def weights_in(self, answer: Json) -> str:
        """Every answer names its model."""
        raise NotImplementedError

    def score_request(self, model: str, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> Json:
        """See `ServerProtocol.score_request`."""
        return {
            "model": model,
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": 1,
            "logprobs": 0,
            "logprob_token_ids": list(candidates),
            # Keyed by text, two tokens of the same text would be one.
            "return_tokens_as_token_ids": True,
            **GREEDY,
        }

    def scores_in(self, request: Json, answer: object) -> list[list[float] | Refused]:
        """See `ServerProtocol.scores_in`."""
        rows: list[list[float] | Refused] = []
        for choice in _choices(request, answer):
            found = choice["logprobs"]["top_logprobs"][0]
            rows.append(checked_row([found[f"token_id:{candidate}"] for candidate in request["logprob_token_ids"]]))
        return rows

    def complete_request(self, model: str, prompts: Sequence[Sequence[int]], max_tokens: int) -> Json:
        """See `ServerProtocol.complete_request`."""
        return {
            "model": model,
            "prompt": [list(prompt) for prompt in prompts],
            "max_tokens": max_tokens,
            "return_token_ids": True,
            **GREEDY,
        }

    def completions_in(self, request: Json, answer: object) -> list[list[int]]:
        """See `ServerProtocol.completions_in`."""
        completions: list[list[int]] = []
        for choice in _choices(request, answer):
            ids = checked_ids(choice.get("token_ids"))
            reason = choice.get("finish_reason")
            if reason not in ("stop", "length"):
                raise Unavailable(f"the server broke a completion off: {reason}")
            completions.append(ids[:-1] if reason == "stop" else ids)
        return completions


def _choices(request: Json, answer: object) -> list[Json]:
    """Give the choices in the order of the prompts, whatever order they came in."""
    if not isinstance(answer, dict) or answer.get("model") != request["model"]:
        raise AnotherModel(f"the server did not answer for the model {request['model']!r}")
    count = len(request["prompt"])
    choices = answer["choices"]
    by_index = {int(choice["index"]): choice for choice in choices}
    if len(choices) != count or set(by_index) != set(range(count)):
        raise Unavailable(f"the server gave {len(choices)} answers to {count} prompts")
    return [by_index[index] for index in range(count)]
