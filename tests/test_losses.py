"""Losses in half precision, over nothing, and of rows without a place; what is left of a teacher afterwards."""

import math

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification

from bertcourse.distillation import (
    Distiller,
    Weights,
    attention_loss,
    cosine_loss,
    distillation_loss,
    head_loss,
    hidden_loss,
    mean_vector,
    relation_loss,
    soft_loss,
)
from bertcourse.tasks import UNPLACED
from bertcourse.tinybert import Intermediate, Prediction, prediction_loss
from bertcourse.training import count_labels, evaluate, fit

SHAPE = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=16)
IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 9, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])


def net(kind=BertForSequenceClassification, seed=0, **kw):
    torch.manual_seed(seed)
    return kind(BertConfig(**SHAPE | {"num_labels": 3} | kw))


# --- half precision -----------------------------------------------------------------------------------------------

def near(*shape, seed=0):
    "A teacher's numbers, and a student's that are nearly the same, in bfloat16."
    torch.manual_seed(seed)
    teacher = torch.randn(*shape) * 3
    return (teacher + 1e-2 * torch.randn(*shape)).bfloat16(), teacher.bfloat16()


LOSSES = {
    "soft_loss": (lambda s, t: soft_loss(s, t), (64, 5)),
    "distillation_loss": (lambda s, t: distillation_loss(s, t, torch.arange(64) % 5), (64, 5)),
    "prediction_loss": (lambda s, t: prediction_loss(s, t), (64, 5)),
    "hidden_loss": (lambda s, t: hidden_loss(s, t, torch.ones(4, 6)), (4, 6, 32)),
    "cosine_loss": (lambda s, t: cosine_loss(s, t, torch.ones(4, 6)), (4, 6, 32)),
    "attention_loss": (lambda s, t: attention_loss(s, t, torch.ones(4, 6)), (4, 2, 6, 6)),
    "relation_loss": (lambda s, t: relation_loss(s, t), (16, 32)),
    "mean_vector": (lambda s, t: mean_vector(s, torch.ones(4, 6)).sum(), (4, 6, 32)),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
def test_losses_are_computed_in_float32(name, autocast):
    loss, shape = LOSSES[name]
    student, teacher = near(*shape)
    exact = loss(student.double(), teacher.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_student_near_its_teacher_has_no_negative_loss(seed):
    student, teacher = near(8, 5, seed=seed)
    with torch.autocast("cpu", torch.bfloat16):
        assert soft_loss(student, teacher) > -1e-7 and cosine_loss(student[None], teacher[None], torch.ones(1, 8)) > -1e-6
        assert abs(soft_loss(teacher, teacher)) < 1e-7 and relation_loss(teacher, teacher) == 0


def test_a_run_in_bf16_reaches_its_teacher_from_above():
    teacher = net()
    student = net()  # the same weights
    with torch.no_grad():
        student.classifier.weight.add_(0.01)
    rows = [{"input_ids": [2, 4 + i, 5 + i, 3], "labels": 0} for i in range(12)]
    history = fit(Distiller(student, teacher, Weights(soft=1.0)), rows, steps=6, lr=1e-4, batch_size=4, precision="bf16", progress=False)
    assert all(loss >= 0 for loss in history.column("loss")[1])


# --- nothing to learn from ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("loss", [
    lambda x: soft_loss(x, torch.randn(2, 5, 3), mask=torch.zeros(2, 5)), lambda x: prediction_loss(x, torch.randn(2, 5, 3), mask=torch.zeros(2, 5)),
    lambda x: distillation_loss(x, torch.randn(2, 5, 3), torch.full((2, 5), -100)), lambda x: hidden_loss(x, torch.randn(2, 5, 3), torch.zeros(2, 5)),
    lambda x: cosine_loss(x, torch.randn(2, 5, 3), torch.zeros(2, 5)), lambda x: mean_vector(x, torch.zeros(2, 5)).sum(),
    lambda x: attention_loss(x[:, None, :3], torch.randn(2, 1, 3, 3), torch.zeros(2, 3)),
], ids=["soft", "prediction", "distillation", "hidden", "cosine", "mean_vector", "attention"])  # fmt: skip
def test_the_loss_over_nothing_is_nothing(loss):
    x = torch.randn(2, 5, 3, requires_grad=True)
    found = loss(x)
    found.backward()
    assert found == 0 and torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("weights", [Weights(hard=1, soft=1), Weights(hard=1, soft=1, hidden=1, relation=1, cosine=1)])
def test_a_batch_without_labels_has_a_loss(weights):
    distiller = Distiller(net(BertForTokenClassification, 1), net(BertForTokenClassification), weights)
    batch = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.full((2, 5), -100)}
    out = distiller(**batch)
    assert out.terms["hard"] == 0 and out.terms["soft"] == 0 and torch.isfinite(out.loss)
    if weights.hidden:
        assert out.loss > 0
        out.loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in distiller.parameters() if p.grad is not None)


def test_head_loss_of_tokens_that_nobody_labelled():
    logits = torch.randn(2, 5, 3)
    assert head_loss(net(BertForTokenClassification), [logits], [logits + 1], {"labels": torch.full((2, 5), -100)}, soft_loss) == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_goes_on_over_rows_without_labels(accumulate):
    rows = [{"input_ids": [2, 5 + i, 6, 3], "labels": [-100, i % 3 if i % 2 else -100, -100, -100]} for i in range(8)]
    model = net(BertForTokenClassification)
    history = fit(model, rows, steps=8, batch_size=2, accumulate=accumulate, lr=1e-3, progress=False)
    assert all(map(math.isfinite, history.column("loss")[1])) and all(torch.isfinite(p).all() for p in model.parameters())
    empty = [row | {"labels": [-100] * 4} for row in rows]
    history = fit(model, empty, dev=empty, steps=2, batch_size=2, lr=1e-3, progress=False)
    assert history.column("loss")[1] == [0, 0] and evaluate(model, empty)["loss"] == 0


@pytest.mark.parametrize("kind", [Intermediate, Prediction])
def test_tinybert_over_rows_without_labels(kind):
    pupil = kind(net(BertForTokenClassification, 1), net(BertForTokenClassification))
    out = pupil(input_ids=IDS, attention_mask=MASK, labels=torch.full((2, 5), -100))
    assert torch.isfinite(out.loss)


def test_answers_without_a_place_are_not_counted():
    batch = {"input_ids": IDS, "start_positions": torch.tensor([1, UNPLACED]), "end_positions": torch.tensor([2, UNPLACED])}
    assert count_labels(batch) == 1 and count_labels({"input_ids": IDS}) == 2
    assert count_labels({"input_ids": IDS, "attention_mask": MASK, "teacher_logits": torch.zeros(2, 5, 3)}) == MASK.sum()
    assert count_labels({"input_ids": IDS, "attention_mask": MASK, "teacher_logits": torch.zeros(2, 3)}) == 2
    rows = [{"input_ids": [2, 5, 6, 3], "start_positions": UNPLACED, "end_positions": UNPLACED} for _ in range(4)]
    history = fit(net(BertForQuestionAnswering, num_labels=2), rows, steps=2, batch_size=2, lr=1e-3, progress=False)
    assert history.column("loss")[1] == [0, 0]


# --- the teacher --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [
    lambda student, teacher: Distiller(student, teacher, Weights(soft=1)), Intermediate, Prediction,
], ids=["Distiller", "Intermediate", "Prediction"])  # fmt: skip
def test_a_teacher_can_be_trained_afterwards(make):
    teacher = net()
    teacher.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    frozen = [name for name, p in teacher.named_parameters() if not p.requires_grad]
    rows = [{"input_ids": [2, 4 + i, 3], "labels": i % 3} for i in range(8)]
    fit(make(net(seed=1), teacher), rows, steps=2, batch_size=4, lr=1e-3, progress=False)
    assert all(p.grad is None for p in teacher.parameters())
    assert [name for name, p in teacher.named_parameters() if not p.requires_grad] == frozen
    before = teacher.classifier.weight.detach().clone()
    fit(teacher, rows, steps=2, batch_size=4, lr=1e-3, progress=False)
    assert not torch.equal(before, teacher.classifier.weight)
