"""Each term of a distillation against a slow loop in float64, padding that changes nothing, teachers that stay as they were."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoModelForTokenClassification, BertConfig

from bertcourse.distillation import (
    Distiller,  # fmt: skip
    Weights,
    attention_loss,
    cache_logits,
    check_labels,
    check_layers,
    copy_layers,
    cosine_loss,
    distillation_loss,
    head_loss,
    hidden_loss,
    mean_vector,
    measure_cost,
    new_model,
    observe,
    race,
    record_scores,
    relation_loss,
    soft_loss,
    soften,
    teacher_layers,
    term_settings,
    with_logits,
)
from bertcourse.tinybert import Prediction
from bertcourse.training import fit, pad

SMALL = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=32)
LARGE = dict(vocab_size=40, hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, max_position_embeddings=32)


def model(shape, auto=AutoModelForSequenceClassification, seed=0, family=BertConfig, **kw):
    torch.manual_seed(seed)
    return new_model(family(**shape))(auto, "eager", **{"num_labels": 3} | kw)


def batch(rows=4, longest=9, seed=0, labels=True):
    g = torch.Generator().manual_seed(seed)
    made = []
    for i in range(rows):
        ids = torch.randint(5, 40, (longest - i,), generator=g).tolist()
        made.append({"input_ids": ids, **({"labels": i % 3} if labels else {})})
    return pad(made)


def z(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- outputs ------------------------------------------------------------------------------------------------------

def loop(student, teacher, labels, T, alpha):
    "The written formula, one number at a time."
    soft = hard = 0.0
    for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist()):
        def log_softmax(values, T):
            total = sum(math.exp(v / T) for v in values)
            return [v / T - math.log(total) for v in values]
        soft += sum(math.exp(lp) * (lp - lq) for lp, lq in zip(log_softmax(t, T), log_softmax(s, T))) * T * T
        hard -= log_softmax(s, 1.0)[y]
    return alpha * soft / len(labels) + (1 - alpha) * hard / len(labels)


@pytest.mark.parametrize("T", [0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_distillation_loss_is_the_written_formula(T, alpha):
    s, t, y = z(7, 5) * 3, z(7, 5, seed=1) * 3, torch.arange(7) % 5
    assert distillation_loss(s, t, y, T, alpha).item() == pytest.approx(loop(s, t, y, T, alpha), abs=1e-9)
    s.requires_grad_()
    distillation_loss(s, t, y, T, alpha).backward()
    by_hand = alpha * T * (soften(s, T) - soften(t, T)) + (1 - alpha) * (soften(s) - F.one_hot(y, 5))
    assert_close(s.grad, by_hand.detach() / 7, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: distillation_loss(x, t, y, T, alpha), z(7, 5, seed=2).requires_grad_())


def test_direction_is_teacher_to_student():
    s, t = z(3, 4), z(3, 4, seed=1)
    p, q = soften(t), soften(s)
    assert soft_loss(s, t, 1.0).item() == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), abs=1e-12)
    assert soft_loss(s, t, 1.0).item() != pytest.approx(float((q * (q / p).log()).sum(-1).mean()), abs=1e-3)
    assert soft_loss(t, t, 4.0).item() == pytest.approx(0, abs=1e-12)


def test_softmax_of_the_guide():
    assert soften(torch.tensor([2.0, 1.0, 0.1]), 5.0).tolist() == pytest.approx([0.400, 0.327, 0.273], abs=5e-4)


def test_labels_that_do_not_count():
    s, t, y = z(2, 3, 4), z(2, 3, 4, seed=1), torch.tensor([[1, -100, 2], [-100, -100, 0]])
    kept = y != -100
    assert_close(distillation_loss(s, t, y, 2.0, 0.4), distillation_loss(s[kept], t[kept], y[kept], 2.0, 0.4))
    assert_close(distillation_loss(s, t, None, 2.0), soft_loss(s, t, 2.0))


@pytest.mark.parametrize("wrong, said", [
    (lambda: soften(z(2), 0), "greater than 0"), (lambda: soft_loss(z(2), z(2), -1.0), "greater than 0"),
    (lambda: soft_loss(z(2, 3), z(2, 4)), r"\(2, 3\) and \(2, 4\)"),
    (lambda: distillation_loss(z(2, 3), z(2, 3), torch.zeros(2).long(), alpha=1.1), "between 0 and 1"),
])  # fmt: skip
def test_refusals_of_outputs(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


# --- hidden states, attention, relations ----------------------------------------------------------------------------

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def test_hidden_loss_is_a_mean_over_tokens():
    s, t, project = z(2, 5, 3), z(2, 5, 4, seed=1), nn.Linear(3, 4).double()
    squares = [(project(s[b, i])[d] - t[b, i, d]).item() ** 2 for b in range(2) for i in range(5) if MASK[b, i] for d in range(4)]
    assert hidden_loss(s, t, MASK, project).item() == pytest.approx(sum(squares) / len(squares), abs=1e-12)


def test_cosine_loss():
    s, t = z(2, 5, 3), z(2, 5, 3, seed=1)
    each = [1 - F.cosine_similarity(s[b, i], t[b, i], dim=0).item() for b in range(2) for i in range(5) if MASK[b, i]]
    assert cosine_loss(s, t, MASK).item() == pytest.approx(sum(each) / len(each), abs=1e-12)
    with pytest.raises(ValueError, match="hidden states"):
        cosine_loss(s, z(2, 5, 4), MASK)


def test_attention_loss_is_a_mean_over_pairs_of_tokens():
    s, t = z(2, 3, 5, 5), z(2, 3, 5, 5, seed=1)
    squares = [(s[b, h, i, j] - t[b, h, i, j]).item() ** 2 for b in range(2) for h in range(3) for i in range(5) for j in range(5)
               if MASK[b, i] and MASK[b, j]]  # fmt: skip
    assert attention_loss(s, t, MASK).item() == pytest.approx(sum(squares) / len(squares), abs=1e-12)
    with pytest.raises(ValueError, match="attention of heads"):
        attention_loss(s, z(2, 4, 5, 5), MASK)


def test_relation_loss_is_that_of_cosines():
    s, t = z(4, 3), z(4, 7, seed=1)

    def cos(x, i, j):
        return F.cosine_similarity(x[i], x[j], dim=0).item()

    squares = [(cos(s, i, j) - cos(t, i, j)) ** 2 for i in range(4) for j in range(4)]
    assert relation_loss(s, t).item() == pytest.approx(sum(squares) / 16, abs=1e-12)
    assert_close(relation_loss(s * 5, t), relation_loss(s, t))
    with pytest.raises(ValueError, match="4 and 3 texts"):
        relation_loss(s, t[:3])


def test_padding_changes_nothing():
    def losses(fill):
        s, t, a, b = z(2, 5, 3), z(2, 5, 3, seed=1), z(2, 3, 5, 5), z(2, 3, 5, 5, seed=1)
        for x, value in ((s, fill), (t, -fill)):
            x[1, 3:] = value
        for x, value in ((a, fill), (b, -fill)):
            x[1, :, 3:], x[1, :, :, 3:] = value, value
        return [hidden_loss(s, t, MASK), cosine_loss(s, t, MASK), attention_loss(a, b, MASK), relation_loss(mean_vector(s, MASK), mean_vector(t, MASK))]
    for ours, theirs in zip(losses(1e6), losses(0.0)):
        assert_close(ours, theirs)


# --- scores -------------------------------------------------------------------------------------------------------

FAMILIES = [BertConfig, transformers.RobertaConfig, transformers.ElectraConfig, transformers.DistilBertConfig, transformers.AlbertConfig]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.model_type)
def test_scores_explain_the_weights_of_every_family(family):
    shape = dict(SMALL, embedding_size=16) if family in (transformers.ElectraConfig, transformers.AlbertConfig) else SMALL
    if family is transformers.DistilBertConfig:
        shape = dict(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=32)
    given, net = batch(labels=False), model(shape, family=family).eval()
    takes = {name: value for name, value in given.items()}
    plain = net(**takes, output_attentions=True)
    seen = observe(net, takes, hidden=True, scores=True)
    away = (1 - given["attention_mask"][:, None, None]).float() * torch.finfo(torch.float32).min
    assert len(seen.scores) == 2 and len(seen.hidden) == 3
    for score, weight in zip(seen.scores, plain.attentions):
        assert_close(torch.softmax(score + away, -1), weight)
    assert torch.equal(seen.logits[0], plain.logits), "the same numbers to the last bit"


def test_scores_are_kept_only_within_the_block():
    net, given = model(SMALL).eval(), batch(labels=False)
    with record_scores(net) as first:
        net(**given)
    net(**given)
    with record_scores(net) as second:
        assert len(first) == 2 and second == []


def test_attention_is_as_it_was_after_the_block():
    net, given = model(SMALL).eval(), batch(labels=False)
    net.set_attn_implementation("sdpa")
    plain = net(**given).logits
    assert len(observe(net, given, scores=True).scores) == 2 and net.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError), record_scores(net):
        net(nonsense=1)
    assert torch.equal(net(**given).logits, plain)


def test_what_a_model_does_not_take_is_left_out():
    net = model(dict(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=24, max_position_embeddings=32), family=transformers.DistilBertConfig)
    given = batch()
    assert observe(net, given | {"token_type_ids": torch.zeros_like(given["input_ids"])}).loss is not None


# --- heads --------------------------------------------------------------------------------------------------------

def test_head_loss_of_each_task():
    given, student = batch(), SimpleNamespace(config=SimpleNamespace(problem_type=None))
    tokens = pad([{"input_ids": [5, 6, 7], "labels": [-100, 1, -100]}, {"input_ids": [5, 6], "labels": [2, 0]}])
    s, t = z(2, 3, 4), z(2, 3, 4, seed=1)
    assert_close(head_loss(student, [s], [t], tokens, soft_loss), soft_loss(s[tokens["labels"] != -100], t[tokens["labels"] != -100]))
    del tokens["labels"]
    real = tokens["attention_mask"].bool()
    assert_close(head_loss(student, [s], [t], tokens, soft_loss), soft_loss(s[real], t[real]))
    assert_close(head_loss(student, [z(4, 3)], [z(4, 3, seed=1)], given, soft_loss), soft_loss(z(4, 3), z(4, 3, seed=1)))
    number = SimpleNamespace(config=SimpleNamespace(problem_type="regression"))
    assert_close(head_loss(number, [z(4, 1)], [z(4, 1, seed=1)], given, soft_loss), F.mse_loss(z(4, 1), z(4, 1, seed=1)))
    starts, ends = (z(2, 3), z(2, 3, seed=1)), (z(2, 3, seed=2), z(2, 3, seed=3))
    found = head_loss(student, [starts[0], ends[0]], [starts[1], ends[1]], tokens, soft_loss)
    slow = sum(soft_loss(s[i, :n], t[i, :n]) for s, t in (starts, ends) for i, n in enumerate((3, 2))) / 4
    assert_close(found, slow.to(found.dtype), rtol=1e-5, atol=1e-6)


# --- layers and labels --------------------------------------------------------------------------------------------

def test_layers_are_spread_evenly():
    assert teacher_layers(4, 12) == (3, 6, 9, 12) and teacher_layers(2, 4) == (2, 4) and teacher_layers(3, 3) == (1, 2, 3)
    assert check_layers([1, 4], 2, 4) == (1, 4)
    for wrong in ([1], [0, 4], [1, 5]):
        with pytest.raises(ValueError, match="needs 2, each a number from 1 to 4"):
            check_layers(wrong, 2, 4)
    with pytest.raises(ValueError, match="5 layers cannot be spread evenly over 12"):
        teacher_layers(5, 12)


def test_labels_in_another_order_are_refused():
    right, wrong = SimpleNamespace(id2label={0: "no", 1: "yes"}), SimpleNamespace(id2label={0: "yes", 1: "no"})
    check_labels(right, SimpleNamespace(id2label={0: "no", 1: "yes"}))
    with pytest.raises(ValueError, match="label 0 is 'no' to the student and 'yes' to the teacher"):
        check_labels(right, wrong)
    with pytest.raises(ValueError, match="label 1 is None to the student"):
        check_labels(SimpleNamespace(id2label={0: "no"}), right)


@pytest.mark.parametrize("student, weights, said", [
    (dict(SMALL, num_attention_heads=4), Weights(attention=1), "4 attention heads, the teacher 2"),
    (dict(SMALL, num_hidden_layers=3), Weights(hidden=1), "3 layers cannot be spread"),
    (SMALL, Weights(cosine=1), "the student is 16 wide, the teacher 24"), (SMALL, Weights(), "every weight is 0: there is nothing to learn"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(student, weights, said):
    with pytest.raises(ValueError, match=said):
        Distiller(model(student), model(LARGE), weights)


def test_other_heads_and_layers_matter_only_where_they_are_used():
    assert Distiller(model(dict(SMALL, num_attention_heads=4, num_hidden_layers=3)), model(LARGE), Weights(soft=1))(**batch()).loss > 0


# --- the distiller ------------------------------------------------------------------------------------------------

ALL = Weights(hard=0.3, soft=0.5, hidden=1.0, attention=0.1, relation=2.0)


def test_the_loss_is_the_weighted_sum():
    given = Distiller(model(SMALL), model(LARGE, seed=1), ALL)(**batch())
    assert set(given.terms) == {"hard", "soft", "hidden", "attention", "relation"}
    assert_close(given.loss, sum(getattr(ALL, name) * term for name, term in given.terms.items()))


def test_terms_are_those_of_the_parts():
    student, teacher, given = model(SMALL).eval(), model(LARGE, seed=1), batch()
    distiller = Distiller(student, teacher, ALL, temperature=3.0).eval()
    terms, mask = distiller(**given).terms, given["attention_mask"]
    ours, theirs = (observe(m, {k: v for k, v in given.items() if k != "labels"}, hidden=True, scores=True) for m in (student, teacher))
    assert_close(terms["hard"], F.cross_entropy(ours.logits[0], given["labels"]))
    assert_close(terms["soft"], soft_loss(ours.logits[0], theirs.logits[0], 3.0))
    assert_close(terms["hidden"], sum(hidden_loss(ours.hidden[m], theirs.hidden[2 * m], mask, distiller.projections[m - 1]) for m in (1, 2)) / 2)
    assert_close(terms["attention"], sum(attention_loss(ours.scores[m - 1], theirs.scores[2 * m - 1], mask) for m in (1, 2)) / 2)
    assert_close(terms["relation"], relation_loss(mean_vector(ours.hidden[-1], mask), mean_vector(theirs.hidden[-1], mask)))


def test_relations_need_whole_batches():
    """Of four texts in parts of one, each part would have nothing to compare, and a loss of 0."""
    s, t = torch.randn(4, 8), torch.randn(4, 12)
    assert relation_loss(s, t) > 0.01 and all(relation_loss(s[i : i + 1], t[i : i + 1]).abs() < 1e-12 for i in range(4))
    rows = [{"input_ids": [5 + i, 6, 7, 8 + i], "labels": i % 3} for i in range(8)]
    for weights in (Weights(hard=0.5, relation=1.0), Weights(hard=0.5, soft=0.5)):
        distiller = Distiller(model(SMALL), model(LARGE, seed=1), weights)
        fit(distiller, rows, steps=2, batch_size=4, progress=False)
        if weights.relation:
            with pytest.raises(ValueError, match="^the loss of Distiller compares the texts of a batch .*leave that term out$"):
                fit(distiller, rows, steps=2, batch_size=4, accumulate=4, progress=False)
        else:
            fit(distiller, rows, steps=2, batch_size=4, accumulate=4, progress=False)


@pytest.mark.parametrize("learner", ["soft", "soft and hidden", "Prediction"])
def test_tags_without_labels_count_by_their_tokens(learner):
    """The soft loss of a head that judges each token is a mean over tokens, or over labels where there are some."""
    plain = dict(auto=AutoModelForTokenClassification, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    rows = [{"input_ids": [2, *range(5, 5 + 3 * i), 3]} for i in range(1, 9)]  # of 5 to 26 tokens

    def make():
        student, teacher = model(SMALL, **plain), model(LARGE, seed=1, **plain)
        torch.manual_seed(2)  # of the projections
        if learner == "Prediction":
            return Prediction(student, teacher)
        return Distiller(student, teacher, Weights(soft=1.0, hidden=0.0 if learner == "soft" else 1.0))

    def trained(**settings):
        made = make()
        fit(made, rows, steps=2, batch_size=8, progress=False, optimizer=lambda net: torch.optim.SGD(net.parameters(), lr=0.1),
            warmup=0, **settings)  # fmt: skip
        return torch.cat([weight.flatten() for weight in made.student.state_dict().values()])

    made = make()
    count, given = term_settings(made)["items"], pad([row | {"labels": [-100, 1] + [-100] * (len(row["input_ids"]) - 2)} for row in rows])
    assert count(given).flatten().tolist()[0] == 8
    assert count({name: value for name, value in given.items() if name != "labels"}).flatten().tolist()[0] == sum(len(row["input_ids"]) for row in rows)
    in_parts = trained(accumulate=4, **term_settings(made))
    assert (trained() - in_parts).abs().max() < 1e-6


def test_the_teacher_stays_as_it_was():
    teacher = model(LARGE, seed=1, hidden_dropout_prob=0.5).train()
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    distiller = Distiller(model(SMALL), teacher, ALL)
    rows = [{"input_ids": [5 + i, 6, 7, 8 + i], "labels": i % 3} for i in range(8)]
    fit(distiller, rows, steps=4, lr=1e-2, batch_size=4, progress=False)
    distiller.train()
    assert not distiller.teacher.training and not teacher.training, "no dropout while it teaches"
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters()), "it gets no gradients, and can be trained later"
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())
    assert not any("teacher" in name for name in distiller.state_dict())
    assert all(p.requires_grad for p in distiller.parameters())


def test_no_more_padding_no_other_loss():
    distiller, rows = Distiller(model(SMALL).eval(), model(LARGE, seed=1), ALL).eval(), batch()
    wider = {name: F.pad(value, (0, 4)) if value.ndim == 2 else value for name, value in rows.items()}
    ours, theirs = distiller(**rows), distiller(**wider)
    for name, term in ours.terms.items():
        assert_close(theirs.terms[name], term, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("auto, labels", [
    (AutoModelForTokenClassification, {"labels": [1, 2, -100]}), (AutoModelForQuestionAnswering, {"start_positions": 1, "end_positions": 2}),
])  # fmt: skip
def test_other_heads_learn_as_well(auto, labels):
    student, teacher = (model(shape, auto, **({"num_labels": 2} if auto is AutoModelForQuestionAnswering else {})) for shape in (SMALL, LARGE))
    rows = [{"input_ids": [5, 6, 7], **labels}, {"input_ids": [8, 9, 10], **labels}]
    assert Distiller(student, teacher, Weights(hard=0.5, soft=0.5))(**pad(rows)).terms.keys() == {"hard", "soft"}
    distiller = Distiller(student, teacher, Weights(soft=1))
    first = distiller(**pad(rows)).loss.item()
    fit(distiller, rows, steps=30, lr=1e-2, batch_size=2, progress=False)
    assert distiller(**pad(rows)).loss.item() < first / 10


def test_a_regression_learns_the_teachers_number():
    kw = dict(num_labels=1, problem_type="regression")
    student, teacher = model(SMALL, **kw), model(LARGE, seed=1, **kw)
    given = {k: v for k, v in batch().items() if k != "labels"}
    term = Distiller(student.eval(), teacher, Weights(soft=1)).eval()(**given).terms["soft"]
    assert_close(term, F.mse_loss(student(**given).logits, teacher(**given).logits))


# --- caching, copying, weighing -----------------------------------------------------------------------------------

def test_cached_logits_give_the_same_loss_without_the_teacher():
    teacher, student = model(LARGE, seed=1), model(SMALL).eval()
    rows = [{"input_ids": list(range(5, 9 + i)), "labels": i % 3} for i in range(6)]
    known, distiller = cache_logits(teacher, rows, pad), Distiller(student, teacher, Weights(hard=0.5, soft=0.5)).eval()
    fresh = distiller(**pad(rows)).loss
    distiller._teacher = (None,)  # whoever asks the teacher now fails
    assert_close(distiller(**with_logits(lambda rows: pad([{k: v for k, v in r.items() if k != "teacher_logits"} for r in rows]))(known)).loss, fresh)
    assert "teacher_logits" not in rows[0], "the rows given are not changed"
    with pytest.raises(ValueError, match="leave the cache out"):
        cache_logits(model(LARGE, AutoModelForQuestionAnswering, num_labels=2), rows, lambda r: pad([{"input_ids": x["input_ids"]} for x in r]))


def test_copied_layers():
    teacher, student = model(LARGE, seed=1), model(dict(LARGE, num_hidden_layers=2))
    copied, of = copy_layers(student, teacher, (1, 4))
    assert copied == of == len(student.state_dict())
    ours, theirs = student.state_dict(), teacher.state_dict()
    for name, weight in ours.items():
        source = name.replace("layer.1.", "layer.3.") if "layer.1." in name else name
        assert torch.equal(weight, theirs[source]), name
    with pytest.raises(ValueError, match=r"no layer of the teacher \(bert, 24 wide\) fits the student \(bert, 16 wide\)"):
        copy_layers(model(SMALL), teacher)


def test_positions_of_roberta_are_not_those_of_bert():
    teacher = model(dict(SMALL, pad_token_id=1), family=transformers.RobertaConfig, seed=1)
    student = model(SMALL)
    before = student.bert.embeddings.position_embeddings.weight.clone()
    copy_layers(student, teacher, (1, 2))
    assert torch.equal(student.bert.embeddings.position_embeddings.weight, before)
    assert torch.equal(student.bert.embeddings.word_embeddings.weight, teacher.roberta.embeddings.word_embeddings.weight)


def test_a_distilbert_with_all_layers_says_the_same():
    teacher = model(LARGE, seed=1).eval()
    shape = dict(vocab_size=40, dim=24, n_layers=4, n_heads=2, hidden_dim=48, max_position_embeddings=32, activation="gelu")
    student = model(shape, family=transformers.DistilBertConfig).eval()
    copy_layers(student, teacher, (1, 2, 3, 4))
    given = batch(labels=False)
    real = given["attention_mask"].bool()
    assert_close(observe(student, given, hidden=True).hidden[-1][real], observe(teacher, given, hidden=True).hidden[-1][real])


def test_weighing_counts_what_the_formula_says():
    from bertcourse.bert import Shape
    shape, given = Shape("", 4, 24, 2, 48, 40, 32), batch(1, labels=False)
    cost, n = measure_cost(model(LARGE), given), given["input_ids"].shape[1]
    assert cost["parameters"] == shape.total() + 3 * 25 and cost["megabytes"] == pytest.approx(cost["parameters"] * 4e-6)
    pooler_and_head = 2 * (24 * 24 + 24 * 3)
    fused = model(LARGE)
    fused.set_attn_implementation("sdpa")
    assert measure_cost(fused, given) == cost, "fused attention counts as well"
    assert cost["gflops"] * 1e9 == pytest.approx(sum(shape.flops(n).values()) + pooler_and_head)


def test_racing_times_each_in_each_round():
    times = race({"a": model(SMALL), "b": model(LARGE)}, batch(labels=False), rounds=3)
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3} and min(min(v) for v in times.values()) > 0
