"""The requests and answers of SGLang's own `/generate`. Pure: nothing here talks to anybody.

A prompt that is empty, or holds an id outside the vocabulary, kills the whole server: nothing may be sent unchecked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import uuid4

from workers.engines.engine import Refused
from workers.engines.openai_protocol import Json, Served, checked_ids, checked_row
from workers.errors import Unavailable

GREEDY = {
    "temperature": 0,
    "top_p": 1,
    "min_p": 0,
    "repetition_penalty": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
}
"""All of it, because a server may prefer others. Its log-probabilities are those after temperature and penalties."""


class SglangProtocol:
    """See `ServerProtocol`."""

    name = "SGLang"
    since = "0.5.6"
    # Not /health: that one runs a generation. Not /ready: older ones do not have it.
    well_path = "/ping"
    about_paths: Sequence[str] = ("/model_info", "/server_info")
    ask_path = "/generate"
    weights_path: str | None = "/model_info"

    def served(self, models: Sequence[Json], about: Sequence[Json]) -> Mapping[str, Served]:
        """Without adapters: `/generate` knows no names, and answers for the base model."""
        model_info, server_info = about
        served = Served(self.weights_in(model_info), int(server_info["max_req_input_len"]))
        return {str(model["id"]): served for model in models if model.get("parent") is None}

    def weights_in(self, answer: Json) -> str:
        """Weights can be replaced while the server runs."""
        return f"{answer['model_path']}, weights {answer.get('weight_version')}"

    def score_request(self, model: str, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> Json:
        """See `ServerProtocol.score_request`."""
        return {
            **_generate_request(prompts, 1),
            "return_logprob": True,
            "token_ids_logprob": list(candidates),
        }

    def scores_in(self, request: Json, answer: object) -> list[list[float] | Refused]:
        """See `ServerProtocol.scores_in`."""
        rows: list[list[float] | Refused] = []
        for item in _items(request, answer):
            found = {index: value for value, index, *_ in item["meta_info"]["output_token_ids_logprobs"][0]}
            rows.append(checked_row([found[candidate] for candidate in request["token_ids_logprob"]]))
        return rows

    def complete_request(self, model: str, prompts: Sequence[Sequence[int]], max_tokens: int) -> Json:
        """See `ServerProtocol.complete_request`."""
        return _generate_request(prompts, max_tokens)

    def completions_in(self, request: Json, answer: object) -> list[list[int]]:
        """See `ServerProtocol.completions_in`."""
        completions: list[list[int]] = []
        for item in _items(request, answer):
            ids = checked_ids(item.get("output_ids"))
            reason = (item["meta_info"].get("finish_reason") or {}).get("type")
            if reason not in ("stop", "length"):
                raise Unavailable(f"the server broke a completion off: {item['meta_info'].get('finish_reason')}")
            completions.append(ids[:-1] if reason == "stop" else ids)
        return completions


def _generate_request(prompts: Sequence[Sequence[int]], max_tokens: int) -> Json:
    batch = uuid4().hex
    return {
        # Answers carry no index: by these it is known which prompt each belongs to.
        "rid": [f"{batch}-{index}" for index in range(len(prompts))],
        "input_ids": [list(prompt) for prompt in prompts],
        "sampling_params": {"max_new_tokens": max_tokens, **GREEDY},
    }


def _items(request: Json, answer: object) -> list[Json]:
    """Give the answers in the order of the prompts, whatever order they came in."""
    names = request["rid"]
    by_name = {item["meta_info"]["id"]: item for item in answer} if isinstance(answer, list) else {}
    if set(by_name) != set(names):
        raise Unavailable(f"the server gave {len(by_name)} answers to {len(names)} prompts, or those of others")
    return [by_name[name] for name in names]
