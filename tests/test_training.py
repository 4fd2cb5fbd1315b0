"""The training loop: the same step however it is cut, the same run however it is interrupted, and clear complaints."""

import contextlib
import io
import json
import math
import warnings
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from bertcourse import training
from bertcourse.base import machine
from bertcourse.training import Callback, History, NonFiniteLoss, evaluate, fit, pad, plan

WORDS, MASK = 30, 4


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Toy(nn.Module):
    """A few hundred parameters: mean embedding, dropout, two classes."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.words, self.drop = nn.Embedding(WORDS, 8), nn.Dropout(dropout)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask, labels):
        vectors = (self.words(input_ids) * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        logits = self.out(self.drop(self.norm(vectors)))
        return SimpleNamespace(logits=logits, loss=nn.functional.cross_entropy(logits, labels))


def toy(dropout=0.3):
    torch.manual_seed(1)
    return Toy(dropout)


def examples(n=50, seed=0):
    """Is there a word below ten in the sentence?"""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(5, WORDS, rng.integers(2, 12)).tolist() for _ in range(n)]
    return [{"input_ids": row, "labels": int(min(row) < 10)} for row in rows]


def bert(dropout=0.0, cls=BertForMaskedLM):
    torch.manual_seed(1)
    return cls(BertConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=32, max_position_embeddings=16, hidden_dropout_prob=dropout,
                          attention_probs_dropout_prob=dropout))


def hide(rows, keys):
    """Blanks that a row's key decides: some rows have none, some several."""
    hidden = []
    for row, key in zip(rows, keys):
        ids = np.array(row["input_ids"])
        chosen = np.random.default_rng(key).random(len(ids)) < 0.2
        hidden.append({"input_ids": np.where(chosen, MASK, ids), "labels": np.where(chosen, ids, -100)})
    return pad(hidden)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def distance(a, b):
    return max((a[name] - b[name]).abs().max().item() for name in a)


def timeless(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]


def run(model=None, data=None, **kwargs):
    """A short run: the weights and the history."""
    model = model or toy()
    kwargs = {"epochs": 2, "batch_size": 8, "lr": 1e-2, "progress": False} | kwargs
    history = fit(model, examples() if data is None else data, **kwargs)
    return weights(model), history


# batches


def test_plan_has_every_example_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(3, 60, 1003)
    batches = plan(lengths, 16, seed=3, epoch=5)
    assert sorted(i for batch in batches for i in batch) == list(range(1003))
    assert sorted(map(len, batches)) == [11] + [16] * 62

    def positions(batches):
        return sum(len(batch) * lengths[batch].max() for batch in batches)

    assert positions(batches) < 1.05 * lengths.sum() < 1.5 * lengths.sum() < positions(plan(lengths, 16, 3, 5, window=0))
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts != sorted(firsts)
    assert batches == plan(lengths.tolist(), 16, 3, 5)
    assert batches != plan(lengths, 16, 3, 6) and batches != plan(lengths, 16, 4, 5)


def test_pad_knows_what_is_padded_with_what():
    rows = [{"input_ids": [2, 7, 3], "token_type_ids": [0, 1, 1], "labels": [1, 2, 3], "label_of": None, "words": ["a"],
             "score": 0.5},
            {"input_ids": np.array([2, 3]), "token_type_ids": [0, 0], "labels": torch.tensor([4, 5]), "label_of": None,
             "words": ["b", "c"], "score": 1.5}]
    assert {name: tensor.tolist() for name, tensor in pad(rows, pad_id=9).items()} == {
        "input_ids": [[2, 7, 3], [2, 3, 9]], "token_type_ids": [[0, 1, 1], [0, 0, 0]],
        "labels": [[1, 2, 3], [4, 5, -100]], "score": [0.5, 1.5], "attention_mask": [[1, 1, 1], [1, 1, 0]]}
    given = pad([{"input_ids": [1, 2], "attention_mask": [1, 0], "label": 3}])
    assert given["attention_mask"].tolist() == [[1, 0]] and given["labels"].tolist() == [3]


@pytest.mark.parametrize("rows, said", [
    ([{"input_ids": [1], "labels": None}, {"input_ids": [2], "labels": 1}], "row 0 has no labels"),
    ([{"input_ids": [1]}, {"input_ids": [2], "labels": 1}], "row 0 has no labels"),
    ([{"input_ids": [1], "labels": 0}, {"input_ids": [2], "labels": 1}, {"input_ids": [3]}], "row 2 has no labels"),
    ([{"input_ids": [1], "score": 0.5}, {"input_ids": [2], "score": None}], "row 1 has no score"),
])
def test_a_column_that_only_some_rows_have_is_named(rows, said):
    """Decided by the first row alone, labels would be left out of the whole batch without a word."""
    with pytest.raises(ValueError, match=f"^{said}$"):
        pad(rows)


def test_texts_may_be_missing():
    rows = [{"input_ids": [1], "text": None, "words": [], "label": 1}, {"input_ids": [2], "text": "b", "words": ["c"], "label": 0}]
    assert pad(rows).keys() == pad(rows[::-1]).keys() == {"input_ids", "labels", "attention_mask"}


def test_lengths_have_to_fit_the_examples():
    class Wrong(list):
        lengths = [1, 2, 3]

    with pytest.raises(ValueError, match="50 examples, but 3 lengths"):
        run(data=Wrong(examples()))


def test_a_dataset_of_datasets_trains_like_a_list():
    data = Dataset.from_list([row | {"text": "left out"} for row in examples()])
    assert same(run(data=data)[0], run()[0])


class Renewed:
    """New examples, and another number of them, each epoch."""

    def __init__(self):
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)
        self.rows = examples(20 + 7 * epoch, seed=epoch)
        self.lengths = [len(row["input_ids"]) for row in self.rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def test_set_epoch_makes_new_examples(tmp_path):
    data = Renewed()
    data.set_epoch(0)
    whole, history = run(data=data, epochs=3)
    assert history.steps == 3 + 4 + 5 and data.epochs[-3:] == [0, 1, 2]
    data.set_epoch(0)
    run(data=data, epochs=3, out=tmp_path, stop_at=5, save_every=1)
    assert same(run(data=data, epochs=3, out=tmp_path, save_every=1, resume=True)[0], whole)


# one step


def test_accumulating_is_the_same_step_as_one_large_batch():
    whole, history = run(bert(), collate=hide, lr=1e-2, epochs=4)
    assert history.steps >= 20
    for parts in (2, 3, 8):
        cut, pieces = run(bert(), collate=hide, lr=1e-2, epochs=4, accumulate=parts)
        assert 0 < distance(whole, cut) <= 1e-6
        np.testing.assert_allclose(pieces.column("loss")[1], history.column("loss")[1], rtol=1e-5)
    # planted fault: with equal counts the step is the mean of the parts' means
    naive, _ = run(bert(), collate=hide, lr=1e-2, epochs=4, accumulate=2, items=lambda batch: training.count_labels(batch).clamp(max=1))
    assert distance(whole, naive) > 1e-3


def two_terms(model, batch):
    """One mean over even words, one over odd ones: a part of a batch may have none of a kind."""
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    return torch.stack([nn.functional.cross_entropy(logits[at], batch["labels"][at]) for at in kinds(batch)])


def kinds(batch):
    return [(batch["labels"] >= 0) & (batch["labels"] % 2 == odd) for odd in (0, 1)]


def two_counts(batch):
    return torch.stack([at.sum() for at in kinds(batch)])


def test_each_term_is_a_mean_of_its_own_over_the_whole_step():
    common = dict(collate=hide, loss=two_terms, items=two_counts, log_every=1)
    whole, history = run(bert(), **common)
    cut, _ = run(bert(), **common, accumulate=8)
    assert distance(whole, cut) <= 1e-6
    assert all(math.isfinite(value) for tensor in whole.values() for value in [tensor.sum().item()])
    row = history.rows[0]
    assert len(row["terms"]) == 2 and row["loss"] == pytest.approx(sum(row["terms"]))


def careful_terms(model, batch):
    """The same means, but 0 rather than no number over nothing."""
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    each = nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
    return torch.stack([(each * at).sum() / at.sum().clamp(min=1) for at in kinds(batch)])


@pytest.mark.parametrize("loss", [two_terms, careful_terms])
def test_a_term_without_items_adds_nothing(loss):
    odd = [{"input_ids": [word | 1 for word in row["input_ids"]]} for row in examples()]
    common = dict(collate=hide, accumulate=2)
    found, history = run(bert(), odd, **common, loss=loss, items=two_counts, dev=odd)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert history.rows[0]["terms"][0] == 0 and history.best["dev"]["terms"][0] == 0
    alone = dict(loss=lambda *args: loss(*args)[1], items=lambda batch: two_counts(batch)[1])
    assert distance(found, run(bert(), odd, **common, **alone)[0]) <= 1e-6


def test_evaluation_is_the_mean_over_all_items():
    rows, model = examples(23), bert(dropout=0.5).train()
    batch = hide(rows, [(0, 0, i) for i in range(23)])
    with torch.no_grad():
        right = model.eval()(**batch).loss.item()
        model.train()
    for size in (1, 4, 23):
        assert evaluate(model, rows, batch_size=size, collate=hide)["loss"] == pytest.approx(right, rel=1e-5)
    assert model.training
    found = evaluate(model, rows, collate=hide, loss=two_terms, items=two_counts)
    assert found["loss"] == pytest.approx(sum(found["terms"])) and len(found["terms"]) == 2


def test_loss_and_items_have_to_agree():
    with pytest.raises(ValueError, match=r"terms of shape \(2,\), `items` counts of shape \(1,\)"):
        run(bert(), collate=hide, loss=two_terms)


def test_a_model_without_a_loss_is_one_sentence():
    rows = [{"input_ids": [5, 6]}] * 8
    with pytest.raises(ValueError, match="gave no loss"):
        run(bert(), rows)


def test_weights_decay_and_vectors_do_not():
    model = bert()
    decaying, plain = training.make_optimizer(model, weight_decay=0.1).param_groups
    assert decaying["weight_decay"] == 0.1 and plain["weight_decay"] == 0
    names = {id(p): name for name, p in model.named_parameters()}
    exempt = {names[id(p)] for p in plain["params"]}
    assert exempt == {name for name in names.values() if name.endswith("bias") or "LayerNorm" in name}


def test_schedules():
    def lr(**kwargs):
        return run(epochs=None, steps=20, lr=1.0, log_every=1, **kwargs)[1].column("lr")[1]

    linear = lr(warmup=0.2)
    assert linear[:5] == [0, 0.25, 0.5, 0.75, 1] and linear[-1] == pytest.approx(1 / 16)
    assert lr(warmup=4) == linear
    assert lr(warmup=0, schedule="constant") == [1] * 20
    cosine = lr(schedule="cosine", warmup=0)
    assert cosine[10] == pytest.approx(0.5) and cosine[5] > linear[7]
    assert lr(schedule=lambda step: 0.5**step)[:3] == [1, 0.5, 0.25]
    with pytest.raises(ValueError, match="unknown schedule 'liner': one of linear, constant, cosine"):
        run(schedule="liner")


def test_an_optimiser_of_ones_own():
    model = toy(dropout=0)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    ready, _ = run(model, optimizer=sgd, clip=None)
    made, _ = run(toy(dropout=0), optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1), clip=None)
    assert same(ready, made)
    with pytest.raises(ValueError, match="parameters that are not the model's"):
        run(toy(), optimizer=sgd)


def test_bfloat16():
    seen = []

    def loss(model, batch):
        out = model(**batch)
        seen.append(out.logits.dtype)
        return out.loss

    exact, wide = run(bert(), collate=hide, loss=loss, epochs=1)
    rough, narrow = run(bert(), collate=hide, loss=loss, epochs=1, precision="bf16")
    assert set(seen) == {torch.float32, torch.bfloat16}
    assert all(tensor.dtype == torch.float32 for tensor in rough.values())
    assert 0 < distance(exact, rough) < 0.05
    assert narrow.rows[0]["loss"] == pytest.approx(wide.rows[0]["loss"], rel=0.01)
    with pytest.raises(ValueError, match="precision 'fp16': give 'no', 'bf16' or 'auto'"):
        run(precision="fp16")


@pytest.mark.parametrize("flags, expected", [("avx2", "no"), ("avx2 avx512f avx512_bf16", "bf16"), ("avx2 amx_bf16", "bf16"), ("asimd bf16", "bf16"), ("", "no")])
def test_the_fastest_precision_is_the_processors(monkeypatch, flags, expected):
    monkeypatch.setattr(training, "computes_in_bf16", lambda: machine.computes_in_bf16(machine.parse_cpuinfo(f"model name: x\nflags: {flags}\n")))
    assert training.fastest_precision("cpu") == expected == training.Work(precision="auto").precision
    assert training.fastest_precision("mps") == "no"


@pytest.mark.parametrize("native, expected", [(True, "bf16"), (False, "no")])
def test_a_gpu_that_has_to_emulate_bf16_is_left_alone(monkeypatch, native, expected):
    """T4 and V100 have no bf16; PyTorch says they support it, for it can emulate it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert training.fastest_precision("cuda") == expected


def test_gradients_are_clipped_to_the_norm():
    class Norms(Callback):
        found = []

        def on_step_end(self, state):
            norm = torch.cat([p.grad.flatten() for p in state.params]).norm().item()
            self.found.append((state.grad_norm, norm))

    run(callbacks=[Norms()], clip=0.01)
    assert all(before > 0.01 and after == pytest.approx(0.01, rel=1e-3) for before, after in Norms.found)
    with pytest.raises(ValueError, match="`clip` is 0"):
        run(clip=0)


# reproducible


def test_a_seed_decides_everything():
    first, history = run()
    again, recorded = run()
    assert same(first, again) and timeless(history) == timeless(recorded)
    assert not same(first, run(seed=1)[0])
    assert not same(first, run(toy(dropout=0))[0])  # dropout is on


def test_it_learns_and_what_it_writes_can_be_loaded(tmp_path):
    model = bert(dropout=0.1, cls=BertForSequenceClassification)
    history = fit(model, examples(200), dev=examples(40, seed=1), epochs=8, lr=5e-3, batch_size=20, out=tmp_path)
    losses = history.column("loss")[1]
    assert losses[-1] < 0.7 * losses[0] and not model.training
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    assert same(weights(loaded), weights(model))
    best = BertForSequenceClassification.from_pretrained(tmp_path / "best")
    assert evaluate(best, examples(40, seed=1))["loss"] == pytest.approx(history.best["dev"]["loss"], abs=1e-7)
    assert history.best["dev"]["loss"] == min(history.column("dev.loss")[1])
    assert "best at step" in repr(history) and "best at step" in repr(History.read(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "history.jsonl", "best", *(p.name for p in training.checkpoints(tmp_path))}


def test_history_is_read_back_whole_or_cut(tmp_path):
    _, history = run(dev=examples(9), out=tmp_path, log_every=3)
    read = History.read(tmp_path)
    assert read.rows == history.rows and read.best == history.best and read.steps == history.steps == 14
    assert read.column("loss")[0] == [3, 6, 9, 12, 14] and read.column("dev.loss")[0] == [7, 14]
    assert [row["epoch"] for row in read.rows if "dev" in row] == [1, 2]
    assert "training" in history.plot(en="loss").html()
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')  # killed while writing
    assert History.read(tmp_path).rows == history.rows
    with pytest.raises(FileNotFoundError):
        History.read(tmp_path / "nowhere")


def test_rows_are_means_since_the_last_one():
    single = run(log_every=1)[1].column("loss")[1]
    means = run(log_every=5)[1].column("loss")[1]
    assert means == pytest.approx([np.mean(single[0:5]), np.mean(single[5:10]), np.mean(single[10:14])])
    assert run()[1].rows[-1]["tokens"] == 2 * sum(len(row["input_ids"]) for row in examples())


def test_nothing_is_printed_where_nobody_looks(tmp_path, capfd):
    run(bert(), collate=hide, dev=examples(9), out=tmp_path, progress=True)
    assert capfd.readouterr() == ("", "")


def test_a_bar_and_a_last_line_where_somebody_does(monkeypatch, capfd):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(training.sys.stderr, "isatty", lambda: True, raising=False)
    _, history = run(progress=True, dev=examples(5))
    out, err = capfd.readouterr()
    assert out == f"{history}\n" and "14/14" in err and "loss=" in err
    monkeypatch.setenv("TQDM_DISABLE", "1")
    run(progress=True)
    assert capfd.readouterr() == ("", "")


# callbacks


def test_callbacks_are_called_in_order():
    calls = []

    class Everything(Callback):
        def on_step_begin(self, state):
            calls.append(("begin", state.step, len(state.ids), state.batches[0][0]["input_ids"].shape[0]))

        def after_backward(self, state):
            calls.append(("backward", state.step, state.model.out.weight.grad is not None))

        def on_step_end(self, state):
            calls.append(("end", state.step, math.isfinite(state.loss), state.grad_norm > 0, state.lr > 0))

        def on_eval(self, state):
            calls.append(("eval", state.step, list(state.dev)))

    class OnlyOne:  # need not be a Callback
        def on_eval(self, state):
            calls.append("one")

    run(epochs=None, steps=2, batch_size=25, warmup=0, dev=examples(5), callbacks=[Everything(), OnlyOne()])
    assert calls == [("begin", 0, 25, 25), ("backward", 0, True), ("end", 1, True, True, True),
                     ("begin", 1, 25, 25), ("backward", 1, True), ("end", 2, True, True, True),
                     ("eval", 2, ["loss"]), "one"]


class FGM(Callback):
    """Adversarial training (Miyato et al. 2017): the gradient at shifted word vectors is added."""

    def __init__(self, size=0.5):
        self.size, self.log = size, []

    def after_backward(self, state):
        table = state.model.get_input_embeddings().weight
        if table.grad is None:  # no blanks in this batch
            return
        kept, first = table.detach().clone(), table.grad.clone()
        table.data.add_(table.grad / table.grad.norm(), alpha=self.size)
        self.log.append({"first": first, "terms": state.backward(), "both": table.grad.clone()})
        table.data.copy_(kept)


def test_a_callback_can_go_forward_and_backward_again():
    fgm = FGM()
    run(bert(), collate=hide, callbacks=[fgm], epochs=None, steps=1)
    (log,) = fgm.log
    model, batch = bert(), hide(examples(), [(0, 0, i) for i in range(50)])
    ids = plan([len(row["input_ids"]) for row in examples()], 8, 0, 0)[0]
    batch = hide([examples()[i] for i in ids], [(0, 0, i) for i in ids])
    model(**batch).loss.backward()
    table = model.get_input_embeddings().weight
    torch.testing.assert_close(table.grad, log["first"])
    with torch.no_grad():
        table += 0.5 * table.grad / table.grad.norm()
    adversarial = model(**batch).loss
    adversarial.backward()
    torch.testing.assert_close(table.grad, log["both"])
    assert log["terms"] == [pytest.approx(adversarial.item())]
    plain, _ = run(bert(), collate=hide)
    attacked, _ = run(bert(), collate=hide, callbacks=[FGM()])
    parts, _ = run(bert(), collate=hide, callbacks=[FGM()], accumulate=3)
    assert distance(plain, attacked) > 1e-3 and distance(attacked, parts) <= 1e-6


def test_a_callback_can_stop_the_run(tmp_path):
    class Stop:
        def on_step_end(self, state):
            state.stop = state.step == 5

    stopped, history = run(callbacks=[Stop()], out=tmp_path, dev=examples(5))
    assert history.steps == 5 and history.rows[-1]["step"] == 5 and "dev" in history.rows[-1]
    again, history = run(callbacks=[Stop()], out=tmp_path, dev=examples(5), resume=True)
    assert history.steps == 5 and same(stopped, again)


class Average(Callback):
    """Mean of the weights, kept in checkpoints."""

    def __init__(self):
        self.mean = None

    def on_step_end(self, state):
        now = weights(state.model)
        self.mean = {k: 0.9 * self.mean[k] + 0.1 * now[k] for k in now} if self.mean else now

    def state_dict(self):
        return self.mean

    def load_state_dict(self, state):
        self.mean = state


def test_what_a_callback_remembers_survives_a_resumption(tmp_path):
    whole, cut, rest = Average(), Average(), Average()
    run(callbacks=[whole])
    run(callbacks=[cut], out=tmp_path, stop_at=4)
    run(callbacks=[rest], out=tmp_path, resume=True)
    assert same(whole.mean, rest.mean)


# stopping early


def scripted(*values):
    """A metric that gives these values one after the other; the last one for ever."""
    values = list(values)
    return lambda model: {"accuracy": values.pop(0) if len(values) > 1 else values[0]}


@pytest.mark.parametrize("kept", ["in memory", "on disk"])
def test_patience_goes_back_to_the_best_weights(tmp_path, kept):
    at = {}

    class Remember:
        def on_eval(self, state):
            at[state.step] = weights(state.model)

    out = tmp_path / "run" if kept == "on disk" else None
    found, history = run(metrics=scripted(0.1, 0.5, float("nan"), 0.5, 0.4), better=("accuracy", "max"), patience=3, out=out,
                         epochs=9, eval_every=2, callbacks=[Remember()])
    assert history.steps == 10 and history.best["step"] == 4 and history.best["dev"] == {"accuracy": 0.5}
    assert same(found, at[4]) and not same(found, at[10])
    if out:
        assert History.read(out).best == history.best
        again, history = run(metrics=scripted(9), better=("accuracy", "max"), patience=3, out=out, epochs=9, eval_every=2,
                             callbacks=[Remember()], resume=True)
        assert same(again, found) and history.steps == 10  # nothing left to do


def test_tied_weights_come_back_from_disk(tmp_path):
    at = {}

    class Remember:
        def on_eval(self, state):
            at[state.step] = weights(state.model)

    found, history = run(bert(), collate=hide, metrics=scripted(1, 2), better=("accuracy", "min"), patience=1, eval_every=3,
                         out=tmp_path, callbacks=[Remember()])
    assert history.best["step"] == 3 and same(found, at[3]) and not same(found, at[6])
    model = BertForMaskedLM.from_pretrained(tmp_path)
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert same(weights(model), found)


def test_without_patience_the_last_weights_stay():
    found, history = run(metrics=scripted(3, 2, 1), better=("accuracy", "max"), eval_every=3)
    assert history.steps == 14 and history.best["step"] == 3
    assert same(found, run()[0])


def test_without_examples_there_is_nothing_to_evaluate():
    with pytest.raises(ValueError, match="^`data` has no examples$"):
        evaluate(toy(), [])
    with pytest.raises(TypeError, match="`data` is generator: it needs `len`"):
        evaluate(toy(), (row for row in examples()))


def test_an_evaluation_is_made_where_the_model_is(monkeypatch):
    """A model that was just loaded is on the CPU, also where a GPU waits for `fit`."""
    right = evaluate(toy(), examples(9))
    waiting = SimpleNamespace(device=torch.device("meta"), mixed_precision="no", process_index=0, num_processes=1)
    monkeypatch.setattr(training, "Accelerator", lambda: waiting)
    assert evaluate(toy(), examples(9)) == right


def test_patience_is_remembered_by_a_resumed_run(tmp_path):
    asked = dict(better=("accuracy", "max"), patience=3, epochs=9, eval_every=2, out=tmp_path, save_every=1)
    run(metrics=scripted(5, 4), stop_at=5, **asked)
    _, history = run(metrics=scripted(4), resume=True, **asked)
    assert history.steps == 8 and history.best["step"] == 2


def test_metrics_see_a_model_at_rest():
    seen = []

    def measure(model):
        seen.append((model.training, torch.is_grad_enabled()))
        return {"accuracy": torch.tensor(1.0)}

    found, _ = run(metrics=measure, better=("accuracy", "max"), eval_every=3)
    assert len(seen) == 5 and set(seen) == {(False, False)}
    assert same(found, run()[0])  # and training goes on with dropout


def test_better_has_to_be_measured():
    with pytest.raises(ValueError, match="`better` asks for 'f1', an evaluation gives loss, accuracy"):
        run(dev=examples(5), metrics=scripted(1), better=("f1", "max"))


# pausing


class Pause(Callback):
    """Asks for a pause after one step; -1: never."""

    def __init__(self, at):
        self.at, self.step, self.losses = at, 0, {}

    def on_step_end(self, state):
        self.step = state.step

    def on_eval(self, state):
        self.losses[state.step] = state.loss, state.grad_norm, state.lr, state.terms

    def __call__(self):
        return self.step == self.at


def paused_at(at, **kwargs):
    pause = Pause(at)
    return *run(pause=pause, callbacks=[pause], **kwargs), pause


@pytest.mark.parametrize("at", [1, 4, 6, 7, 12, 13, 14])  # 4, 8, 12 and 14 evaluate; 7 and 14 are the ends of the epochs
def test_a_pause_loses_no_step(tmp_path, at):
    asked = dict(dev=examples(9), log_every=3, eval_every=4, out=tmp_path / "run")
    whole, history, quiet = paused_at(-1, **asked | dict(out=tmp_path / "whole"))
    found, cut, pause = paused_at(at, **asked)
    if at == 14:  # also the last step waits for its evaluation, and the run is not finished
        assert not (tmp_path / "run" / "model.safetensors").exists()
    assert cut.paused and cut.steps == at and training.checkpoints(tmp_path / "run")[0].name == f"checkpoint-{at:08}.pt"
    assert same(found, run(dev=examples(9), eval_every=4, stop_at=at)[0])
    assert at not in [row["step"] for row in cut.rows if "dev" in row]  # a pause does not wait for the evaluation
    torch.manual_seed(99)
    rest, resumed, after = paused_at(-1, **asked, resume=True)
    assert same(whole, rest) and timeless(history) == timeless(resumed) == timeless(History.read(tmp_path / "run"))
    assert resumed.best["step"] == history.best["step"] and not resumed.paused
    assert pause.losses | after.losses == quiet.losses and (at in after.losses) == (at in quiet.losses)
    for name in ("model.safetensors", "best/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_that_is_always_paused_comes_to_its_end(tmp_path):
    asked, steps = dict(dev=examples(9), eval_every=1, pause=lambda: True), []
    for _ in range(40):
        found, history = run(**asked, out=tmp_path, resume=True)
        steps.append(history.steps)
        if not history.paused:
            break
    assert same(found, run(dev=examples(9), eval_every=1)[0]) and history.steps == 14
    assert steps == sorted(steps) and steps[0] == 1


def test_a_pause_without_a_folder_tells_how_far_it_came():
    found, history = run(dev=examples(9), eval_every=1, pause=lambda: True)
    assert history.paused and history.steps == 1 and same(found, run(stop_at=1)[0])


def test_the_evaluation_after_a_pause_may_end_the_run(tmp_path):
    asked = dict(better=("accuracy", "max"), patience=1, epochs=9, eval_every=2, out=tmp_path)
    at_two, _ = run(stop_at=2, epochs=9)
    _, history, _ = paused_at(4, metrics=scripted(5), **asked)
    assert history.paused and history.steps == 4
    found, history, _ = paused_at(4, metrics=scripted(4), resume=True, **asked)
    assert history.steps == 4 and not history.paused and history.best["step"] == 2 and same(found, at_two)


# resuming


@pytest.mark.parametrize("stop", [1, 4, 7, 8, 13, 14])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, stop):
    asked = dict(dev=examples(9), log_every=3, eval_every=4, save_every=5)
    whole, history = run(**asked)
    run(**asked, out=tmp_path, stop_at=stop)
    torch.manual_seed(99)
    np.random.seed(99)
    rest, resumed = run(**asked, out=tmp_path, resume=True)
    assert same(whole, rest) and timeless(history) == timeless(resumed) == timeless(History.read(tmp_path))
    assert history.best["step"] == resumed.best["step"]
    again, third = run(**asked, out=tmp_path, resume=True)  # finished: nothing left to do
    assert same(whole, again) and third.rows == resumed.rows


def test_resuming_in_many_pieces(tmp_path):
    whole, _ = run(bert(dropout=0.2), collate=hide, accumulate=2, precision="bf16")
    for stop in (*range(2, 14, 3), None):
        rest, _ = run(bert(dropout=0.2), collate=hide, accumulate=2, precision="bf16", out=tmp_path, resume=True, stop_at=stop)
    assert same(whole, rest) and len(training.checkpoints(tmp_path)) == 2


def test_resuming_nothing_begins(tmp_path):
    whole, _ = run()
    assert same(run(out=tmp_path / "new" / "folder", resume=True)[0], whole)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "history.jsonl").write_text('{"step": 3, "loss": 1.0}\n{"st')  # before the first checkpoint
    found, history = run(out=tmp_path / "killed", resume=True)
    assert same(found, whole) and History.read(tmp_path / "killed").rows == history.rows


@pytest.mark.parametrize("change, named", [
    (dict(lr=2e-2), "lr was 0.01, is 0.02"), (dict(batch_size=10), "batch_size was 8, is 10"), (dict(seed=1), "seed"),
    (dict(epochs=3), "steps was 14, is 21"), (dict(warmup=0), "warmup"), (dict(schedule="cosine"), "schedule"),
    (dict(precision="bf16"), "precision"), (dict(data=examples(49)), "train was '50 examples"),
    (dict(data=examples(50, seed=2)), "train was '50 examples"), (dict(accumulate=2), "accumulate"),
    (dict(model=bert(cls=BertForSequenceClassification)), "model was 'Toy"), (dict(dev=examples(4)), "dev"),
    (dict(clip=None), "clip was 1.0, is None"), (dict(collate=hide), "collate was None, is 'hide'"),
    (dict(callbacks=[FGM()]), "callbacks"), (dict(log_every=2), "log_every"), (dict(betas=(0.9, 0.98)), "betas"),
    (dict(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1)), "optimizer"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_run_is_resumed_with_its_own_settings_only(tmp_path, change, named):
    run(out=tmp_path, stop_at=9)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(ValueError, match=f"cannot resume a run with other settings .*{named}"):
        run(out=tmp_path, resume=True, **change)
    assert before == {path: path.read_bytes() for path in tmp_path.glob("*.*")}


def test_settings_that_change_nothing_may_change(tmp_path):
    whole, _ = run()
    run(out=tmp_path, stop_at=9, save_every=2)
    assert same(run(out=tmp_path, resume=True, save_every=3, progress=True)[0], whole)


def test_what_exists_is_not_overwritten(tmp_path):
    run(out=tmp_path / "finished")
    with pytest.raises(FileExistsError, match=r"holds a run already \(history.jsonl\)"):
        run(out=tmp_path / "finished")
    toy_weights = tmp_path / "foreign"
    training.save_weights(toy(), toy_weights)
    before = (toy_weights / "model.safetensors").read_bytes()
    for resume in (False, True):
        with pytest.raises(FileExistsError):
            run(out=toy_weights, resume=resume)
    assert (toy_weights / "model.safetensors").read_bytes() == before and len(list(toy_weights.iterdir())) == 1
    for checkpoint in training.checkpoints(tmp_path / "finished"):  # to save space
        checkpoint.unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "finished").iterdir()}
    with pytest.raises(FileExistsError, match="holds a model, but no run that could be resumed"):
        run(out=tmp_path / "finished", resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "finished").iterdir()} == before
    (tmp_path / "noted").mkdir()
    (tmp_path / "noted" / "README.md").write_text("my notes")  # what a run does not write may be there
    run(out=tmp_path / "noted")
    assert (tmp_path / "noted" / "README.md").read_text() == "my notes"


def truncated(data):
    return data[: len(data) // 2]


def flipped(data):
    """One bit of the largest tensor: it loads, but is wrong."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        tensor = archive.read(max(archive.infolist(), key=lambda entry: entry.file_size))
    at = data.index(tensor) + len(tensor) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [truncated, flipped, lambda data: b"", lambda data: b"not a checkpoint"],
                         ids=["truncated", "flipped", "empty", "foreign"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    whole, _ = run()
    run(out=tmp_path, stop_at=9, save_every=2)
    newest, before = training.checkpoints(tmp_path)
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged .*going back to the checkpoint before it"):
        found, _ = run(out=tmp_path, save_every=2, resume=True)
    assert same(found, whole)
    assert newest.with_suffix(".damaged").exists() and len(training.checkpoints(tmp_path)) == 2


def test_all_checkpoints_damaged_begins_anew(tmp_path):
    whole, _ = run()
    run(out=tmp_path, stop_at=9, save_every=2)
    for path in training.checkpoints(tmp_path):
        path.write_bytes(truncated(path.read_bytes()))
    with pytest.warns(UserWarning) as said:
        assert same(run(out=tmp_path, save_every=2, resume=True)[0], whole)
    assert len(said) == 2


def test_a_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    training.write_whole(tmp_path / "a", lambda path: path.write_text("old"))

    def killed(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.write_whole(tmp_path / "a", killed)
    assert (tmp_path / "a").read_text() == "old"
    order = []
    for name in ("fsync", "replace"):
        real = getattr(training.os, name)
        monkeypatch.setattr(training.os, name, lambda *args, name=name, real=real: (order.append(name), real(*args))[1])
    training.write_whole(tmp_path / "a", lambda path: path.write_text("new"))
    assert order == ["fsync", "replace", "fsync"] and (tmp_path / "a").read_text() == "new"


def test_killed_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    whole, _ = run()
    real, saves = torch.save, []

    def dies(content, path):
        real(content, path)
        saves.append(path)
        if len(saves) == 3:
            path.write_bytes(truncated(path.read_bytes()))
            raise KeyboardInterrupt

    monkeypatch.setattr(training.torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path, save_every=2)
    monkeypatch.undo()
    assert [path.name for path in training.checkpoints(tmp_path)] == ["checkpoint-00000004.pt", "checkpoint-00000002.pt"]
    assert not list(tmp_path.glob(".*.partial"))  # an interruption removes it; what a kill leaves:
    (tmp_path / ".checkpoint-00000006.pt.0.partial").write_bytes(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(run(out=tmp_path, save_every=2, resume=True)[0], whole)
    assert not list(tmp_path.glob(".*"))


def test_a_checkpoint_is_read_without_running_what_it_holds(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"model": Evil()}, tmp_path / "checkpoint-00000001.pt")
    with pytest.warns(UserWarning, match="is damaged"):
        assert training.load_checkpoint(tmp_path) is None
    assert not (tmp_path / "owned").exists()


# what goes wrong


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    data = examples()
    ids = plan([len(row["input_ids"]) for row in data], 8, 0, 0)[4]

    def loss(model, batch):
        bad = batch["input_ids"].shape[0] == 8 and torch.equal(batch["input_ids"], pad([data[i] for i in ids])["input_ids"])
        return model(**batch).loss * (math.nan if bad else 1)

    model = toy()
    with pytest.raises(NonFiniteLoss) as error:
        run(model, data, loss=loss, out=tmp_path, save_every=1)
    assert isinstance(error.value, FloatingPointError)
    text = str(error.value)
    assert text.startswith("step 5: the loss is nan") and str(ids) in text and "learning rate 0.00769" in text
    assert all(tensor.isfinite().all() for tensor in weights(model).values())
    assert training.checkpoints(tmp_path)[0].name == "checkpoint-00000004.pt"
    assert not (tmp_path / "model.safetensors").exists()


def test_a_gradient_that_is_infinite_stops_the_run():
    def loss(model, batch):
        return (model.out.bias * 0).sqrt().sum() + model(**batch).loss

    model = toy()
    before = weights(model)
    with pytest.raises(NonFiniteLoss, match=r"step 1: the loss is 0\.\d+, the norm of its gradient (nan|inf)"):
        run(model, loss=loss)
    assert same(before, weights(model))


@pytest.mark.parametrize("wrong, sentence", [
    (dict(steps=3), "either `epochs` or `steps`"), (dict(epochs=None), "either `epochs` or `steps`"),
    (dict(epochs=0), "`epochs` is 0"), (dict(batch_size=0), "`batch_size` is 0"), (dict(data=[]), "no examples"),
    (dict(accumulate=9), "8 examples cannot be cut into 9 parts"), (dict(better=("loss", "low")), "`better`"),
    (dict(patience=2), "`patience` waits"), (dict(patience=0, dev=examples(3)), "`patience` is 0"),
    (dict(dev=[]), "^`dev` has no examples$"), (dict(resume=True), "`resume` needs the folder"), (dict(stop_at=0), "`stop_at` is 0"),
    (dict(eval_every=0), "`eval_every` is 0"), (dict(save_every=-1), "`save_every` is -1"),
])
def test_wrong_settings_are_one_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(**wrong)


def test_a_stream_is_no_dataset():
    with pytest.raises(TypeError, match="`train` is generator: it needs `len`"):
        run(data=(row for row in examples()))
    with pytest.raises(TypeError, match="`dev` is generator: it needs `len`"):
        run(dev=(row for row in examples()))


def test_a_loss_that_compares_texts_needs_whole_batches():
    model = toy()
    model.compares_texts = True
    run(model)
    with pytest.raises(ValueError, match="^the loss of Toy compares the texts of a batch .* accumulate=1 and a single process"):
        run(model, accumulate=2)
    with pytest.raises(ValueError, match="a single process"):
        training._check_parts(model, 1, 2)


def test_processes_that_do_not_know_of_each_other_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="set ACCELERATE_USE_CPU=1"):
        run(out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_history_file_is_plain_json(tmp_path):
    run(out=tmp_path, dev=examples(9))
    for line in (tmp_path / "history.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert {"step", "epoch", "seconds"} < row.keys()


def test_a_metric_that_is_not_defined_is_null_in_the_file(tmp_path):
    """Pearson's correlation with predictions that are all the same is no number, and neither JSON's nor other readers'."""
    undefined = {"pearson": math.nan, "mse": math.inf}
    _, history = run(out=tmp_path, metrics=lambda model: undefined, better=("pearson", "max"))
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["dev"] for row in rows if "dev" in row] == [{"pearson": None, "mse": None}] * 2
    read = History.read(tmp_path)
    assert [math.isnan(value) for value in read.column("dev.pearson")[1]] == [True] * 2 and read.best is None
    assert read.column("loss") == history.column("loss")


def test_the_random_state_of_an_apple_gpu_is_kept(monkeypatch):
    class Apple:
        """Stands for `torch.mps`, which exists on a Mac only."""

        state = torch.tensor([1, 2, 3], dtype=torch.uint8)

        def get_rng_state(self):
            return self.state.clone()

        def set_rng_state(self, state):
            self.state = state

    without = training._random_states()
    assert without["mps"] is None
    training._set_random_states({name: state for name, state in without.items() if name != "mps"})  # as older checkpoints have it
    apple = Apple()
    monkeypatch.setattr(training.torch, "mps", apple)
    monkeypatch.setattr(training.torch.backends.mps, "is_available", lambda: True)
    kept = training._random_states()
    apple.state = torch.tensor([7, 7, 7], dtype=torch.uint8)
    training._set_random_states(kept)
    assert apple.state.tolist() == [1, 2, 3]
    monkeypatch.setattr(training.torch.backends.mps, "is_available", lambda: False)
    apple.state = None
    training._set_random_states(kept)  # resumed on another machine: the generator that there is not stays alone
    assert apple.state is None


class Moved(nn.Linear):
    "Counts where it is moved to."

    def to(self, device):
        self.moves = [*getattr(self, "moves", []), torch.device(device)]
        return self


def squares(model, batch):
    return model(batch["x"]).square().mean()


@pytest.mark.parametrize("fault", [None, KeyboardInterrupt])
def test_a_model_comes_back_to_where_it_was(fault):
    "Also when the training is interrupted: the next cell of a notebook has its inputs there."
    model = Moved(2, 1)

    class Away(Callback):
        def on_step_end(self, state):
            assert model.moves == [home]
            if fault:
                raise fault

    home = next(model.parameters()).device
    rows = [{"x": torch.ones(2)}] * 4
    with pytest.raises(fault) if fault else contextlib.nullcontext():
        fit(model, rows, steps=1, batch_size=2, loss=squares, items=lambda batch: len(batch["x"]), progress=False, callbacks=[Away()],
            collate=lambda rows: {"x": torch.stack([row["x"] for row in rows])})  # fmt: skip
    assert model.moves == [home, home]  # to the accelerator's device, which is the same here, and back
    assert not model.training


def test_a_model_comes_back_when_training_cannot_begin(tmp_path):
    "A wrong optimiser, a folder that holds a run, and a run with other settings are noticed when the model was moved already."
    training.save_weights(toy(), tmp_path / "foreign")
    run(out=tmp_path / "run", stop_at=2)
    model, wrong = Moved(2, 1), []
    home = next(model.parameters()).device
    for more in (dict(optimizer=torch.optim.SGD(toy().parameters())), dict(out=tmp_path / "foreign"),
                 dict(out=tmp_path / "run", resume=True), dict(schedule="exponential")):  # fmt: skip
        model.moves = []
        with pytest.raises((ValueError, FileExistsError)) as error:
            fit(model, [{"x": torch.ones(2)}] * 4, steps=1, batch_size=2, loss=squares, progress=False, **more)
        wrong.append(str(error.value))
        assert model.moves == [home, home] and not model.training
    assert len({*wrong}) == 4


def test_a_loss_that_is_no_number_leaves_evaluation_mode():
    model = toy()
    with pytest.raises(NonFiniteLoss):
        run(model, loss=lambda model, batch: model(**batch).loss * math.nan)
    assert not any(module.training for module in model.modules())
