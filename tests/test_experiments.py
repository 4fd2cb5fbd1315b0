"""Recorded experiments: all or nothing on disk, honest about their age, and a rerun that does not fit is noticed."""

import json

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
