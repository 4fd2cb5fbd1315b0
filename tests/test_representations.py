"""Sentence vectors, probes, senses and interventions of page 8.5."""

import random

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from bertcourse import representations as r
from bertcourse.profiles import load


@pytest.fixture(scope="module")
def profile():
    return load()


@pytest.fixture(scope="module")
def tokenizer(profile):
    return profile.tokenizer()


@pytest.fixture(scope="module")
def encoder(profile):
    return profile.model(AutoModel)


@pytest.fixture(scope="module")
def masked_lm(profile):
    return profile.model(AutoModelForMaskedLM, attn_implementation="eager")


def test_pool_by_hand():
    states = torch.tensor([[[1.0, 5.0], [3.0, 1.0], [100.0, 100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert r.pool(states, mask, "cls").tolist() == [[1, 5]]
    assert r.pool(states, mask, "mean").tolist() == [[2, 3]]
    assert r.pool(states, mask, "max").tolist() == [[3, 5]]
    with pytest.raises(ValueError, match="how must be"):
        r.pool(states, mask, "sum")


@pytest.mark.parametrize("how", ["cls", "mean", "max"])
def test_padding_does_not_count(encoder, tokenizer, how):
    texts = ["Anna likes rice.", "Her brother lives in Tokyo with his dog and his parents."]
    together = r.sentence_vectors(encoder, tokenizer, texts, how)
    alone = torch.cat([r.sentence_vectors(encoder, tokenizer, [text], how) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)


LONG = "Anna likes rice. " * 200  # 800 tokens


@pytest.mark.parametrize("limit", [None, int(1e30)], ids=["recorded", "not recorded"])
def test_what_is_too_long_is_cut(encoder, profile, limit):
    "At the positions of the model, whether the tokenizer knows them or not."
    tokenizer = profile.tokenizer()
    most = tokenizer.model_max_length
    ids = tokenizer(LONG)["input_ids"]
    assert len(ids) > most == encoder.config.max_position_embeddings
    tokenizer.model_max_length = limit or most
    found = r.sentence_vectors(encoder, tokenizer, ["Anna likes rice.", LONG])
    cut = torch.tensor([[*ids[:most - 1], tokenizer.sep_token_id]])
    with torch.no_grad():
        expected = encoder(cut).last_hidden_state.mean(1)
    assert torch.allclose(found[1:], expected, atol=1e-5)


def test_what_cannot_be_cut_is_refused(encoder, masked_lm, profile):
    tokenizer = profile.tokenizer()
    most = tokenizer.model_max_length
    words = [word for sentence in r.read_words("en", 80, "train") for word in sentence]
    with pytest.raises(ValueError, match=rf"a text has \d+ tokens, the model takes {most}: shorten it"):
        r.word_states(encoder, tokenizer, [words])
    with pytest.raises(ValueError, match=f"the model takes {most}"):
        r.sense_states(encoder, tokenizer, "en", "bank", [LONG + "Ben put two yuan in the bank."])
    with pytest.raises(ValueError, match=f"the model takes {most}"):
        r.explain_gap(masked_lm, tokenizer, LONG + "She had a [MASK] of rice.", [5])


def test_dropout_is_off_after_training(profile, tokenizer):
    "And the model is in train mode as before."
    model = profile.model(AutoModel, hidden_dropout_prob=0.5).train()
    sentences, senses = r.read_words("en", 1, "train"), r.sense_sentences("en", "bank", count=2)[0]
    for measure in (lambda: r.sentence_vectors(model, tokenizer, ["Anna likes rice."]), lambda: r.word_states(model, tokenizer, sentences),
                    lambda: r.sense_states(model, tokenizer, "en", "bank", senses)):  # fmt: skip
        assert torch.equal(measure(), measure())
    assert all(module.training for module in model.modules())
    answering = profile.model(AutoModelForMaskedLM, hidden_dropout_prob=0.5, attn_implementation="eager").train()
    first, second = (r.compare_attention(answering, tokenizer, ["She had a [MASK] of rice for dinner."]) for _ in range(2))
    assert first == second and set(first) == {"Spearman", "same token", "chance"}


def test_similarity_and_overlap(tokenizer):
    first, second = torch.eye(3), torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 0]])
    assert r.similarity_score(first, second, [5, 3, 0]) == pytest.approx(1)
    assert r.token_overlap(tokenizer, ["Anna likes rice."], ["Anna likes rice."]) == [1]
    assert r.token_overlap(tokenizer, ["Anna likes rice."], ["Ben likes rice."]) == [3 / 5]  # anna, ben; likes, rice and the full stop in both
    assert r.token_overlap(tokenizer, ["cake", ""], ["rice", ""]) == [0, 0]  # [CLS] and [SEP] do not count
    with pytest.raises(ValueError):
        r.token_overlap(tokenizer, ["Anna likes rice."], [])


def test_compare_correlations():
    rng = np.random.default_rng(1)
    gold = rng.normal(size=200)
    good, bad = torch.tensor(gold + 0.1 * rng.normal(size=200)), torch.tensor(rng.normal(size=200))
    difference, low, high = r.compare_correlations(good, bad, gold, samples=100)
    assert 0.5 < low < difference < high
    difference, low, high = r.compare_correlations(good, good, gold, samples=20)
    assert difference == low == high == 0


def test_tuning_helps_and_is_reproducible(profile, tokenizer):
    rows = {"sentence1": ["Anna likes rice.", "Ben sat in the park."], "sentence2": ["Anna likes bread.", "It was cold."], "label": [5.0, 0.0]}
    cosines = []
    for _ in range(2):
        model = profile.model(AutoModel)
        torch.manual_seed(0)
        r.tune_sentence_vectors(model, tokenizer, rows, "mean", steps=12, batch_size=4)
        first, second = (r.sentence_vectors(model, tokenizer, rows[side]) for side in ("sentence1", "sentence2"))
        cosines.append(torch.cosine_similarity(first, second).tolist())
        assert not model.training
    assert cosines[0] == cosines[1] and cosines[0][0] > cosines[0][1] + 0.3


def test_probe_reads_what_is_there():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(200, 10, generator=generator)
    labels = ["a" if x > 0 else "b" for x in states[:, 3]]
    assert r.probe(states[:100], labels[:100], states[100:], labels[100:]) > 0.85
    with pytest.raises(ValueError):
        r.probe(states[:100], labels[:100], states[100:], labels[101:])
    other = [random.Random(i).choice("ab") for i in range(200)]
    assert r.probe(states[:100], other[:100], states[100:], other[100:]) < 0.65


def test_control_labels_depend_on_the_word_alone():
    labels = r.control_labels(["a", "b", "a", "c"], ["x", "x", "x", "y"])
    assert set(labels) == {"a", "b", "c"} and set(labels.values()) <= {"x", "y"}
    assert labels == r.control_labels(["c", "b", "a"], ["y", "x", "x", "x"])
    many = r.control_labels([str(i) for i in range(2000)], ["x"] * 3 + ["y"])
    assert sum(label == "x" for label in many.values()) / 2000 == pytest.approx(0.75, abs=0.04)


def test_words_and_layers(encoder, tokenizer):
    sentences = r.read_words("en", 3, "train")
    states = r.word_states(encoder, tokenizer, sentences)
    assert states.shape == (5, sum(map(len, sentences)), 128)
    texts = [word.text for word in sentences[1]]
    inputs = tokenizer(texts, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        alone = encoder(**inputs, output_hidden_states=True).hidden_states[4][0, inputs.word_ids().index(1)]
    assert torch.allclose(states[4, len(sentences[0]) + 1], alone, atol=1e-5)
    labels = {split: [word.role for sentence in sentences for word in sentence] for split in ("train", "test")}
    accuracy = r.probe_layers({"train": states, "test": states}, labels)
    assert len(accuracy) == 5 and min(accuracy) > 0.9
    some = r.probe_layers({"train": states, "test": states}, labels, {"train": range(20), "test": range(10)})
    assert len(some) == 5


@pytest.mark.parametrize("lang, word", [("en", "bank"), ("en", "light"), ("zh", "打"), ("zh", "高")])
def test_senses(encoder, tokenizer, lang, word):
    train, senses = r.sense_sentences(lang, word, count=5)
    test, _ = r.sense_sentences(lang, word, "test", count=5)
    assert len(train) == len(senses) == 10 and senses.count(senses[0]) == 5 and not {*train} & {*test}
    assert all(word in sentence for sentence in train)
    states = r.sense_states(encoder, tokenizer, lang, word, train, position=25)
    assert states.shape == (5, 10, 128) and torch.allclose(states[0], states[0, :1].expand(10, -1), atol=1e-6)
    assert not torch.allclose(states[4, 0], states[4, -1], atol=0.1)


def test_a_position_that_cannot_be_reached_is_refused(encoder, tokenizer):
    sentences, _ = r.sense_sentences("en", "bank", count=1)
    for position in (2, 120):
        with pytest.raises(ValueError, match="a word cannot move on by .* places: give a position that is 0 to"):
            r.sense_states(encoder, tokenizer, "en", "bank", sentences, position=position)
    with pytest.raises(ValueError, match="'bank' is no token of 'Anna likes rice.'"):
        r.sense_states(encoder, tokenizer, "en", "bank", ["Anna likes rice."])


def test_principal_components():
    line = torch.arange(6.0)[:, None] * torch.tensor([[3.0, 4.0, 0.0]])
    points = r.principal_components(line)
    assert points.shape == (6, 2) and points[:, 1].abs().max() < 1e-4
    assert (points[1:, 0] - points[:-1, 0]).abs().numpy() == pytest.approx(5, abs=1e-4)
    figure = r.plot_points({"a": points}, ["x", "y"] * 3)
    assert "<svg" in figure._repr_mimebundle_()["text/html"]


def test_points_of_every_label_are_drawn():
    points = {"a": torch.arange(48.0).view(24, 2)}
    names = [f"label {i}" for i in range(24)]
    html = r.plot_points({"a": points["a"][:9]}, names[:9]).html()
    assert all(f">{name}<" in html for name in names[:9])
    assert all(f">{name}<" in r.plot_points(points, names).html() for name in names)
    with pytest.raises(ValueError, match="25 labels, and at most 24 can be told apart"):
        r.plot_points({"a": torch.arange(50.0).view(25, 2)}, [*names, "one more"])


def test_replacements(masked_lm, tokenizer):
    ids = tokenizer("She had a [MASK] of rice for dinner.", return_tensors="pt")["input_ids"][0]
    rice, bread = tokenizer.convert_tokens_to_ids(["rice", "bread"])
    places, answers = r.replacement_effects(masked_lm, tokenizer, ids, [rice, bread])
    at = places.tolist().index(ids.tolist().index(rice))
    assert tokenizer.convert_ids_to_tokens(answers[at].tolist()) == ["bowl", "piece"]
    assert len(places) == len(ids) - 3 and answers.shape == (len(places), 2)  # but [CLS], [SEP], [MASK]


def test_explain_gap(masked_lm, tokenizer):
    candidates = r.frequent_tokens(tokenizer, "en", 40)
    assert len(candidates) == 40 and not {*candidates} & {*tokenizer.all_special_ids}
    found = r.explain_gap(masked_lm, tokenizer, "She had a [MASK] of rice for dinner.", candidates)
    shares = {row[0]: float(row[2].rstrip("%")) for row in found.rows}
    assert found.heads[0] == "[MASK] = bowl" and shares["rice"] > 80 and shares["she"] < 10


def test_a_token_is_not_replaced_by_itself(masked_lm, tokenizer):
    rice, bread = tokenizer.convert_tokens_to_ids(["rice", "bread"])
    found = r.explain_gap(masked_lm, tokenizer, "She had a [MASK] of rice for dinner.", [rice, bread])
    assert {row[0]: row[2] for row in found.rows}["rice"] == "100%"  # bread changes bowl to piece; rice is no replacement


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_attention_and_removal(masked_lm, tokenizer, lang):
    sentences = r.gap_sentences(tokenizer, lang, 5)
    assert len(sentences) == 5 and all(sentence.count("[MASK]") == 1 for sentence in sentences)
    found = r.compare_attention(masked_lm, tokenizer, sentences)
    assert all(len(values) == 5 for values in found.values()) and set(found["same token"]) <= {0.0, 1.0}
    assert all(-1 <= value <= 1 for value in found["Spearman"]) and all(0 < value < 0.5 for value in found["chance"])


def test_ambiguous_words():
    words = [word for sentence in r.read_words("en", 20, "train") for word in sentence]
    assert "the" not in r.ambiguous_words(words, "pos") and "bank" not in r.ambiguous_words(words, "pos")
    assert r.ambiguous_words(words, "role")
