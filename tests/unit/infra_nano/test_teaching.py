"""The texts and the targets of an epoch; these tests need torch and scikit-learn, so `make test-nano` runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.needs("sklearn")


def test_a_disputed_label_becomes_uncertain_and_an_undisputed_one_stays(tmp_path: Path) -> None:
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import rows, unlabelled

    texts = rows()
    # Of both kinds of words and under both labels: here a strict and a loose model disagree.
    for safe, unsafe in zip(texts[:80:2], texts[1:80:2], strict=True):
        safe["text"] = unsafe["text"] = f"{safe['text']} {unsafe['text']}"
    targets = make_targets(texts, unlabelled(), tmp_path, share=0)
    assert targets.severities.sum(axis=1) == pytest.approx(1)
    labelled = targets.severities[: len(texts)]
    assert 0 < targets.is_disputed.sum() < len(texts)
    np.testing.assert_array_equal(labelled.max(axis=1) < 1, targets.is_disputed)


def test_the_teacher_doubts_a_wrong_label_and_judges_unlabelled_texts(tmp_path: Path) -> None:
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import rows, unlabelled

    wrong = next(number for number, row in enumerate(rows()) if row["safety"] == "Safe")
    mislabelled = rows()
    mislabelled[wrong]["safety"] = "Unsafe"
    targets = make_targets(mislabelled, unlabelled(), tmp_path, share=0.8)
    assert targets.severities.sum(axis=1) == pytest.approx(1)
    assert targets.severities[wrong, 0] > 0.5
    assert len(targets.texts) == len(targets.severities) == len(targets.vectors) > len(mislabelled)


def test_cached_vectors_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.nano import encoder

    made = encoder.embed(["a garden", "a river"], tmp_path)
    monkeypatch.setattr(encoder, "USE", lambda threads: None)
    np.testing.assert_array_equal(encoder.embed(["a river", "a garden"], tmp_path), made[::-1])


def test_a_word_of_the_lexicon_makes_a_text_harmful_and_the_corpus_is_reproducible() -> None:
    from infra.nano.corpus import corpus, lexicon

    texts = corpus()
    assert texts == corpus()
    abusive = [each for each in texts if each.is_abusive]
    assert 0.1 < len(abusive) / len(texts) < 0.5
    for each in abusive[:500]:
        assert any(word in each.text for word in lexicon()[each.lang])


def test_a_teacher_finds_abuse_harmful_and_even_odds_favour_no_severity(tmp_path: Path) -> None:
    from infra.nano.targets import _even, make_targets
    from tests.unit.infra_nano.tiny_training import rows, unlabelled

    targets = make_targets(rows(), unlabelled(), tmp_path, share=1)
    assert unlabelled()[-1].is_abusive
    assert targets.severities[-1].argmax() > 0
    safe, controversial, unsafe = _even(np.array([0.5]), np.array([[0.3, 0.7]]))[0]
    assert safe == pytest.approx(unsafe)
    assert unsafe > controversial


def test_the_language_is_removed_from_the_vectors() -> None:
    from infra.nano.encoder import without_language

    rng = np.random.default_rng(1)
    langs = ["en", "fr"] * 1_500
    vectors = rng.normal(size=(len(langs), 8)).astype(np.float32)
    vectors[1::2] += 5
    centred = without_language(vectors, langs, 0)
    np.testing.assert_allclose(centred[::2].mean(axis=0), centred[1::2].mean(axis=0), atol=1e-4)


def test_the_last_layer_for_one_token_equals_the_whole_model() -> None:
    import torch

    from infra.nano.network import last_hidden, new_model

    model = new_model(50, 64, 2).eval()
    prompts = [[1, 2, 3, 4, 5], [6, 7], [8] * 9]
    with torch.no_grad():
        together = last_hidden(model, prompts)
        for prompt, hidden in zip(prompts, together, strict=True):
            whole = model.model(input_ids=torch.tensor([prompt])).last_hidden_state[0, -1]
            torch.testing.assert_close(hidden, whole, atol=1e-4, rtol=1e-4)


def test_a_bag_of_tokens_is_the_network_with_uniform_attention() -> None:
    import torch

    from infra.nano.network import bag_hidden, last_hidden, new_model

    model = new_model(50, 64, 2)
    prompts = [[1, 2, 3, 4, 5], [6, 7], [8] * 9]
    with torch.no_grad():
        lower, top = model.model.layers
        lower.self_attn.o_proj.weight.zero_()
        lower.mlp.down_proj.weight.zero_()
        assert not torch.allclose(bag_hidden(model, prompts), last_hidden(model, prompts), atol=1e-4)
        top.self_attn.q_norm.weight.zero_()
        torch.testing.assert_close(bag_hidden(model, prompts), last_hidden(model, prompts), atol=1e-4, rtol=1e-4)


def test_an_epoch_can_be_drawn_again_and_its_batches_keep_the_bound(tmp_path: Path) -> None:
    from infra.nano.batches import Epochs
    from infra.nano.prompts import make_tokenizer
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import rows, unlabelled

    tokenizer = make_tokenizer([row["text"] for row in rows()])
    epochs = Epochs(rows(), make_targets(rows(), unlabelled(), tmp_path, share=0), tokenizer, tokens=512)
    first, again = epochs.draw(0), epochs.draw(0)
    assert [[each.prompt for each in batch] for batch in first] == [[each.prompt for each in batch] for batch in again]
    assert [each.prompt for batch in first for each in batch] != [
        each.prompt for batch in epochs.draw(1) for each in batch
    ]
    assert all(len(batch) * max(len(example) for example in batch) <= 512 + 6 * len(batch) for batch in first)


def test_the_parts_of_a_token_spell_it() -> None:
    from infra.nano.batches import merges
    from infra.nano.prompts import make_tokenizer

    tokenizer = make_tokenizer(["a garden by the river"] * 50)
    parts = merges(tokenizer)
    assert len(parts) > 100
    for token, (left, right) in parts.items():
        assert tokenizer.id_to_token(token) == f"{tokenizer.id_to_token(left)}{tokenizer.id_to_token(right)}"


def test_the_model_writes_what_the_format_loss_teaches(tmp_path: Path) -> None:
    import torch

    from infra.nano.batches import Epochs
    from infra.nano.fit import format_loss
    from infra.nano.network import new_model
    from infra.nano.prompts import make_tokenizer
    from infra.nano.targets import make_targets
    from tests.unit.infra_nano.tiny_training import rows, unlabelled

    torch.manual_seed(1)
    tokenizer = make_tokenizer([row["text"] for row in rows()])
    epochs = Epochs(rows(), make_targets(rows(), unlabelled(), tmp_path, share=0), tokenizer, tokens=512)
    labelled = [each for each in epochs.draw(0)[0] if each.answer][:1]
    model = new_model(tokenizer.get_vocab_size(), 64, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        format_loss(model, labelled).backward()
        optimizer.step()
    (example,) = labelled
    # From before the forced `Safety:`, which a model that is asked to write says by itself.
    forced, written = example.prompt[-2:], example.prompt[:-2]
    with torch.no_grad():
        for _ in range(len(forced) + len(example.answer)):
            written = [*written, int(model(input_ids=torch.tensor([written])).logits[0, -1].argmax())]
    assert written == [*example.prompt, *example.answer]
