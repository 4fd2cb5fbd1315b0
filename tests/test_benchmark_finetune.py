"""What the benchmark of fine-tuning compares is comparable, and its inputs are as long as it says. How fast things are is not tested."""

import gc
import itertools
import json
import os
import statistics
from pathlib import Path

import pytest
import scripts

DATA = os.environ.get("BERTCOURSE_DATA")


@pytest.fixture(scope="module")
def bench():
    with scripts.loaded("finetune") as module:
        yield module


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import BertForSequenceClassification, Trainer  # noqa: F401

    from bertcourse import profiles

    made = profiles.load("tiny").tokenizer()
    gc.freeze()  # Trainer collects garbage after each run: not among all that is imported by now
    yield made
    gc.unfreeze()


def run(*args, **kwargs):
    "The script, on one thread."
    return scripts.run("finetune", "--threads", 1, *args, **kwargs)


# --- the script ---------------------------------------------------------------------------------------------------


def test_quick_run_writes_all_arms(bench, tokenizer, monkeypatch, tmp_path):
    "In this process, with small models and batches; `slow/test_benchmark_runs.py` runs the script as it is."
    monkeypatch.setattr(bench, "new_model", Watch(tokenizer))
    monkeypatch.setattr(bench, "BATCH", 8)
    file = tmp_path / "found.json"
    done = scripts.run_here(bench, "--threads", 1, "--quick", "--json", file)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "a temporary file is left"
    scripts.check_finetune_run(json.loads(file.read_text()), done.stdout)


@pytest.mark.parametrize("args, said", [
    (["wrong"], "'wrong'"),
    (["collator"], "'collator'"),  # of the other benchmark
    (["loop", "--rounds", "3"], "7"),
    (["loop", "--threads", "0"], "--threads"),
    (["loop", "--child", "file"], "--child"),  # likewise
    (["loop", "--json", "no/such/folder/found.json"], "--json"),
])  # fmt: skip
def test_bad_input_is_one_sentence(args, said, tmp_path):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert said in done.stderr


# --- inputs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [320, 3200])
def test_lengths_are_those_of_sst2(bench, monkeypatch, n):
    monkeypatch.delenv("BERTCOURSE_DATA", raising=False)
    lengths, source = bench.input_lengths(n)
    assert len(lengths) == n and "gamma" in source
    assert statistics.fmean(lengths) == pytest.approx(13.3, abs=0.1)
    assert min(lengths) == 3 and statistics.median(lengths) < 13 and 60 <= max(lengths) <= 66
    assert lengths != sorted(lengths) and bench.input_lengths(n)[0] == lengths, "shuffled, the same each time"


def test_lengths_are_read_from_the_file(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("BERTCOURSE_DATA", str(tmp_path))
    assert "gamma" in bench.input_lengths(4)[1]
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "train.tsv").write_text("sentence\tlabel\n" + "a " * 10 + "\t1\nb\t0\nc\u2028d e f g\t1\na b\t0\n", "utf-8")
    lengths, source = bench.input_lengths(8)
    assert sorted(lengths) == [3, 3, 4, 4, 8, 8, 14, 14] and "4 sentences" in source


@pytest.mark.skipif(not DATA or not Path(DATA, "sst2", "train.tsv").exists(), reason="BERTCOURSE_DATA has no sst2/train.tsv")
def test_distribution_fits_the_file(bench, monkeypatch):
    real, _ = bench.input_lengths(3200)
    monkeypatch.delenv("BERTCOURSE_DATA")
    fitted, _ = bench.input_lengths(3200)
    assert statistics.fmean(fitted) == pytest.approx(statistics.fmean(real), abs=0.1) and abs(max(fitted) - max(real)) <= 2
    assert statistics.fmean(abs(a - b) for a, b in zip(sorted(fitted), sorted(real), strict=True)) < 1


def test_rows_are_inputs(bench, tokenizer):
    rows = bench.make_rows([3, 20, 66], tokenizer)
    for row, n in zip(rows, [3, 20, 66], strict=True):
        ids = row["input_ids"]
        assert (ids[0], ids[-1], len(ids)) == (tokenizer.cls_token_id, tokenizer.sep_token_id, n)
        assert not set(ids[1:-1]) & set(tokenizer.all_special_ids) and row["labels"] in (0, 1)
    texts = tokenizer(["a", "b c d"], padding="max_length", max_length=bench.WIDTH)
    plain = tokenizer(["a", "b c d"])
    made = bench.padded_rows([{name: plain[name][i] for name in plain} for i in range(2)], tokenizer.pad_token_id)
    assert made == [{name: texts[name][i] for name in texts} for i in range(2)], "not what a tokenizer makes"


# --- loop ---------------------------------------------------------------------------------------------------------


class Watch:
    "Models as small as can be in place of the tiny one, and what they are given."

    def __init__(self, tokenizer):
        self.size, self.calls = len(tokenizer), []

    def __call__(self, attention=None):
        import torch
        import transformers

        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=self.size, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                         intermediate_size=8, max_position_embeddings=128)  # fmt: skip
        kind = {"attn_implementation": attention} if attention else {}
        self.model, self.calls, self.autocast = transformers.BertForSequenceClassification._from_config(config, **kind), [], set()
        self.model.register_forward_pre_hook(self.look, with_kwargs=True)
        self.model.classifier.register_forward_pre_hook(lambda *_: self.autocast.add(torch.is_autocast_enabled("cpu")))
        return self.model

    def look(self, model, args, kwargs):
        batch = {name: kwargs[name].tolist() for name in ("input_ids", "attention_mask", "labels")}
        rows = [(tuple(i for i, m in zip(ids, mask, strict=True) if m), label) for ids, mask, label in zip(*batch.values(), strict=True)]
        self.calls.append((rows, kwargs["input_ids"].shape[1]))


def test_arms_of_loop_train_on_the_same(bench, tokenizer, monkeypatch):
    "One by one, each an epoch; workers do nothing else and are left to the quick run."
    monkeypatch.setattr(bench, "new_model", watch := Watch(tokenizer))
    settings = bench.Settings(1, steps=4, padded=2)
    lengths, _ = bench.input_lengths(settings.steps * bench.BATCH)
    rows = [(tuple(row["input_ids"]), row["labels"]) for row in bench.make_rows(lengths, tokenizer)]
    sizes, few = set(), settings.padded * bench.BATCH
    for name, start in bench.loop_runs(settings, tokenizer, lengths).items():
        if "workers" in name:
            continue
        meter, padded = start(), name in scripts.PADDED
        seen, widths = zip(*watch.calls, strict=True)
        assert len(widths) == (settings.padded if padded else settings.steps)
        assert all(len(part) == bench.BATCH for part in seen)
        assert sorted(itertools.chain(*seen)) == sorted(rows[:few] if padded else rows), f"{name}: not each example once"
        assert meter.seen == meter.sample.amount == sum(lengths[:few] if padded else lengths)
        assert watch.autocast == {"bf16" in name} and watch.model.config._attn_implementation == ("eager" if "eager" in name else "sdpa")
        assert min(meter.sample) > 0
        assert not padded or set(widths) == {128}
        sizes.add(sum(p.numel() for p in watch.model.parameters() if p.requires_grad))
    assert len(sizes) == 1


def test_both_sides_group_by_length(bench, tokenizer, monkeypatch):
    "A whole epoch, as it is measured. Without grouping more than half would be padding."
    monkeypatch.setattr(bench, "new_model", Watch(tokenizer))
    settings = bench.Settings(1, padded=1)
    runs = bench.loop_runs(settings, tokenizer, bench.input_lengths(settings.steps * bench.BATCH)[0])
    meters = [runs[name]() for name in ("ours, fp32, eager", "Trainer, fp32, eager", scripts.PADDED[0])]
    ours, theirs, fixed = (1 - meter.seen / meter.places for meter in meters)
    assert 0 < ours < 0.08 and 0 < theirs < 0.08 and abs(ours - theirs) < 0.02
    assert fixed > 0.85


def test_models_begin_alike(bench):
    import torch

    models = [bench.new_model(kind) for kind in ("eager", "sdpa", None)]
    assert [model.config._attn_implementation for model in models] == ["eager", "sdpa", "sdpa"]
    first, *others = (model.state_dict() for model in models)
    assert "classifier.weight" in first and len(first["classifier.weight"]) == 2
    for other in others:
        assert first.keys() == other.keys() and all(torch.equal(first[name], other[name]) for name in first)


# --- remedies -----------------------------------------------------------------------------------------------------


def test_remedies_take_the_same_steps(bench, tokenizer, monkeypatch):
    "In the measured epochs all see the same; what differs is how often they look."
    from dataclasses import replace

    from bertcourse.corpus_tasks import dataset
    from bertcourse.tasks import task_of

    monkeypatch.setattr(bench, "BATCH", 8)
    settings = bench.Settings(1, batches=2, epochs=1)
    data = dataset("sentiment", "en", {"train": 16, "validation": 3})
    task = task_of("sentiment", data["train"], tokenizer)
    rows, evaluated = task.encode(data["train"]), []
    metrics = task.metrics(data["validation"])
    made = bench.remedies_of(lambda model: evaluated.append(model) or metrics(model), settings.epochs + 1)
    settings, tokens = replace(settings, warmup=2, steps=2), sum(len(row["input_ids"]) for row in rows)
    looks, make = {}, task.model

    def watched(*args, **kwargs):
        model = make(*args, **kwargs)  # Mixup goes past its head
        count = lambda _, args, given: passes.append(int(given["attention_mask"].sum()))  # noqa: E731
        model.base_model.register_forward_pre_hook(count, with_kwargs=True)
        return model

    monkeypatch.setattr(task, "model", watched)
    for name, remedy in made.items():
        passes = []
        meter = bench.run_remedy(settings, task, rows, **remedy)
        assert meter.sample.amount == tokens, f"{name}: an epoch is not measured"
        looks[name] = sum(passes) / tokens
    dev = sum(len(row["input_ids"]) for row in task.encode(data["validation"])) / tokens
    often = {"FGM": 4, "PGD": 8, "early stopping": pytest.approx(2 + 2 * dev)}  # a second pass, three more; two evaluations
    assert looks == {name: often.get(name, 2) for name in made}
    assert len(evaluated) == 2


def test_optimisers_with_l2_and_without(bench):
    import torch

    model = torch.nn.Linear(3, 2)
    for kind, decay in (("Adam", 0.01), ("AdamW", 0.0)):
        optimizer = bench.adam(kind, decay, model)
        assert type(optimizer) is getattr(torch.optim, kind)
        assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(1, decay), (1, 0.0)]
