"""TRL's trainer runs real steps with the reward. `make test-trl` has the packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from workers.reward.equations import Equation
from workers.reward.trainer import GuardReward
from workers.settings import Settings

# Warnings of the trainer and its libraries about each other.
pytestmark = [pytest.mark.needs("trl"), pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]

STEPS = 4
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learned.train_from_iterator(["hello how are you today, I can help"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learned, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(tokens: int) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=tokens,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=1,
    )
    return Qwen3ForCausalLM(config)


def capitals(prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """Stand in for a reward model: with equal rewards in a group, nothing would be learned."""
    texts = [each if isinstance(each, str) else each[0]["content"] for each in completions]
    return [float(sum(char.isupper() for char in text)) + len(text) / 100 for text in texts]


@pytest.mark.parametrize("is_conversational", [False, True])
@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_grpo_learns_from_the_reward(tmp_path: Path, is_conversational: bool, is_asynchronous: bool) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    before = model.model.layers[0].self_attn.q_proj.weight.clone()
    texts = [f"say {number}" for number in range(8)]
    prompts = [[{"role": "user", "content": text}] for text in texts] if is_conversational else texts
    calls: list[list[float | None]] = []
    with (
        GuardReward(settings=Settings()) as guard_only,
        GuardReward(Equation("hybrid"), score=capitals, settings=Settings()) as hybrid,
    ):

        def noted(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            calls.append(hybrid(prompts=prompts, completions=completions, **columns))
            return calls[-1]

        async def noted_later(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
            calls.append(await hybrid.asynchronous(prompts=prompts, completions=completions, **columns))
            return calls[-1]

        trainer = GRPOTrainer(
            model=model,
            reward_funcs=[guard_only, noted_later if is_asynchronous else noted],
            args=GRPOConfig(
                output_dir=str(tmp_path),
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=12,
                max_steps=STEPS,
                logging_steps=1,
                learning_rate=1e-3,
                beta=0.0,
                report_to=[],
                use_cpu=True,
                bf16=False,
                save_strategy="no",
                disable_tqdm=True,
                activation_checkpointing=False,
                seed=3,
            ),
            train_dataset=Dataset.from_dict({"prompt": prompts, "tenant": ["acme"] * 8}),
            processing_class=tokenizer,
        )
        trainer.train()
    assert len(calls) == STEPS
    assert all(len(rewards) == 4 for rewards in calls)
    assert len({reward for rewards in calls for reward in rewards}) > 1
    logged = [line for line in trainer.state.log_history if "rewards/guardline_guard/mean" in line]
    assert len(logged) == STEPS
    assert all(0 <= line["rewards/guardline_guard/mean"] <= 1 for line in logged)
    moved = (model.model.layers[0].self_attn.q_proj.weight - before).abs().max().item()
    assert moved > 0
