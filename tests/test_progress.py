"""Baselines count what they say, curves keep to their panels, recipes are compared in full, mixes by the right test."""

import math
import statistics
from dataclasses import fields

import numpy as np
import pytest
import torch

from bertcourse.corpus import WORLD, load_tokenizer
from bertcourse.experiments import Recording, recorded
from bertcourse.masking import Masking, compare_with, count_predictions, plot_masking_mixes
from bertcourse.pieces import Pieces
from bertcourse.plots import caption_text
from bertcourse.pretraining import pseudo_perplexity
from bertcourse.progress import count_known_facts, count_most_common, ngram_baselines, plot_progress
from bertcourse.recipes import Recipe, compare_recipes

TOKENIZER = load_tokenizer()
MASK = TOKENIZER.mask_token_id


# --- n-grams ------------------------------------------------------------------------------------------------------


def pieces_of(*ids):
    "One document of one sentence."
    return Pieces(np.array(ids), np.ones(len(ids), bool), np.array([0, len(ids)]), np.array([0, 1]))


def test_ngrams_by_hand():
    "After 7 comes 8 twice and 9 once; 7 is the most common token."
    pieces = pieces_of(7, 8, 7, 8, 7, 9, 7)
    batch = {"input_ids": torch.tensor([[2, 7, MASK, 3]]), "labels": torch.tensor([[-100, -100, 8, -100]])}
    found = ngram_baselines(pieces, batch, vocab_size=20)
    alone = (2 + 0.1) / (7 + 0.1 * 20)
    assert found["unigrams"]["loss"] == pytest.approx(-math.log(alone)) and found["unigrams"]["accuracy"] == 0
    assert found["bigrams"]["loss"] == pytest.approx(-math.log((2 + alone) / (3 + 1))) and found["bigrams"]["accuracy"] == 1


def test_bigrams_see_the_original_on_the_left():
    pieces = pieces_of(7, 8, 9, 7, 8, 9)
    batch = {"input_ids": torch.tensor([[2, MASK, MASK, 3]]), "labels": torch.tensor([[-100, 7, 8, -100]])}
    found = ngram_baselines(pieces, batch, vocab_size=20)["bigrams"]
    assert found["accuracy"] == 1  # after 2, never seen, the most common token, which is 7 or one as common
    lone = (2 + 0.1) / (6 + 0.1 * 20)
    assert found["loss"] == pytest.approx(statistics.mean([-math.log((0 + lone) / 1), -math.log((2 + lone) / 3)]))


# --- curves and facts ---------------------------------------------------------------------------------------------


class History:
    "Scores of three evaluations."

    def column(self, name):
        return [100, 200, 300], {"dev.loss": [5.0, 3.0, 2.0], "dev.nsp": [0.6, 0.6, 0.6]}[name]


def test_each_score_has_a_panel_of_its_own():
    figure = plot_progress(History(), {"loss": "MLM loss", "nsp": "NSP"}, {"loss": {"bigrams": 2.5}, "nsp": {"frequent": 0.6}},
                           caption=("甲", "A"))  # fmt: skip
    html = figure.html()
    for text in ("MLM loss", "NSP", "bigrams", "frequent", "甲"):
        assert html.count(text) >= 1, text
    assert html.count("stroke-dasharray") >= 2


class Knows:
    "A model that always says the same token."

    device = torch.device("cpu")

    def __init__(self, word):
        self.id = TOKENIZER.convert_tokens_to_ids(word)

    def __call__(self, input_ids, **_):
        logits = torch.zeros(*input_ids.shape, len(TOKENIZER))
        logits[..., self.id] = 9.0
        return type("Output", (), {"logits": logits})()


def test_facts_are_counted_for_each_person():
    common = count_most_common()
    pets = [person.pet.kind.en.lower() for person in WORLD.people.values()]
    favourite = max(set(pets), key=pets.count)
    found = count_known_facts(Knows(favourite), TOKENIZER)
    assert found["pet"] == common["pet"] == pets.count(favourite) and found["home"] == 0
    assert found.keys() == common.keys() and all(0 < count < len(pets) for count in common.values())


# --- pseudo-perplexity --------------------------------------------------------------------------------------------


class Uniform(torch.nn.Module):
    "Knows nothing."

    device = torch.device("cpu")

    def forward(self, input_ids):
        assert (input_ids == MASK).sum(1).tolist() == [1] * len(input_ids)  # each row hides one token
        return (torch.zeros(*input_ids.shape, len(TOKENIZER)),)


def test_who_knows_nothing_has_the_size_of_the_vocabulary():
    assert pseudo_perplexity(Uniform(), TOKENIZER, "My dog is hairy.") == pytest.approx(len(TOKENIZER), rel=1e-5)


class Right(torch.nn.Module):
    "Knows the sentence."

    device = torch.device("cpu")

    def forward(self, input_ids):
        ids = torch.tensor(TOKENIZER("My dog is hairy.")["input_ids"])
        return (50.0 * torch.nn.functional.one_hot(ids, len(TOKENIZER)).float().repeat(len(input_ids), 1, 1),)


def test_who_is_sure_and_right_has_one():
    assert pseudo_perplexity(Right(), TOKENIZER, "My dog is hairy.") == pytest.approx(1.0)


# --- recipes and mixes --------------------------------------------------------------------------------------------


def test_all_settings_are_compared():
    shown = compare_recipes({"a": Recipe(), "b": Recipe(put_back=False, masking=Masking(max_predictions=20))})
    names = [row[0] for row in shown.rows]
    assert names == [f.name for f in fields(Recipe) if f.name != "masking"] + [f"masking.{f.name}" for f in fields(Masking)]
    cells = {row[0]: row[1:] for row in shown.rows}
    assert cells["put_back"] == ["yes", "no"] and cells["masking.max_predictions"] == ["0", "20"]
    assert cells["lengths"] == ["64: 0.9, 128: 0.1"] * 2 and cells["copies"] == ["–", "–"]


def test_options_are_those_of_the_recipe():
    options = Recipe(steps=7, lr=0.5, betas=(0.8, 0.9)).options()
    assert (options["steps"], options["lr"], options["betas"], options["schedule"]) == (7, 0.5, (0.8, 0.9), "linear")


def test_googles_number():
    assert count_predictions(np.array([3, 10, 128, 512]), 0.15, 20).tolist() == [1, 2, 19, 20]
    assert count_predictions(np.array([512]), 0.15, 80).tolist() == [77]


def recording(*rows):
    "An experiment with these rows: arm, seed, score."
    rows = [{"arm": arm, "seed": seed, "score": score} for arm, seed, score in rows]
    return Recording("x", rows, {}, {}, "", "", "2026-01-01", 1.0)


def test_one_arm_is_compared_with_each_other_by_seed():
    result = recording(*[("b", s, 0.5 + 0.1 * s) for s in range(4)], *[("a", s, 0.6 + 0.1 * s + 0.001 * s * s) for s in range(4)],
                       *[("c", s, 0.5 + 0.01 * (-1) ** s) for s in range(4)])  # fmt: skip
    found = compare_with(result, "a", "score")
    assert [(c.one, c.other) for c in found] == [("a", "b"), ("a", "c")]
    assert found[0].difference == pytest.approx(0.1 + 0.0035) and found[0].p < 0.001
    alone = result.compare("score")  # three pairs there, two here
    assert {frozenset((c.one, c.other)) for c in alone} > {frozenset((c.one, c.other)) for c in found}


def test_the_recorded_mixes():
    found = compare_with(recorded("3.1-masking-mixes"), "80/10/10", "fine-tuned", "frozen")
    assert len(found) == 10 and [(c.score, c.other) for c in found if c.p < 0.05] == [("frozen", "80/20/0")]
    html = plot_masking_mixes("3.1-mixes").html()
    assert "80/20/0" in html and recorded("3.1-masking-mixes").provenance()[1] in html
    assert caption_text("3.1-mixes", provenance=("甲", "A"))[1].endswith("A")
