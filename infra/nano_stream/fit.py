"""nano-stream's training loop. It saves its state regularly: after a kill the same command continues.

The learning rate rises, stays, and falls in the last third. Until it falls, the number of steps may be changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from infra.nano_stream.network import StreamNetwork
from infra.nano_stream.streams import Stream

_WARM_UP_STEPS, _FALL = 50, 0.35
_TOKENS_RATE, _HEADS_RATE = 0.4, 1.5
"""The fractions of the learning rate of the embeddings and of the heads."""
_DECAY = 0.05
_SMOOTHING = 0.02
_CATEGORY_WEIGHT, _PROMPT_WEIGHT = 0.3, 0.4
_AVERAGED, _AVERAGED_EACH = 0.95, 5
"""The fraction of the running mean of the weights that stays when it is renewed, each so many steps."""


@dataclass(frozen=True)
class Plan:
    """How to train."""

    steps: int
    rate: float
    save_every_s: float
    report_each: int = 20


class Fit:
    """The state of a training: the network, the mean of its late weights, and the step."""

    def __init__(self, network: StreamNetwork, plan: Plan, state: Path | None = None) -> None:
        self.network, self._plan, self._state = network, plan, state
        tokens = network.model.embed_tokens.weight
        layers = [p for p in network.model.parameters() if p is not tokens]
        heads = [p for name, p in network.named_parameters() if not name.startswith("model.")]
        groups = [
            {"params": [tokens], "share": _TOKENS_RATE, "weight_decay": 0.0},
            {"params": layers, "share": 1.0, "weight_decay": _DECAY},
            {"params": heads, "share": _HEADS_RATE, "weight_decay": _DECAY},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
        self.mean = [p.detach().clone() for p in network.parameters()]
        self.step = 0
        if state is not None and state.exists():
            self._load(state)

    def run(self, draw: Callable[[int], list[Stream]]) -> None:
        """Train to the last step, each with the streams that `draw` gives for its number.

        Leaves the mean of the weights in the network.
        """
        self.network.train()
        saved, losses = time.monotonic(), [0.0]
        while self.step < self._plan.steps:
            losses.append(self._learn(draw(self.step)))
            if self.step % self._plan.report_each == 0:
                mean = sum(losses[-self._plan.report_each :]) / self._plan.report_each
                print(
                    f"step {self.step} of {self._plan.steps}, loss {mean:.3f}, {time.process_time():.0f} s", flush=True
                )
            if self._state is not None and time.monotonic() - saved > self._plan.save_every_s:
                self._save(self._state)
                saved = time.monotonic()
        if self._state is not None:
            self._save(self._state)
        self.take_mean()

    def take_mean(self) -> None:
        """Put the mean of the weights into the network."""
        with torch.no_grad():
            for p, mean in zip(self.network.parameters(), self.mean, strict=True):
                p.copy_(mean)

    def _rate(self) -> float:
        left = (self._plan.steps - self.step) / (self._plan.steps * _FALL)
        return self._plan.rate * min(1.0, (self.step + 1) / _WARM_UP_STEPS, max(left, 0.02))

    def _learn(self, streams: list[Stream]) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate() * group["share"]
        loss = loss_of(self.network, streams)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        if self.step % _AVERAGED_EACH == 0:
            kept = min(_AVERAGED, self.step / (self.step + 10 * _AVERAGED_EACH))
            with torch.no_grad():
                for p, mean in zip(self.network.parameters(), self.mean, strict=True):
                    mean.lerp_(p, 1 - kept)
        return float(loss.detach())

    def _save(self, path: Path) -> None:
        unfinished = path.with_suffix(".unfinished")
        torch.save(
            {
                "network": self.network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "mean": self.mean,
                "step": self.step,
            },
            unfinished,
        )
        unfinished.replace(path)

    def _load(self, path: Path) -> None:
        stored = torch.load(path, weights_only=True)
        self.network.load_state_dict(stored["network"])
        self._optimizer.load_state_dict(stored["optimizer"])
        self.mean = list(stored["mean"])
        self.step = stored["step"]


def loss_of(network: StreamNetwork, streams: list[Stream]) -> torch.Tensor:
    """Give the loss of a batch: of severities and categories, at the positions that have targets."""
    longest = max(len(each.ids) for each in streams)
    ids = torch.zeros(len(streams), longest, dtype=torch.long)
    severities = torch.full((len(streams), longest), -100)
    categories = torch.full((len(streams), longest), -100)
    weights = torch.zeros(len(streams), longest)
    for row, each in enumerate(streams):
        ids[row, : len(each.ids)] = torch.tensor(each.ids)
        answer = slice(each.first, each.first + len(each.severities))
        severities[row, answer] = torch.tensor(each.severities)
        weights[row, answer] = torch.tensor(each.weights)
        categories[row, answer] = torch.tensor([-100 if number < 0 else number for number in each.categories])
    # Padding is on the right and attention is causal: what follows a token cannot change it.
    hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state
    taught = weights > 0
    risk, category = network.heads(hidden[taught])
    weight = weights[taught]
    each_loss = _cross_entropy(risk, severities[taught])
    loss = (each_loss * weight).sum() / weight.sum().clamp(min=1.0)
    named = categories[taught] >= 0
    if named.any():
        each_loss = _cross_entropy(category[named], categories[taught][named]) * weight[named]
        loss = loss + _CATEGORY_WEIGHT * each_loss.sum() / weight[named].sum()
    ends = torch.tensor([each.prompt_end for each in streams])
    risk, category = network.heads(hidden[torch.arange(len(streams)), ends], "query_")
    prompt = torch.tensor([each.prompt_severity for each in streams])
    if (prompt >= 0).any():
        loss = loss + _PROMPT_WEIGHT * _cross_entropy(risk[prompt >= 0], prompt[prompt >= 0]).mean()
    kinds = torch.tensor([each.prompt_category for each in streams])
    if (kinds >= 0).any():
        loss = loss + 0.5 * _PROMPT_WEIGHT * _cross_entropy(category[kinds >= 0], kinds[kinds >= 0]).mean()
    return loss


def _cross_entropy(said: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(said, labels, reduction="none", label_smoothing=_SMOOTHING)
