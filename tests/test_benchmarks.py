"""What the benchmarks of pre-training compare is comparable, and their figures are medians. How fast things are is not tested."""

import json
import statistics
from dataclasses import replace
from types import SimpleNamespace

import pytest
import scripts


@pytest.fixture(scope="module")
def bench():
    with scripts.loaded("pretrain") as module:
        yield module


@pytest.fixture(scope="module")
def tokenizer():
    from bertcourse.corpus import load_tokenizer

    return load_tokenizer()


def run(*args, **kwargs):
    "The script, on one thread."
    return scripts.run("pretrain", "--threads", 1, *args, **kwargs)


def test_collator_writes_all_arms(bench, tmp_path):
    "In this process; `slow/test_benchmark_runs.py` runs the script as it is."
    file = tmp_path / "found.json"
    done = scripts.run_here(bench, "collator", "--threads", 1, "--quick", "--json", file)
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [file.name], "a temporary file is left"
    scripts.check_collator_run(json.loads(file.read_text()), done.stdout)


@pytest.mark.parametrize("args, said", [
    (["wrong"], "'wrong'"),
    (["collator", "--rounds", "3"], "7"),
    (["collator", "--threads", "0"], "--threads"),
    (["collator", "--rounds", "many"], "--rounds"),
    (["collator", "--json", "no/such/folder/found.json"], "--json"),
])  # fmt: skip
def test_bad_input_is_one_sentence(args, said, tmp_path):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_rates_are_medians_and_ratios_theirs(bench):
    arms = bench.rates({"a": [bench.Sample(10, 1, 2), bench.Sample(10, 5, 5), bench.Sample(10, 2, 4)],
                        "b": [bench.Sample(1, 1, 1)]})  # fmt: skip
    assert (arms["a"]["per_s"], arms["a"]["per_cpu_s"]) == (5, 2.5)
    assert bench.ratio(arms, "a", "b", 5.0) == {"of": "a", "to": "b", "wall": 5, "cpu": 2.5, "goal": ">= 5.0", "met": True}
    assert bench.ratio(arms, "b", "a", 1.0)["met"] is False and bench.ratio(arms, "b", "a")["met"] is None
    assert bench.share(0.1, 0.1, 0.05)["met"] is False
    with scripts.loaded("measuring") as measuring:
        assert measuring.missed({"part": {"shares": {"x": bench.share(0.1, 0.1, 0.05)}}})
        assert not measuring.missed({"part": {"arms": {"a": [1]}, "x": {"met": True}}})
    assert bench.fastest(arms | {"ab": {"per_s": 9}}, "a") == "ab"


def test_arms_run_in_turn_and_the_first_round_does_not_count(bench):
    calls = []

    def arm(name):
        def work():
            calls.append(name)
            return bench.Sample(len(calls), 1, 1)

        return work

    samples = bench.interleave({name: arm(name) for name in "ab"}, 2)
    assert "".join(calls) == "ba" + "ab" + "ba"
    assert [s.amount for s in samples["a"]] == [3, 6] and [s.amount for s in samples["b"]] == [4, 5]


def test_meter_leaves_the_warm_up_out(bench):
    meter = bench.Meter(bench.Settings(1, steps=3, warmup=2))
    states = [SimpleNamespace(step=step, tokens=10 * step**2) for step in range(1, 6)]
    for state in states:
        meter.on_step_end(state)
    assert meter.sample.amount == 10 * (25 - 4)
    assert [state.stop for state in states] == [False] * 4 + [True]


def test_transformers_gets_the_same_words(bench, tokenizer):
    "Whatever its collator hides, it hides whole words as our rows have them, and all rows are those of ours."
    from bertcourse.pieces import toy_pieces

    recipe = bench.shipped(steps=1)
    inputs = bench.make_inputs(recipe, tokenizer, toy_pieces(tokenizer, 40))
    rows = [inputs[i] for i in range(len(inputs))]
    plain = [bench.plain_row(row, set(tokenizer.all_special_ids)) for row in rows]
    longest = max(len(row["input_ids"]) for row in plain)
    offsets = [bench.padded_row(bench.with_offsets(p, row["starts"]), longest, tokenizer.pad_token_id)
               for p, row in zip(plain, rows, strict=True)]  # fmt: skip
    batch = bench.whole_word_collator(tokenizer)(offsets)
    assert batch["attention_mask"].sum() == inputs.lengths.sum()
    several = 0
    for row, ids, labels in zip(rows, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        n, hidden = len(row["input_ids"]), [label != -100 for label in labels]
        assert not any(hidden[n:])
        assert [label if h else i for i, label, h in zip(ids, labels, hidden, strict=True)][:n] == row["input_ids"].tolist()
        for i in range(1, n):
            if not row["starts"][i]:
                several += 1
                assert hidden[i] == hidden[i - 1]
    assert several, "no word of several pieces: nothing was tested"


def test_both_loops_run(bench, tokenizer):
    "A very small model, the arms of `loop` one by one."
    import transformers

    from bertcourse.pieces import toy_pieces

    settings = bench.Settings(1, steps=2, warmup=1)
    recipe = replace(bench.shipped(steps=6, num_layers=1, hidden_size=16, num_heads=2), batch_size=4)
    pieces = toy_pieces(tokenizer, 40)
    inputs, special = bench.make_inputs(recipe, tokenizer, pieces), set(tokenizer.all_special_ids)
    rows = [bench.plain_row(inputs[i], special) for i in range(len(inputs))]
    collate = transformers.DataCollatorForLanguageModeling(tokenizer)
    lengths = sorted(inputs.lengths.tolist())
    for sample in (
        bench.run_ours(settings, recipe, tokenizer, pieces),
        bench.run_trainer(settings, recipe, rows, collate, "eager", train_sampling_strategy="group_by_length"),
    ):
        assert sum(lengths[:8]) <= sample.amount <= sum(lengths[-8:]), "two steps of four rows, without padding"
        assert statistics.fmean(sample[1:]) > 0
    assert bench.gflop_per_token(settings, recipe, inputs, tokenizer) > 6 * 12 * 16**2 / 1e9
