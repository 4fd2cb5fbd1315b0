"""The shipped model is today's: tokenizer, recipe and data fit the code, and it is as good as its card says."""

import json
import math
import statistics
from dataclasses import asdict

import pytest
import scripts
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoTokenizer,
    BertConfig,
)

from bertcourse.assets import asset
from bertcourse.bert import BertModel
from bertcourse.cloze import recall
from bertcourse.corpus import documents, load_tokenizer
from bertcourse.pieces import toy_pieces
from bertcourse.pretraining import Recipe

FOLDER = asset("tiny-bert")
METRICS = json.loads((FOLDER / "metrics.json").read_text(encoding="utf-8"))
ship_model = scripts.tool("ship_model")


def plain(value):
    """As JSON keeps it: lists instead of tuples."""
    return json.loads(json.dumps(value))


def test_small_enough_and_complete():
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    assert size <= 6_000_000
    names = {file.name for file in FOLDER.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
                     "README.md", "metrics.json", "history.jsonl", "pretrain.toml", "CORPUS.md"}  # fmt: skip
    assert not names & {"pytorch_model.bin", "optimizer.pt"}


@pytest.mark.parametrize("cls", [AutoModel, AutoModelForMaskedLM, AutoModelForNextSentencePrediction, AutoModelForPreTraining])
def test_loads_with_every_weight(cls):
    model, info = cls.from_pretrained(FOLDER, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    if cls is AutoModelForPreTraining:
        assert not info["unexpected_keys"]
        assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_tokenizer_is_todays(todays_tokenizer):
    stored, today = load_tokenizer(), load_tokenizer(todays_tokenizer)
    assert stored.get_vocab() == today.get_vocab()
    assert AutoTokenizer.from_pretrained(FOLDER).model_max_length == BertConfig.from_pretrained(FOLDER).max_position_embeddings


def test_recipe_is_todays():
    recipe = Recipe.read(FOLDER / "pretrain.toml", seed=METRICS["seed"])
    assert METRICS["recipe"] == plain(asdict(recipe))
    stored, today = BertConfig.from_pretrained(FOLDER), recipe.config(len(load_tokenizer()))
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
                 "max_position_embeddings", "type_vocab_size", "initializer_range", "hidden_dropout_prob",
                 "attention_probs_dropout_prob", "layer_norm_eps"):  # fmt: skip
        assert getattr(stored, name) == getattr(today, name), name


def test_data_is_todays():
    assert METRICS["data"] == ship_model.fingerprint(load_tokenizer())


def test_fingerprint_sees_one_other_document():
    tokenizer = load_tokenizer()
    assert toy_pieces(tokenizer, 50).fingerprint() != toy_pieces(tokenizer, 50, start=1).fingerprint()


def test_history_is_of_this_run():
    rows = [json.loads(line) for line in (FOLDER / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[-1]["step"] == METRICS["steps"] == METRICS["recipe"]["steps"]
    losses = [row["loss"] for row in rows if "loss" in row]  # the others are evaluations
    assert losses[-1] < losses[0] / 3


def test_card_is_made_from_the_figures():
    parameters = sum(p.numel() for p in AutoModelForPreTraining.from_pretrained(FOLDER).parameters())
    size = (FOLDER / "model.safetensors").stat().st_size
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == ship_model.card(METRICS, parameters, size)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_scores_come_again(lang):
    "On other documents than those of the card: within four standard errors, for each kind of determined word."
    model = AutoModelForPreTraining.from_pretrained(FOLDER).eval()
    right = recall(model, load_tokenizer(), documents(60, seed=0, lang=lang, split="test", start=5_000))
    for kind, answers in right.items():
        p, n = METRICS["test"][lang][kind], len(answers)
        assert abs(statistics.mean(answers) - p) < 4 * math.sqrt(max(p * (1 - p), 0.02) / n) + 0.03, kind


def test_the_model_to_read_gives_the_same():
    ids = load_tokenizer()("My dog is hairy.", "我的狗毛茸茸的。", return_tensors="pt")
    ours, theirs = BertModel.from_pretrained(FOLDER), AutoModel.from_pretrained(FOLDER).eval()
    with torch.no_grad():
        gap = ours(**ids).last_hidden_state - theirs(**ids).last_hidden_state
    assert gap.abs().max() < 1e-5


def test_three_seeds_and_the_first_one_ships():
    seeds = [row["seed"] for row in METRICS["seeds"]]
    assert len(set(seeds)) >= 3 and METRICS["seed"] == seeds[0]
    assert METRICS["test"] == {lang: METRICS["seeds"][0][lang] for lang in ("en", "zh")}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_good_enough(lang):
    def mean(kind):
        return statistics.mean(row[lang][kind] for row in METRICS["seeds"])

    assert mean("determined") >= 0.85
    assert min(mean("world"), mean("carried"), mean("agreement")) >= 0.80
    assert mean("free") <= 1.10
    assert mean("nsp") >= 0.95
