"""Recorded experiments: all or nothing on disk, honest about their age, and a rerun that does not fit is noticed."""

import json
import os
from dataclasses import replace

import pytest

from bertcourse import experiments
from bertcourse.assets import asset

TOY = '''
import random
CONFIG = {"steps": 3}
ARMS = {"low": 0.2, "high": 0.8}
SEEDS = [0, 1, 2]
def data_fingerprint(): return "data-1"
def run(arm, seed):
    return {"accuracy": ARMS[arm] + random.Random(seed).random() / 100}
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    return tmp_path


def test_run_stores_a_row_per_arm_and_seed(folder):
    result = experiments.run("toy", folder)
    stored = experiments.Recording(**json.loads((folder / "toy.json").read_text()))
    assert stored == result and len(stored.rows) == 6 and stored.arms == ["low", "high"]
    assert stored.mean("accuracy")["high"] == pytest.approx(0.8, abs=0.01) and stored.sd("accuracy")["low"] > 0
    assert not list(folder.glob("*.partial"))
    assert "3 seeds" in stored.provenance()[1] and "3 个随机种子" in stored.provenance()[0]


def test_a_failing_arm_leaves_the_old_recording(folder):
    experiments.run("toy", folder)
    before = (folder / "toy.json").read_bytes()
    (folder / "toy.py").write_text(TOY.replace('return {"accuracy"', 'if arm == "high": 1 / 0\n    return {"accuracy"'))
    with pytest.raises(ZeroDivisionError):
        experiments.run("toy", folder)
    assert (folder / "toy.json").read_bytes() == before


def test_an_interrupted_run_goes_on(folder):
    failing = TOY.replace('    return {"accuracy"', '    from pathlib import Path\n    if seed == 2 and not Path(__file__).with_name("go").exists(): 1 / 0\n'
                          '    return {"accuracy"')  # fmt: skip
    (folder / "toy.py").write_text(failing)
    with pytest.raises(ZeroDivisionError):
        experiments.run("toy", folder)
    kept = folder / "toy.rows.jsonl"
    lines = kept.read_text().splitlines()
    assert len(lines) == 5 and not (folder / "toy.json").exists()
    first = json.loads(lines[1])
    first["row"]["seconds"] = 1234.0  # to tell it from one that is run again
    kept.write_text("\n".join([lines[0], json.dumps(first), *lines[2:]]) + '\n{"row": {"arm"')  # killed while it wrote
    (folder / "go").touch()
    result = experiments.run("toy", folder)
    assert len(result.rows) == 6 and result.rows[0]["seconds"] == 1234.0 and not kept.exists()
    assert result.scores("accuracy") == experiments.run("toy", folder).scores("accuracy")


def test_rows_of_other_code_are_not_kept(folder):
    (folder / "toy.rows.jsonl").write_text('{"code": "x", "data": "data-1"}\n{"row": {"arm": "low", "seed": 0, "accuracy": 9.0}, "after": 1}\n')
    assert max(experiments.run("toy", folder).scores("accuracy")["low"]) < 1


def test_stale_code_and_data_are_named(folder):
    result = experiments.run("toy", folder)
    assert experiments.stale(result, folder / "toy.py") == ""
    (folder / "toy.py").write_text(TOY.replace("data-1", "data-2"))
    assert "code and data changed" in experiments.stale(result, folder / "toy.py")


def test_a_rerun_that_does_not_fit_is_noticed(folder):
    result = experiments.run("toy", folder)
    again = experiments.run_one(folder / "toy.py", "low", 1)
    assert experiments.outside(result, again) == []
    assert experiments.outside(result, again | {"accuracy": 0.3}) != []


def test_one_models_score_has_no_spread_to_compare_with(folder):
    """A teacher is trained once and its score stands in all rows: 0.857 on one processor where another gave 0.881 is no misfit."""
    rows = [{"arm": arm, "seed": seed, "student": 0.8 + seed / 1000, "teacher": 0.881} for arm in ("a", "b") for seed in range(3)]
    result = replace(experiments.run("toy", folder), rows=rows)
    fits = {"arm": "a", "seed": 0, "student": 0.8, "teacher": 0.857}
    assert experiments.outside(result, fits) == []
    assert experiments.outside(result, fits | {"teacher": 0.8}) == ["a teacher: 0.800, recorded 0.881 ± 0.000"]
    assert experiments.outside(result, fits | {"student": 0.857}) != []


def test_unknown_experiment_is_one_sentence(folder, capsys):
    with pytest.raises(FileNotFoundError, match=r"no experiment 'none' in .* \(there: toy\)"):
        experiments.source("none", folder)
    assert experiments.main(["run", "none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_not_recorded_says_how(folder):
    with pytest.raises(FileNotFoundError, match="make experiment ID=none"):
        experiments.recorded("none")


RECORDED = sorted(asset("experiments").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.stem)
def test_recordings_belong_to_todays_code_and_data(path):
    recording = experiments.recorded(path.stem)
    assert experiments.stale(recording, path.with_suffix(".py")) == ""
    seeds = {arm: {r["seed"] for r in recording.rows if r["arm"] == arm} for arm in recording.arms}
    assert len(set(map(frozenset, seeds.values()))) == 1, "every arm has the same seeds"
    assert len(next(iter(seeds.values()))) >= 3


def test_an_edit_of_the_same_size_within_a_second_is_run(folder, monkeypatch):
    "Python's cache of compiled files would miss it, and old code would be recorded under the new fingerprint."
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    path, moment = folder / "toy.py", (1_700_000_000, 1_700_000_000)
    os.utime(path, moment)
    assert experiments.load(path).CONFIG == {"steps": 3}
    path.write_text(TOY.replace('"steps": 3', '"steps": 4'))
    os.utime(path, moment)
    assert experiments.load(path).CONFIG == {"steps": 4}


def test_a_gpu_table_needs_a_card_that_was_measured(monkeypatch):
    arms = {"matrix product": {"status": "ok", "unit": "products", "per_s": 1234.5},
            "fit, SDPA": {"status": "ok", "unit": "tokens", "per_s": 98_765.4, "share_of_peak": 0.41},
            "1 × 32, bf16": {"status": "ok", "unit": "passes", "per_s": 900.0, "latency_ms": {"median": 1.25, "p95": 1.5}},
            "fit, compiled": {"status": "out of memory", "unit": "tokens"}}  # fmt: skip
    machine = {"gpu": {"name": "Some Card"}, "device": "cuda", "torch": "2.13.0"}
    made = experiments.Benchmark("gpu", {"training": {"arms": arms}}, {}, machine, "2026-01-01")
    monkeypatch.setattr(experiments, "benchmark", lambda id: made)
    shown = experiments.gpu_table("training").html()
    assert all(text in shown for text in ("Some Card", "98,765 tokens", "41%", "1.25", "out of memory", "2026-01-01"))

    def absent(id):
        raise FileNotFoundError

    monkeypatch.setattr(experiments, "benchmark", absent)
    shown = experiments.gpu_table("training").html()
    assert "No NVIDIA card has been measured yet" in shown and "NVIDIA 显卡" in shown and "<table" not in shown


def test_holm_is_that_of_r():
    "`p.adjust(c(0.01, 0.04, 0.03, 0.005), \"holm\")` of R."
    assert experiments.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert experiments.holm([0.9, 0.8]) == [1.0, 1.0] and experiments.holm([]) == []


def recording(**values: list[float]) -> experiments.Recording:
    rows = [{"arm": arm, "seed": seed, "a": value} for arm, found in values.items() for seed, value in enumerate(found)]
    return experiments.Recording("made", rows, {}, {}, "", "", "", 1.0)


def test_a_single_seed_has_no_spread():
    made = recording(x=[0.5], y=[0.6])
    assert made.sd("a") == {"x": 0.0, "y": 0.0}
    assert experiments.outside(made, {"arm": "x", "seed": 0, "a": 0.51}) == []
    assert experiments.outside(made, {"arm": "x", "seed": 0, "a": 0.9})


def test_comparisons_are_paired_by_seed():
    "A difference of 1 ± 0.1 in each seed is found though the seeds are 10 apart; the order of the rows changes nothing."
    made = recording(x=[1.0, 11.1, 20.9], y=[0.0, 10.0, 20.0])
    [found] = made.compare("a")
    half = 4.302653 * 0.1 / 3**0.5  # Student's t of two degrees of freedom
    assert (found.difference, found.low, found.high) == pytest.approx((1.0, 1 - half, 1 + half), abs=1e-6)
    assert found.p == pytest.approx(0.00330, abs=2e-5) and str(found) == "a: x − y: +1.000 [+0.752, +1.248], p = 0.003"
    assert replace(made, rows=made.rows[::-1]).compare("a")[0].difference == pytest.approx(-1.0)  # y − x


def test_several_comparisons_are_corrected_together():
    values = {"x": [0.5, 0.7, 0.6], "y": [0.1, 0.2, 0.4], "z": [0.3, 0.1, 0.5]}
    alone = [recording(**{one: values[one], two: values[two]}).compare("a")[0].p for one, two in ("xy", "xz", "yz")]
    assert [c.p for c in recording(**values).compare("a")] == pytest.approx(experiments.holm(alone))
    some = recording(**values).compare("a", pairs=[("z", "x"), ("y", "z")])  # a family of two, in this order
    assert [(c.one, c.other) for c in some] == [("z", "x"), ("y", "z")]
    assert [c.p for c in some] == pytest.approx(experiments.holm([alone[1], alone[2]]))


def test_every_arm_is_compared_with_a_base():
    made = recording(x=[0.5, 0.7, 0.6], y=[0.1, 0.2, 0.4], z=[0.3, 0.1, 0.5])
    found = made.compare("a", base="y")
    values = made.scores("a")
    alone = [recording(**{arm: values[arm], "y": values["y"]}).compare("a")[0] for arm in "xz"]
    assert [(c.one, c.other) for c in found] == [("x", "y"), ("z", "y")]
    assert [c.difference for c in found] == pytest.approx([c.difference for c in alone])
    assert [c.p for c in found] == pytest.approx(experiments.holm([c.p for c in alone]))  # two tests, not three
    with pytest.raises(KeyError, match="no arm 'w', only"):
        made.compare("a", base="w")


@pytest.mark.parametrize("x, y, says", [([1.0, 2.0], [3.0], "the same two or more seeds"), ([1.0], [3.0], "the same two or more seeds"),
                                        ([0.1, 0.2], [0.3, 0.4], "nothing to test")])  # fmt: skip
def test_what_cannot_be_compared_is_refused(x, y, says):
    with pytest.raises(ValueError, match=says):
        recording(x=x, y=y).compare("a")
