"""The training loop. It saves its state regularly: after a kill the same command continues.

A training has stages, and in each the learning rate warms up again. The first stage trains the network as a bag of
tokens, which teaches the tokens' meanings at a fraction of the cost. The others train the whole network. Each step asks
a text's severity and vector, a harmful one's category, and whether a response refuses; in some steps a few texts also
teach the whole answer. The last stage is short, and teaches many whole answers in each step.
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
from infra.nano.network import bag_hidden, hidden_at
from infra.nano.prompts import Labels
from infra.nano.teacher import WIDTH

_WARM_UP_STEPS = 40
_BAG_SCALE = 4
"""The factor by which batches are larger while the network is a bag of tokens."""
_FIRST_RATES, _FURTHER_RATE, _LAST_RATE = (2.0, 1.0), 0.6, 0.2
"""The highest learning rate of each stage, as a multiple of the plan's."""
_CATEGORY_WEIGHT, _REFUSAL_WEIGHT, _FORMAT_WEIGHT, _VECTOR_WEIGHT = 0.5, 0.3, 0.3, 1.0
_FORMAT_EVERY, _FORMAT_TEXTS = 4, 8
"""Each so many steps, so many texts teach the whole answer. In every step it would drown the severity."""
_LAST_FORMAT_WEIGHT, _LAST_FORMAT_TEXTS = 0.5, 32
"""What the last stage has instead, in every step. Without it two of three responses got no line about the refusal."""
_TOKENS_RATE = 0.3
"""The embeddings' fraction of the learning rate: what is learnt with the seen tokens must also hold for unseen ones,
whose embeddings do not move."""
_DECAY = 0.05
_AVERAGED, _AVERAGED_EACH = 0.9, 5
"""The fraction of the running mean of the weights that stays when it is renewed, each so many steps."""


@dataclass(frozen=True)
class Plan:
    """How to train."""

    stages: tuple[int, ...]
    """The number of steps after which each stage ends, three stages at least."""
    rate: float
    save_every_s: float
    inputs: str = ""
    """Names all else that decides what comes out: a state made with other inputs is another training's."""

    def __post_init__(self) -> None:
        if len(self.stages) < 3 or list(self.stages) != sorted(set(self.stages)):
            raise SystemExit(f"stages that end after {self.stages} steps: name three rising numbers or more")


class Fit:
    """The state of a training: the model, the mean of its late weights, and the position in the epochs."""

    def __init__(self, model: Qwen3ForCausalLM, labels: Labels, plan: Plan, state: Path | None = None) -> None:
        self._model = model
        self._labels = labels
        self._plan = plan
        self._state = state
        # Only training needs it: it says what the encoder would have said of the text.
        self._to_vector = torch.nn.Linear(model.config.hidden_size, WIDTH).to(model.device)
        tokens = model.model.embed_tokens.weight
        others = [p for p in (*model.parameters(), *self._to_vector.parameters()) if p is not tokens]
        groups = [
            {"params": [tokens], "share": _TOKENS_RATE, "weight_decay": 0.0},
            {"params": others, "share": 1.0, "weight_decay": _DECAY},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
        self._mean = [p.detach().clone() for p in model.parameters()]
        self._named: tuple[torch.Tensor, ...] = ()
        self._step = self._epoch = self._batch = 0
        if state is not None and state.exists():
            self._load(state)

    def run(self, epochs: Epochs) -> None:
        """Train to the last step; leave the mean of the weights in the model."""
        progress = tqdm(total=self._plan.stages[-1], initial=self._step, unit="step", desc="training")
        self._model.train()
        saved = time.monotonic()
        while self._step < self._plan.stages[-1]:
            end = self._plan.stages[self._stage]
            batches = epochs.draw(self._epoch, _BAG_SCALE if self._is_bag else 1, teach_answers=self._is_last)
            for batch in batches[self._batch : self._batch + end - self._step]:
                loss = self._learn(batch)
                self._batch += 1
                if self._step == end or self._batch == len(batches):
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

    @property
    def _stage(self) -> int:
        return next(number for number, end in enumerate(self._plan.stages) if self._step < end)

    @property
    def _is_bag(self) -> bool:
        return self._stage == 0

    @property
    def _is_last(self) -> bool:
        return self._stage == len(self._plan.stages) - 1

    def _learn(self, batch: list[Example]) -> float:
        # Read once a step: each reading costs a gradient as large as the embeddings.
        every = [*self._labels.severities, *self._labels.categories, *self._labels.refusals]
        self._named = self._model.lm_head.weight[every].split([3, len(self._labels.categories), 2])
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate() * group["share"]
        if self._is_bag:
            loss = self._judgement_loss(batch, bag_hidden(self._model, [example.prompt for example in batch]))
        else:
            loss = self._whole_loss(batch)
            if labelled := [each for each in batch if each.reply]:
                if self._is_last:
                    loss = loss + _LAST_FORMAT_WEIGHT * format_loss(self._model, labelled[:_LAST_FORMAT_TEXTS])
                elif self._step % _FORMAT_EVERY == 0:
                    loss = loss + _FORMAT_WEIGHT * format_loss(self._model, labelled[:_FORMAT_TEXTS])
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._step += 1
        if self._step % _AVERAGED_EACH == 0:
            # The mean follows quickly at first, because the weights of the first steps are useless.
            kept = min(_AVERAGED, self._step / (self._step + 10 * _AVERAGED_EACH))
            with torch.no_grad():
                for p, mean in zip(self._model.parameters(), self._mean, strict=True):
                    mean.lerp_(p, 1 - kept)
        return float(loss.detach())

    def _whole_loss(self, batch: list[Example]) -> torch.Tensor:
        sequences, positions = zip(*(_asked(example) for example in batch), strict=True)
        hidden = hidden_at(self._model, list(sequences), list(positions))
        starts = np.cumsum([0, *(len(each) for each in positions)])[:-1]
        loss = self._judgement_loss(batch, hidden[starts.tolist()])
        asked = [number for number, each in enumerate(batch) if each.categories is not None]
        if asked:
            loss = loss + self._category_loss([batch[number] for number in asked], hidden[(starts[asked] + 1).tolist()])
        ends = np.cumsum([len(each) for each in positions]) - 1
        refusing = [(at, each.refusal) for at, each in zip(ends, batch, strict=True) if each.refusal]
        if refusing:
            said = hidden[[at for at, _ in refusing]] @ self._named[2].T
            taught = torch.tensor([("Yes", "No").index(refusal) for _, refusal in refusing], device=said.device)
            each_loss = torch.nn.functional.cross_entropy(said, taught, reduction="sum")
            loss = loss + _REFUSAL_WEIGHT * each_loss / max(len(refusing), 4)
        return loss

    def _judgement_loss(self, batch: list[Example], hidden: torch.Tensor) -> torch.Tensor:
        """Give the loss behind `Safety:`: of the severity, taught as a distribution, and of the encoder's vector.

        A harmful text's category is taught there too. It is said later, behind a text that ends with the same sign, so
        that what the network finds out for the one answer serves the other.
        """
        # Over the three labels only: that the next token is one of them is a matter of format.
        said = torch.log_softmax(hidden @ self._named[0].T, -1)
        taught = torch.from_numpy(np.array([example.severities for example in batch])).to(said.device)
        vectors = torch.from_numpy(np.array([example.vector for example in batch])).to(said.device)
        likeness = torch.nn.functional.cosine_similarity(self._to_vector(hidden), vectors, dim=-1)
        loss = -(taught * said).sum(-1).mean() + _VECTOR_WEIGHT * (1 - likeness).mean()
        asked = [number for number, example in enumerate(batch) if example.categories is not None]
        return loss + self._category_loss([batch[number] for number in asked], hidden[asked]) if asked else loss

    def _category_loss(self, batch: list[Example], hidden: torch.Tensor) -> torch.Tensor:
        said = torch.log_softmax(hidden @ self._named[1].T, -1)
        taught = torch.from_numpy(np.array([example.categories for example in batch])).to(said.device)
        return -_CATEGORY_WEIGHT * (taught * said).sum(-1).mean()

    def _rate(self) -> float:
        """Give this step's rate: in each stage it warms up and cools down."""
        begin = self._plan.stages[self._stage - 1] if self._stage else 0
        at, of = self._step - begin, self._plan.stages[self._stage] - begin
        cosine = 0.5 + 0.5 * math.cos(math.pi * at / of)
        share = _FIRST_RATES[self._stage] if self._stage < len(_FIRST_RATES) else _FURTHER_RATE
        rate = self._plan.rate * (_LAST_RATE if self._is_last else share)
        return rate * min(1.0, (at + 1) / _WARM_UP_STEPS) * cosine + 1e-6

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
        stored = torch.load(state, weights_only=True, map_location=self._model.device)
        if stored["plan"] != asdict(self._plan):
            raise SystemExit(
                f"{state} is of a training with other texts, code or settings ({stored['plan']}): remove or repeat it"
            )
        self._step, self._epoch, self._batch = stored["at"]
        self._model.load_state_dict(stored["model"])
        self._to_vector.load_state_dict(stored["to_vector"])
        self._mean = stored["mean"]
        self._optimizer.load_state_dict(stored["optimizer"])
        torch.set_rng_state(stored["random"].cpu())


def _asked(example: Example) -> tuple[list[int], list[int]]:
    """Give the ids up to the last position that is asked, and the positions: severity, category and refusal if any."""
    end = len(example.prompt) - 1
    if example.reply is None:
        return example.prompt, [end]
    positions = [end]
    if example.categories is not None:
        positions.append(end + example.reply.category_at)
    if example.reply.refusal_at is not None:
        positions.append(end + example.reply.refusal_at)
    return [*example.prompt, *example.reply.ids[: positions[-1] - end]], positions


def format_loss(model: Qwen3ForCausalLM, batch: list[Example]) -> torch.Tensor:
    """Give the loss of the answers' tokens, summed over each answer."""
    whole = [[*example.prompt, *(example.reply.ids if example.reply else [])] for example in batch]
    # `Safety:` is a part of the prompt here, and it too has to be said.
    positions = [[*range(len(each.prompt) - 3, len(ids) - 1)] for each, ids in zip(batch, whole, strict=True)]
    targets = [ids[at + 1] for ids, each in zip(whole, positions, strict=True) for at in each]
    hidden = hidden_at(model, [ids[:-1] for ids in whole], positions)
    taught = torch.tensor(targets, device=hidden.device)
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), taught, reduction="sum") / len(batch)
