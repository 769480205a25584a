"""The shipped checkpoint is whole, small, and answers; no torch is needed to see that."""

from pathlib import Path

import ctranslate2
import pytest
from tokenizers import Tokenizer

import infra.nano
from infra.demo.messages import messages
from infra.nano.prompts import CATEGORIES, CHAT_TEMPLATE, SEVERITIES, Prompts, first_tokens, template
from tests.clear import HIDDEN, SAFE, UNSAFE

CHECKPOINT = Path(infra.nano.__file__).parent / "checkpoint"
LARGEST_BYTES = {"ct2": 25_000_000, "hf": 40_000_000}
BESIDE_THE_WEIGHTS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(CHECKPOINT / "ct2" / "tokenizer.json"))


@pytest.fixture(scope="module")
def generator() -> ctranslate2.Generator:
    return ctranslate2.Generator(str(CHECKPOINT / "ct2"), compute_type="int8")


def answer_to(text: str, role: str, tokenizer: Tokenizer, generator: ctranslate2.Generator) -> str:
    prompts = Prompts(tokenizer)
    ids = prompts.around(prompts.contents([text])[0], role)
    tokens = [tokenizer.id_to_token(token) for token in ids]
    result = generator.generate_batch([tokens], max_length=40, include_prompt_in_result=False)[0]
    return str(tokenizer.decode(result.sequences_ids[0]))


@pytest.mark.parametrize(("folder", "weights"), [("hf", "model.safetensors"), ("ct2", "model.bin")])
def test_each_folder_is_complete(folder: str, weights: str) -> None:
    assert {weights, *BESIDE_THE_WEIGHTS} <= {path.name for path in (CHECKPOINT / folder).iterdir()}
    assert (CHECKPOINT / folder / "chat_template.jinja").read_text() == CHAT_TEMPLATE.read_text()


@pytest.mark.parametrize(("folder", "largest_bytes"), LARGEST_BYTES.items())
def test_each_folder_stays_small_enough_for_the_repository(folder: str, largest_bytes: int) -> None:
    assert sum(path.stat().st_size for path in (CHECKPOINT / folder).iterdir()) <= largest_bytes


@pytest.mark.parametrize("words", [SEVERITIES, (*CATEGORIES, "None"), ("Yes", "No")])
def test_each_label_begins_with_a_token_of_its_own(words: tuple[str, ...], tokenizer: Tokenizer) -> None:
    assert len(set(first_tokens(tokenizer, words))) == len(words)


@pytest.mark.parametrize("text", ["hello", "  two\n\nlines ", "naïve café", "你好吗", "नमस्ते दुनिया", "🙂🙂", "\t- x:\n"])
def test_fixed_ids_around_a_content_equal_the_template_rendered_as_a_whole(text: str, tokenizer: Tokenizer) -> None:
    prompts = Prompts(tokenizer)
    whole = template().render(messages=[{"role": "user", "content": text}], add_generation_prompt=True)
    assert prompts.around(prompts.contents([text])[0]) == tokenizer.encode(whole).ids


@pytest.mark.parametrize(("text", "severity"), [(SAFE, "Safe"), (UNSAFE, "Unsafe"), (HIDDEN, "Safe")])
def test_a_clear_text_gets_the_right_severity(
    text: str, severity: str, tokenizer: Tokenizer, generator: ctranslate2.Generator
) -> None:
    assert answer_to(text, "user", tokenizer, generator).startswith(f"Safety: {severity}\nCategories: ")


def test_most_of_the_demos_messages_are_judged_as_their_authors_do(
    tokenizer: Tokenizer, generator: ctranslate2.Generator
) -> None:
    """A newcomer sees these first. Safe has to be harmless, and nothing else."""
    wrong = [
        message.text
        for message in messages()
        if answer_to(message.text, "user", tokenizer, generator).startswith("Safety: Safe\n") == bool(message.category)
    ]
    assert len(wrong) <= len(messages()) / 5, wrong


def test_a_response_is_answered_with_a_refusal_line(tokenizer: Tokenizer, generator: ctranslate2.Generator) -> None:
    lines = answer_to("The museum opens at nine.", "assistant", tokenizer, generator).split("\n")
    assert [line.split(":")[0] for line in lines] == ["Safety", "Categories", "Refusal"]
