"""Schedules, groups, adversarial steps and augmentation: exact where they claim to be, and refused where they make no sense."""

import math
import random

import checkpoints
import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, get_linear_schedule_with_warmup

from bertcourse.distillation import Distiller, Weights
from bertcourse.finetuning import (
    FGM,  # fmt: skip
    PGD,
    Mixup,
    choose_length,
    eda,
    entropy,
    layer_groups,
    layer_of,
    layerwise,
    linear_schedule,
    reinitialise,
    vote,
)
from bertcourse.tasks import TaskError
from bertcourse.training import Callback, fit

CONFIG = dict(vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24, num_labels=3,
              hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # fmt: skip


def model(seed=0):
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(BertConfig(**CONFIG))


def rows(n=24, seed=0):
    rng = random.Random(seed)
    return [{"input_ids": [rng.randrange(5, 40) for _ in range(rng.randint(3, 9))], "labels": rng.randrange(3)} for _ in range(n)]


@pytest.mark.parametrize("warmup, steps", [(0, 7), (3, 10), (10, 100), (100, 100), (1, 1)])
def test_schedule_is_that_of_transformers(warmup, steps):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    for step in range(steps + 3):
        assert linear_schedule(step, warmup, steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step(), theirs.step()


@pytest.mark.parametrize("lengths, kw, chosen", [
    ([8], {}, 8), ([9], {}, 16), (range(1, 101), {}, 104), (range(1, 101), {"share": 0.5}, 56), ([3000], {"most": 512}, 512),
    ([10, 10, 10, 90], {"share": 0.7}, 16),
])  # fmt: skip
def test_length(lengths, kw, chosen):
    assert choose_length(list(lengths), **kw) == chosen
    assert np.mean(np.array(lengths) <= chosen) >= kw.get("share", 0.99) or chosen == kw.get("most")


def test_no_inputs_no_length():
    with pytest.raises(ValueError, match="no inputs"):
        choose_length([])


@pytest.mark.parametrize("name, layer", [
    ("bert.embeddings.word_embeddings.weight", 0), ("bert.embeddings.LayerNorm.bias", 0), ("bert.encoder.layer.0.output.dense.weight", 1),
    ("bert.encoder.layer.11.attention.self.query.bias", 12), ("bert.pooler.dense.weight", 13), ("classifier.bias", 13),
    ("distilbert.transformer.layer.5.ffn.lin1.weight", 6),
])  # fmt: skip
def test_layer_of(name, layer):
    assert layer_of(name, 12) == layer


@pytest.mark.parametrize("decay", [1.0, 0.95, 0.5])
def test_every_parameter_is_in_one_group(decay):
    net = model()
    net.bert.embeddings.position_embeddings.weight.requires_grad_(False)
    groups = layer_groups(net, 1e-3, decay)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    for group in groups:
        assert group["lr"] == pytest.approx(1e-3 * decay ** (4 - group["layer"]))
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}


class Watch(Callback):
    def on_step_begin(self, state):
        self.before = [p.detach().clone() for p in state.params]

    def after_backward(self, state):
        assert all(map(torch.equal, self.before, state.params)), "the weights were not put back"
        self.grads = [None if p.grad is None else p.grad.clone() for p in state.params]


def gradients(*extra):
    watch = Watch()
    fit(model(), rows(), steps=1, lr=0.0, batch_size=24, clip=None, callbacks=[*extra, watch], progress=False)
    return watch.grads


def at(shift):
    "The gradient with the word embeddings moved by hand."
    from bertcourse.training import pad

    net = model()
    table = net.get_input_embeddings().weight
    batch = pad(rows())
    net(**batch).loss.backward()
    first = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    moved = shift(table)
    net.zero_grad()
    with torch.no_grad():
        table.add_(moved)
    net(**batch).loss.backward()
    return first, [p.grad.clone() for p in net.parameters() if p.grad is not None]


def test_fgm_adds_the_gradient_at_the_perturbed_embeddings():
    first, second = at(lambda table: 0.7 * table.grad / table.grad.norm())
    ours = [g for g in gradients(FGM(0.7)) if g is not None]
    for a, b, c in zip(first, second, ours, strict=True):
        torch.testing.assert_close(a + b, c, rtol=1e-4, atol=1e-6)


def test_pgd_of_one_step_is_fgm():
    for a, b in zip(gradients(FGM(0.3)), gradients(PGD(epsilon=1.0, alpha=0.3, steps=1))):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_pgd_stays_in_its_ball():
    small, large = gradients(PGD(epsilon=0.2, alpha=0.2, steps=4)), gradients(PGD(epsilon=5.0, alpha=0.2, steps=4))
    assert any(not torch.allclose(a, b) for a, b in zip(small, large))
    steps = []

    class Spy(PGD):
        def after_backward(self, state):
            table, backward = state.model.get_input_embeddings().weight, state.backward
            start = table.detach().clone()

            def spied():
                steps.append((table.detach() - start).norm().item())
                return backward()

            state.backward = spied
            super().after_backward(state)

    gradients(Spy(epsilon=0.2, alpha=0.15, steps=4))
    assert len(steps) == 4 and steps[0] == pytest.approx(0.15, rel=1e-3) and max(steps) <= 0.2 + 1e-5


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_reinitialise(layers):
    net, old = model(), model()
    reinitialise(net, layers)
    kept = [torch.equal(a.output.dense.weight, b.output.dense.weight) for a, b in zip(net.bert.encoder.layer, old.bert.encoder.layer)]
    assert kept == [True] * (3 - layers) + [False] * layers
    assert not torch.equal(net.bert.pooler.dense.weight, old.bert.pooler.dense.weight)
    assert torch.equal(net.classifier.weight, old.classifier.weight) and not net.bert.pooler.dense.bias.any()


def test_reinitialise_more_than_there_is():
    with pytest.raises(ValueError, match="4 of 3 layers"):
        reinitialise(model(), 4)


def test_mixup_is_the_plain_loss_in_evaluation_and_blends_in_training():
    from bertcourse.training import pad

    net, batch = model().eval(), pad(rows())
    torch.testing.assert_close(Mixup()(net, batch), net(**batch).loss)
    net.train()
    losses = set()
    for seed in range(4):
        torch.manual_seed(seed)
        losses.add(round(Mixup(1.0)(net, batch).item(), 6))
    assert len(losses) == 4


def test_layerwise_trains():
    history = fit(model(), rows(), steps=6, lr=1e-2, optimizer=layerwise(1e-2, 0.5), progress=False)
    assert history.steps == 6 and all(math.isfinite(x) for x in history.column("loss")[1])


@pytest.mark.parametrize("operation", ["replace", "insert", "swap", "delete"])
def test_eda(operation):
    words = "a b c d e f g h i j".split()
    for seed in range(50):
        made = eda(words, {"c": ["C"], "f": ["F"]}, random.Random(seed), 0.2, [operation])
        if operation == "replace":
            assert len(made) == 10 and {m for m, w in zip(made, words) if m != w} <= {"C", "F"}
        elif operation == "insert":
            assert len(made) == 12 and [w for w in made if w in words] == words
        elif operation == "swap":
            assert sorted(made) == words
        else:
            assert made and len(made) <= 10 and [w for w in words if w in made] == made
    assert words == "a b c d e f g h i j".split()


def test_eda_without_synonyms_changes_nothing():
    assert eda(["a", "b"], {}, random.Random(0), 0.5, ["replace"]) == ["a", "b"]


def test_entropy_and_votes():
    assert entropy(np.array([[1, 0, 0], [1 / 3] * 3])).tolist() == pytest.approx([0, math.log(3)], abs=1e-6)
    rules = [lambda r: r["a"], lambda r: r["b"], lambda r: r["c"]]
    cases = [((1, 1, 0), 1), ((0, None, None), 0), ((0, 1, None), None), ((None, None, None), None), ((2, 2, 1), 2)]
    assert vote(rules, [dict(zip("abc", said)) for said, _ in cases]) == [want for _, want in cases]


# --- every family -------------------------------------------------------------------------------------------------

def family_model(family, head="SequenceClassification"):
    torch.manual_seed(0)
    return getattr(transformers, f"AutoModelFor{head}").from_config(checkpoints.configuration(family, 60)).eval()


SHARED = "the layers of albert share their weights"


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_layers_of_every_family_have_rates_of_their_own(family):
    net = family_model(family)
    if family == "albert":
        with pytest.raises(TaskError, match=SHARED):
            layer_groups(net, 1.0)
        return
    base = net.base_model_prefix + "."
    found = {name: layer_of(name, 2) for name, _ in net.named_parameters()}
    assert set(found.values()) == {0, 1, 2, 3}
    for name, layer in found.items():
        number = next((int(part) for part in name.split(".") if part.isdigit()), None)
        if not name.startswith(base):
            assert layer == 3, name
        elif any(word in name for word in (".layer.", ".layers.")):
            assert layer == number + 1, name
        elif "embed" in name or name == base + "encoder.LayerNorm.weight":
            assert layer == 0, name


def test_albert_with_a_group_for_each_layer_has_layers():
    config = checkpoints.configuration("albert", 60)
    config.num_hidden_groups = 2
    net = transformers.AutoModelForSequenceClassification.from_config(config)
    assert {group["layer"] for group in layer_groups(net, 1.0)} == {0, 1, 2, 3}
    old = {name: weight.clone() for name, weight in net.state_dict().items()}
    reinitialise(net, 1)
    changed = {layer_of(name, 2) for name, weight in net.state_dict().items() if not torch.equal(weight, old[name])}
    assert changed == {2, 3}, "the top layer and the pooler"


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_top_layers_of_every_family_are_made_anew(family):
    net = family_model(family)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.5)  # as if it had been trained
    old = {name: weight.clone() for name, weight in net.state_dict().items()}
    if family == "albert":
        with pytest.raises(TaskError, match=SHARED):
            reinitialise(net, 1)
        return
    reinitialise(net, 1)
    changed = {name for name, weight in net.state_dict().items() if not torch.equal(weight, old[name])}
    top = {name for name in old if layer_of(name, 2) == 2}
    assert top <= changed and all(".pooler." in name for name in changed - top)
    scale = torch.cat([net.state_dict()[name].flatten() for name in top if old[name].ndim > 1]).std()
    assert scale < 0.1, "small numbers again"


# --- what has no gradient, or is no class of a text ---------------------------------------------------------------

@pytest.mark.parametrize("attack", [FGM, PGD])
def test_an_attack_on_frozen_embeddings_is_one_sentence(attack):
    net = model()
    net.get_input_embeddings().weight.requires_grad_(False)
    with pytest.raises(TaskError, match="the word embeddings are frozen and have no gradient") as refusal:
        fit(net, rows(), steps=1, callbacks=[attack()], progress=False)
    assert "词嵌入被冻结" in refusal.value.zh


@pytest.mark.parametrize("attack", [FGM, PGD])
def test_an_attack_on_embeddings_that_the_optimiser_does_not_train_is_one_sentence(attack):
    """Nobody clears their gradient: that of every step before would be in the next attack."""
    with pytest.raises(TaskError, match="the optimiser does not train the word embeddings") as refusal:
        fit(model(), rows(), steps=2, optimizer=lambda net: torch.optim.SGD(net.classifier.parameters(), lr=0.1), callbacks=[attack()],
            progress=False)
    assert "优化器不训练词嵌入" in refusal.value.zh


@pytest.mark.parametrize("attack", [FGM, PGD])
def test_an_attack_on_what_shows_no_embeddings_is_one_sentence(attack):
    pupil = Distiller(model(), model(1), Weights(soft=1))
    with pytest.raises(TaskError, match="Distiller shows no word embeddings"):
        fit(pupil, rows(), steps=1, callbacks=[attack()], progress=False)


@pytest.mark.parametrize("attack", [FGM, PGD])
def test_an_attack_in_a_step_without_labels_does_nothing(attack):
    net = family_model("bert", "TokenClassification")
    empty = [{"input_ids": [2, 5, 3], "labels": [-100, -100, -100]}] * 4
    history = fit(net, empty, steps=2, batch_size=2, callbacks=[attack()], progress=False)
    assert history.column("loss")[1] == [0, 0]


@pytest.mark.parametrize("family, head, labels, says", [
    ("bert", "TokenClassification", [0, 1, 0], "for classification only"), ("bert", "SequenceClassification", 0.5, "for classification only"),
    ("distilbert", "SequenceClassification", 1, "DistilBertForSequenceClassification has no pooled vector"),
    ("roberta", "SequenceClassification", 1, "has no pooled vector"), ("modernbert", "SequenceClassification", 1, "has no pooled vector"),
])  # fmt: skip
def test_mixup_is_for_classes_of_texts(family, head, labels, says):
    net = family_model(family, head)
    with pytest.raises(TaskError, match=says):
        fit(net, [{"input_ids": [2, 5, 3], "labels": labels}] * 4, steps=1, batch_size=2, loss=Mixup(), progress=False)


@pytest.mark.parametrize("family", ["bert", "albert", "mobilebert"])
def test_mixup_of_families_that_pool(family):
    net = family_model(family)
    batch = {"input_ids": torch.tensor([[2, 5, 3], [2, 6, 3]]), "attention_mask": torch.ones(2, 3, dtype=torch.long), "labels": torch.tensor([0, 1])}
    torch.testing.assert_close(Mixup()(net, batch), net(**batch).loss)
    history = fit(net, [{"input_ids": [2, 5, 3], "labels": k % 2} for k in range(4)], steps=1, batch_size=2, loss=Mixup(), progress=False)
    assert math.isfinite(history.column("loss")[1][0])
