"""The training loop. It saves its state regularly: after a kill the same command continues.

Most steps teach only the severity, at its position: the last layer is computed for that token only. The first steps
train the network as a bag of tokens, which teaches the tokens' meanings at a fraction of the cost. Then the learning
rate warms up again for the whole network, which also learns whole answers.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import Qwen3ForCausalLM

from infra.nano.batches import Epochs, Example
from infra.nano.encoder import WIDTH
from infra.nano.network import bag_hidden, last_hidden

_WARM_UP_STEPS = 50
_BAG_SCALE = 6
"""The factor by which batches are larger while the network is a bag of tokens."""
_FORMAT_WEIGHT = 0.5
_FORMAT_EVERY, _FORMAT_TEXTS = 3, 64
"""The format is soon learnt: each so many steps, so many texts do. In every step it would drown the severity."""
_VECTOR_WEIGHT = 1.0
_TOKENS_RATE = 0.1
"""The embeddings' fraction of the learning rate: what is learnt with the seen tokens must also hold for unseen ones,
whose embeddings do not move."""
_AVERAGED = 0.98
"""The fraction of the running mean of the weights that stays at each step: the mean spans about fifty steps."""


@dataclass(frozen=True)
class Plan:
    """How to train."""

    bag_steps: int
    """So many of the steps train the network as a bag of tokens."""
    steps: int
    rate: float
    save_every_s: float
    inputs: str = ""
    """Names all else that decides what comes out: a state made with other inputs is another training's."""

    def __post_init__(self) -> None:
        if self.bag_steps >= self.steps:
            raise SystemExit(f"{self.bag_steps} bag steps of {self.steps}: none is left for the whole network")


class Fit:
    """The state of a training: the model, the mean of its late weights, and the position in the epochs."""

    def __init__(self, model: Qwen3ForCausalLM, severity_ids: list[int], plan: Plan, state: Path | None = None) -> None:
        self._model = model
        self._severity_ids = severity_ids
        self._plan = plan
        self._state = state
        # Only training needs it: it says what the encoder would have said of the text.
        self._to_vector = torch.nn.Linear(model.config.hidden_size, WIDTH)
        tokens = model.model.embed_tokens.weight
        others = [p for p in (*model.parameters(), *self._to_vector.parameters()) if p is not tokens]
        groups = [{"params": [tokens], "share": _TOKENS_RATE}, {"params": others, "share": 1.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.05)
        self._mean = [p.detach().clone() for p in model.parameters()]
        self._step = self._epoch = self._batch = 0
        if state is not None and state.exists():
            self._load(state)

    def run(self, epochs: Epochs) -> None:
        """Train to the last step; leave the mean of the weights in the model."""
        progress = tqdm(total=self._plan.steps, initial=self._step, unit="step", desc="training")
        self._model.train()
        saved = time.monotonic()
        while self._step < self._plan.steps:
            is_bag = self._step < self._plan.bag_steps
            batches = epochs.draw(self._epoch, _BAG_SCALE if is_bag else 1)
            end = min(self._plan.bag_steps, self._plan.steps) if is_bag else self._plan.steps
            for batch in batches[self._batch : self._batch + end - self._step]:
                loss = self._learn(batch)
                self._batch += 1
                if self._step == self._plan.bag_steps or self._batch == len(batches):
                    self._epoch, self._batch = self._epoch + 1, 0
                progress.update()
                if self._step % 20 == 0:
                    progress.set_postfix(loss=f"{loss:.3f}", epoch=self._epoch)
                if self._state is not None and time.monotonic() - saved > self._plan.save_every_s:
                    self._save(self._state)
                    saved = time.monotonic()
        progress.close()
        if self._state is not None:
            self._save(self._state)
        with torch.no_grad():
            for p, mean in zip(self._model.parameters(), self._mean, strict=True):
                p.copy_(mean)

    def _learn(self, batch: list[Example]) -> float:
        is_bag = self._step < self._plan.bag_steps
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate() * group["share"]
        hidden_of = bag_hidden if is_bag else last_hidden
        hidden = hidden_of(self._model, [example.prompt for example in batch])
        loss = severity_loss(self._model, self._to_vector, batch, hidden, self._severity_ids)
        if not is_bag and self._step % _FORMAT_EVERY == 0 and (labelled := [each for each in batch if each.answer]):
            loss = loss + _FORMAT_WEIGHT * format_loss(self._model, labelled[:_FORMAT_TEXTS])
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._step += 1
        # The mean follows quickly at first, because the weights of the first steps are useless.
        kept = min(_AVERAGED, self._step / (self._step + 10))
        with torch.no_grad():
            for p, mean in zip(self._model.parameters(), self._mean, strict=True):
                mean.lerp_(p, 1 - kept)
        return float(loss.detach())

    def _rate(self) -> float:
        """Give this step's rate: each of the two parts warms up and cools down."""
        bag, steps = self._plan.bag_steps, self._plan.steps
        at, of = (self._step, bag) if self._step < bag else (self._step - bag, steps - bag)
        cosine = 0.5 + 0.5 * math.cos(math.pi * at / of)
        return self._plan.rate * min(1.0, (at + 1) / _WARM_UP_STEPS) * cosine + 1e-6

    def _save(self, state: Path) -> None:
        """Write the state beside `state` and rename it: a kill leaves the old one or the new one."""
        unfinished = state.with_suffix(".unfinished")
        torch.save(
            {
                "plan": asdict(self._plan),
                "at": (self._step, self._epoch, self._batch),
                "model": self._model.state_dict(),
                "to_vector": self._to_vector.state_dict(),
                "mean": self._mean,
                "optimizer": self._optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            unfinished,
        )
        unfinished.replace(state)

    def _load(self, state: Path) -> None:
        stored = torch.load(state, weights_only=True)
        if stored["plan"] != asdict(self._plan):
            raise SystemExit(
                f"{state} is of a training with other texts or settings ({stored['plan']}): remove it, or repeat them"
            )
        self._step, self._epoch, self._batch = stored["at"]
        self._model.load_state_dict(stored["model"])
        self._to_vector.load_state_dict(stored["to_vector"])
        self._mean = stored["mean"]
        self._optimizer.load_state_dict(stored["optimizer"])
        torch.set_rng_state(stored["random"])


def severity_loss(
    model: Qwen3ForCausalLM,
    to_vector: torch.nn.Linear,
    batch: list[Example],
    hidden: torch.Tensor,
    severity_ids: list[int],
) -> torch.Tensor:
    """Give the loss behind `Safety:`: of the severity, taught as a distribution, and of the encoder's vector."""
    # Over the three labels only: that the next token is one of them is a matter of format.
    labels = torch.log_softmax(hidden @ model.lm_head.weight[severity_ids].T, -1)
    severities = torch.tensor(np.array([example.severities for example in batch]), dtype=torch.float32)
    vectors = torch.tensor(np.array([example.vector for example in batch]))
    likeness = torch.nn.functional.cosine_similarity(to_vector(hidden), vectors, dim=-1)
    return -(severities * labels).sum(-1).mean() + _VECTOR_WEIGHT * (1 - likeness).mean()


def format_loss(model: Qwen3ForCausalLM, batch: list[Example]) -> torch.Tensor:
    """Give the loss of the answers' tokens, summed over each answer."""
    ids = torch.zeros(len(batch), max(len(example) for example in batch) - 1, dtype=torch.long)
    where: list[tuple[int, int]] = []
    targets: list[int] = []
    for row, example in enumerate(batch):
        whole = example.prompt + example.answer
        ids[row, : len(whole) - 1] = torch.tensor(whole[:-1])
        # `Safety:` is a part of the prompt here, and it too has to be said.
        for at in range(len(example.prompt) - 2, len(whole)):
            where.append((row, at - 1))
            targets.append(whole[at])
    at_answers = torch.tensor(where)
    hidden = model.model(input_ids=ids).last_hidden_state[at_answers[:, 0], at_answers[:, 1]]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), torch.tensor(targets), reduction="sum") / len(batch)
