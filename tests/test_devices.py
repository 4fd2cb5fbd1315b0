"""Functions that measure a model work where training has left it, and give what they give on the CPU.

There is no GPU here: `other_device` is a stand-in, which is tested first.
"""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from other_device import DEVICE, Remote, on_other_device
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    BertConfig,
    ModernBertConfig,
    RobertaConfig,
)

from bertcourse import deployment, heads, plots
from bertcourse import efficient_attention as efficient
from bertcourse import representations as r
from bertcourse.base.inference import evaluating, longest_input, on_device_of
from bertcourse.profiles import load
from bertcourse.runtime import Session, pad_arrays
from bertcourse.training import count_labels

TEXTS = ["Anna likes rice.", "Ben sat in the park, and his brother played the guitar."]
GAP = "She had a [MASK] of rice for dinner."


# --- the stand-in -------------------------------------------------------------------------------------------------

def test_the_other_device_computes_what_the_cpu_computes():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    expected = layer(x)
    expected_slope = torch.autograd.grad(expected.square().sum(), layer.weight)[0]
    with on_other_device(layer):
        assert layer.weight.device == DEVICE and isinstance(layer.weight, nn.Parameter)
        found = layer(x.to(DEVICE))
        slope = torch.autograd.grad(found.square().sum(), layer.weight)[0]
        assert isinstance(found, Remote) and found.device == slope.device == DEVICE
        assert torch.arange(3, device=DEVICE).device == DEVICE and torch.arange(3).device.type == "cpu"
        assert type(found.cpu()) is Tensor and torch.equal(found.cpu(), expected) and found.tolist() == expected.tolist()
    assert layer.weight.device.type == "cpu" and torch.equal(layer(x), expected)
    assert torch.equal(slope.inner, expected_slope)


def test_in_place_and_indices_work_as_on_a_gpu():
    with on_other_device():
        x = torch.zeros(3, device=DEVICE)
        same = x.add_(1)
        assert same is x and x[torch.tensor([0, 2])].device == DEVICE and (x * torch.tensor(2.0)).tolist() == [2, 2, 2]
        x.copy_(torch.arange(3.0))
        assert x.tolist() == [0, 1, 2] and x[1].item() == 1


@pytest.mark.parametrize("mix", [
    lambda x: x + torch.ones(3), lambda x: torch.ones(3, 3) @ x, lambda x: nn.functional.embedding(x.long(), torch.ones(3, 2)),
    lambda x: torch.ones(3)[x.long()], lambda x: x.numpy(), lambda x: np.asarray(x), lambda x: torch.cat([x, torch.ones(3)]),
])  # fmt: skip
def test_what_a_gpu_would_refuse_is_refused(mix):
    with on_other_device():
        x = torch.ones(3, device=DEVICE)
        with pytest.raises((RuntimeError, TypeError)):
            mix(x)


# --- what measures a model ----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def setup():
    "A model with the heads of pre-training, one that fills gaps, a classifier, their tokenizer and a batch."
    profile = load()
    torch.manual_seed(0)
    model = profile.model(AutoModelForPreTraining, attn_implementation="eager")
    answering = profile.model(AutoModelForMaskedLM, attn_implementation="eager")
    classifier = profile.model(AutoModelForSequenceClassification, num_labels=3, attn_implementation="eager")
    tokenizer = profile.tokenizer()
    batch = dict(tokenizer(TEXTS, padding=True, return_tensors="pt")) | {"labels": torch.tensor([0, 2])}
    return SimpleNamespace(model=model, encoder=model.base_model, answering=answering, classifier=classifier,
                           tokenizer=tokenizer, batch=batch, words=r.read_words("en", 2, "train"), q=torch.randn(3, 2, 70, 8))  # fmt: skip


def tuned(setup):
    "Sentence vectors of a copy that was trained."
    encoder = copy.deepcopy(setup.encoder) if setup.device == "cpu" else setup.encoder
    rows = {"sentence1": TEXTS, "sentence2": TEXTS[::-1], "label": [5.0, 0.0]}
    torch.manual_seed(0)
    r.tune_sentence_vectors(encoder, setup.tokenizer, rows, "mean", steps=2, batch_size=2)
    return r.sentence_vectors(encoder, setup.tokenizer, TEXTS)


def loss_without_a_head(setup):
    return heads.loss_without(setup.answering, [heads.masked_batch(setup.tokenizer, "en", 3)], 1, 2)


def senses(setup):
    return r.sense_states(setup.encoder, setup.tokenizer, "en", "bank", r.sense_sentences("en", "bank", count=2)[0])


def replaced(setup):
    ids = setup.tokenizer(GAP, return_tensors="pt")["input_ids"][0]
    return torch.cat([found.flatten() for found in r.replacement_effects(setup.answering, setup.tokenizer, ids, [5, 9])])


def similarity(setup):
    first, second = (torch.randn(9, 4, generator=torch.Generator().manual_seed(i)).to(setup.device) for i in (0, 1))
    cosines = torch.cosine_similarity(first, second)
    return [r.similarity_score(first, second, range(9)), *r.compare_correlations(cosines, -cosines, range(9), samples=3)]


def probed(setup):
    states = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)).to(setup.device)
    return r.probe(states[:30], ["a", "b"] * 15, states[30:], ["a", "b"] * 5)


def points(setup):
    states = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(setup.device)
    return r.plot_points({"a": r.principal_components(states)}, "xyxyxy")


def efficiently(name):
    return lambda setup: efficient.METHODS[name](*setup.q.to(setup.device))


def rows_of_pruned(setup):
    model = deployment.prune_heads(copy.deepcopy(setup.classifier) if setup.device == "cpu" else setup.classifier, {0: [1]})
    return model(**{name: value.to(setup.device) for name, value in setup.batch.items()}).logits


MEASURES = {
    "sentence_vectors": lambda g: r.sentence_vectors(g.encoder, g.tokenizer, TEXTS, "max"),
    "similarity_score": similarity,
    "word_states": lambda g: r.word_states(g.encoder, g.tokenizer, g.words),
    "probe": probed,
    "sense_states": senses,
    "plot_points": points,
    "replacement_effects": replaced,
    "explain_gap": lambda g: r.explain_gap(g.answering, g.tokenizer, GAP, [5, 9, 30]).rows,
    "compare_attention": lambda g: r.compare_attention(g.answering, g.tokenizer, [GAP]),
    "attention_weights": lambda g: heads.attention_weights(g.model, g.tokenizer(GAP, return_tensors="pt")),
    "collect_shares": lambda g: heads.collect_shares(g.model, g.tokenizer, "en", 2)["next token"]["share"],
    "plot_attention": lambda g: heads.plot_attention(g.model, g.tokenizer, GAP, heads={"a": (0, 1)}),
    "plot_gap": lambda g: heads.plot_gap(g.model, g.tokenizer, GAP, 2),
    "loss_without": loss_without_a_head,
    "head_vectors": lambda g: torch.stack(efficient.head_vectors(g.encoder, g.tokenizer, TEXTS[1], layer=2)),
    "attention_view": lambda g: plots.attention_view(g.model, GAP, TEXTS[0], tokenizer=g.tokenizer),
    "plot_heatmaps": lambda g: plots.plot_heatmaps({"a": torch.eye(2).to(g.device)}, ["x", "y"]),
    "plot_lines": lambda g: plots.plot_lines([1, 2], {"a": torch.ones(2).to(g.device)}),
    "head_importance": lambda g: deployment.head_importance(g.classifier, [g.batch]),
    **{f"{name} attention": efficiently(name) for name in efficient.METHODS},
    "tune_sentence_vectors": tuned,
    "prune_heads": rows_of_pruned,
}


def comparable(value):
    "What a function gave, as text or as something that holds numbers."
    if isinstance(value, plots.Figure):
        return value.html()
    return value.detach().cpu() if isinstance(value, Tensor) else value


@pytest.mark.parametrize("name", MEASURES)
def test_on_another_device_it_is_the_same(setup, name):
    here = SimpleNamespace(**vars(setup), device="cpu")
    expected = comparable(MEASURES[name](here))
    models = {key: copy.deepcopy(getattr(setup, key)) for key in ("model", "answering", "classifier")}
    models["encoder"] = models["model"].base_model
    with on_other_device(models["model"], models["answering"], models["classifier"]):
        found = comparable(MEASURES[name](SimpleNamespace(**vars(setup) | models, device=DEVICE)))
        assert all(weight.device == DEVICE for model in models.values() for weight in model.parameters()), "it stays where it is"
    if isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    else:
        assert found == expected


def test_a_model_on_another_device_is_exported(setup, tmp_path, monkeypatch):
    "It goes to the CPU for the export, and back."
    model, file, genuine = copy.deepcopy(setup.classifier), tmp_path / "model.onnx", torch.onnx.export

    def trace(model, *args, **kw):
        assert {weight.device.type for weight in model.parameters()} == {"cpu"}
        with _disable_current_modes():  # the exporter cannot follow operations through the stand-in
            return genuine(model, *args, **kw)

    monkeypatch.setattr(torch.onnx, "export", trace)
    with on_other_device(model):
        deployment.export(model, file, 32, setup.tokenizer.model_input_names, legacy=True, opset=17)
        assert all(weight.device == DEVICE for weight in model.parameters())
    batch = pad_arrays([{"input_ids": ids} for ids in setup.tokenizer(TEXTS)["input_ids"]])
    with torch.no_grad():
        expected = setup.classifier(**{name: torch.from_numpy(value) for name, value in batch.items()}).logits.numpy()
    assert np.allclose(Session(file, threads=1)(**batch)["logits"], expected, atol=1e-4)


# --- the parts ----------------------------------------------------------------------------------------------------

def test_evaluating_gives_each_module_its_mode_back():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5))).train()
    model[1].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False, False]


def test_a_batch_goes_where_the_model_is():
    layer = nn.Linear(2, 2)
    with on_other_device(layer):
        assert on_device_of(layer, {"x": torch.ones(2)})["x"].device == DEVICE
    assert on_device_of(layer, {"x": torch.ones(2)})["x"].device.type == "cpu"


def test_items_are_counted_where_the_batch_is():
    "Counts of several terms are stacked, which a GPU refuses where one of them is on the CPU."
    with on_other_device():
        ids = torch.ones(2, 3, dtype=torch.long).to(DEVICE)
        labelled = {"input_ids": ids, "labels": ids}
        assert count_labels({"input_ids": ids}).device == count_labels(labelled).device == DEVICE
        assert count_labels({"input_ids": ids}) == 2


SIZES = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "pad_token_id": 1}
FAMILIES = {
    "bert": BertConfig(**SIZES, max_position_embeddings=64),
    "roberta": RobertaConfig(**SIZES, max_position_embeddings=66),
    "modernbert": ModernBertConfig(**SIZES, max_position_embeddings=64),  # turns vectors, has no table
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_input_is_no_longer_than_tokenizer_and_model_allow(family):
    model, none = AutoModel.from_config(FAMILIES[family]), int(1e30)
    found = [longest_input(SimpleNamespace(model_max_length=limit), model) for limit in (none, 512, 64, 16)]
    assert found == [64, 64, 64, 16]
    assert [longest_input(SimpleNamespace(model_max_length=limit)) for limit in (none, 4096, 16)] == [512, 4096, 16]
    if family != "modernbert":  # the table decides
        model(torch.full((1, 64), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, 65), 5))
