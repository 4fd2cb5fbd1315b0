"""What the benchmark of deployment compares is comparable, and the page's file is one that it wrote. How fast things are is not tested."""

import json

import numpy as np
import pytest
import scripts

from bertcourse import experiments
from bertcourse.assets import asset


@pytest.fixture(scope="module")
def bench():
    with scripts.loaded("deploy") as module:
        yield module


def test_quick_run_measures_all_parts(tmp_path):
    file = tmp_path / "found.json"
    done = scripts.run("deploy", "speed", "lengths", "settings", "--threads", 1, "--quick", "--json", file)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert list(found["parts"]) == ["speed", "lengths", "settings"] and found["date"] and found["machine"]["cpu"]
    assert all(arm["per_s"] > 0 and arm["per_cpu_s"] > 0 for part in found["parts"].values() for arm in part["arms"].values())
    speed = found["parts"]["speed"]
    head = "1 thread, 1×8: "
    assert {f"{head}{name}" for name in ("PyTorch eager", "ONNX Runtime FP32", "dynamic QInt8", "static (guide)")} <= set(speed["arms"])
    best = speed["ratios"][f"{head}best INT8"]
    assert best["of"].startswith((head + "dynamic", head + "static")) and best["to"] == head + "PyTorch eager"
    assert speed["megabytes"]["dynamic QInt8"] < 0.3 * speed["megabytes"]["ONNX Runtime FP32"]


def test_all_forms_of_the_model_say_the_same(bench, tmp_path):
    made = bench.callers(bench.files(tmp_path, 1), 1, 1)
    batch = bench.inputs(2, 8)
    expected = made[bench.EAGER](**batch)["logits"]
    for name, run in made.items():
        exact = "INT8" not in name and "Int8" not in name and "bf16" not in name and "static" not in name
        np.testing.assert_allclose(run(**batch)["logits"], expected, atol=1e-4 if exact else 0.15, err_msg=name)


def test_shapes_are_those_of_the_papers(bench):
    millions = {name: round(bench.network(name).num_parameters() / 1e6) for name in ("TinyBERT-4", "DistilBERT", "ALBERT-base")}
    assert millions == {"TinyBERT-4": 14, "DistilBERT": 67, "ALBERT-base": 12}


def test_int8_on_the_toy_tasks_is_scored_in_points(bench):
    found = bench.accuracy(bench.Settings(1, 1, True, examples=40, steps=1))
    for name, row in found["points lost"].items():
        scores = found["scores"][name]
        metric = scores["metric"]
        assert row["points"] == pytest.approx(100 * (scores["before"][metric] - scores["after"][metric])) and row["met"] == (row["points"] <= 0.5)


def test_the_recorded_file_is_of_a_whole_run():
    found = experiments.benchmark("deploy")
    assert set(found.parts) == {"speed", "tried", "students", "lengths", "settings", "accuracy"} and not found.settings["quick"]
    assert found.settings["rounds"] >= 7 and all(len(arm["samples"]) >= 7 for part in found.parts.values() for arm in part["arms"].values())
    assert f"{found.settings['rounds']}" in found.provenance()[0] and found.date in found.provenance()[1]
    assert asset("benchmarks/deploy.json").is_file()


def test_a_benchmark_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="python benchmarks/absent.py"):
        experiments.benchmark("absent")


# --- the page -----------------------------------------------------------------------------------------------------

def test_the_page_is_of_the_recorded_figures():
    with scripts.loaded("readme") as readme:
        text = (asset("benchmarks") / "README.md").read_text(encoding="utf-8")
        found, service = (json.loads((asset("benchmarks") / name).read_text(encoding="utf-8")) for name in ("deploy.json", "serve.json"))
        assert readme.written(text, found, service) == text, "run `python benchmarks/readme.py`"
        assert all(table in text for table in (readme.tables(found) | readme.served(service)).values())
        other = json.loads(json.dumps(found))
        next(iter(other["parts"]["speed"]["ratios"].values()))["wall"] = 123.45
        assert "123.45" in readme.written(text, other, service)


def test_goals_that_are_missed_say_so():
    with scripts.loaded("readme") as readme:
        part = {"ratios": {"a": {"wall": 1.5, "goal": ">= 2", "met": False}, "b": {"wall": 1.0, "goal": None, "met": None}},
                "points lost": {"ner": {"points": 0.2, "goal": "<= 0.5", "met": True}}}  # fmt: skip
        assert list(readme.goals({"speed": part})) == [["a", ">= 2", "1.50", "**missed**"], ["ner", "<= 0.5", "0.20", "met"]]
