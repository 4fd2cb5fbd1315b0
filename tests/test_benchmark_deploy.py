"""What the benchmark of deployment compares is comparable, and the page's file is one that it wrote. How fast things are is not tested."""

import json
from functools import cache, partial

import pytest
import scripts
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from bertcourse import deployment, experiments
from bertcourse.assets import asset


@pytest.fixture(scope="module")
def bench(cached_exports):
    with scripts.loaded("deploy") as module:
        yield module


@cache
def build_small_network(name: str, layers: int | None = None, attention: str = "eager"):
    "A classifier of one narrow layer in place of BERT-base: it is exported in seconds."
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 384}
    config = BertConfig(**sizes, initializer_range=0.04)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).eval()


@pytest.fixture
def small(bench, monkeypatch):
    monkeypatch.setattr(bench, "network", build_small_network)
    return bench


def test_quick_run_measures_all_parts(small, tmp_path):
    "In this process, with a small network; `slow/test_benchmark_runs.py` has BERT-base's width."
    file = tmp_path / "found.json"
    done = scripts.run_here(small, "speed", "lengths", "settings", "--threads", 1, "--quick", "--json", file)
    assert done.returncode == 0 and "ONNX Runtime FP32" in done.stdout
    scripts.check_deploy_run(json.loads(file.read_text()))


def test_all_forms_of_the_model_say_the_same(small, tmp_path):
    made = small.callers(small.files(tmp_path, 1), 1, 1)
    scripts.check_forms_agree(small, made, small.inputs(2, 8))


def test_shapes_are_those_of_the_papers(bench):
    millions = {name: round(bench.network(name).num_parameters() / 1e6) for name in ("TinyBERT-4", "DistilBERT", "ALBERT-base")}
    assert millions == {"TinyBERT-4": 14, "DistilBERT": 67, "ALBERT-base": 12}


def test_int8_on_the_toy_tasks_is_scored_in_points(bench, monkeypatch):
    "With the exporter that traces, which is fast; `slow/test_benchmark_runs.py` takes the other one."
    monkeypatch.setattr(deployment, "export", partial(deployment.export, legacy=True, opset=17))
    found = bench.accuracy(bench.Settings(1, 1, True, examples=40, steps=1))
    scripts.check_points_lost(found)


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
        found, service = readme.stored("deploy"), readme.stored("serve")
        assert readme.written(text, found, service) == text, "run `python benchmarks/readme.py`"
        assert all(table in text for table in (readme.tables(found[0]) | readme.served(service[0])).values())
        assert all(one["machine"]["cpu"] in text for one in found + service), "every processor is shown"
        other = json.loads(json.dumps(found))
        next(iter(other[0]["parts"]["speed"]["ratios"].values()))["wall"] = 123.45
        assert "123.45" in readme.written(text, other, service)
        assert all(page.read_text(encoding="utf-8") == text for page, text in readme.pages().items()), "run `python benchmarks/readme.py`"


def test_goals_compare_with_the_strongest_peer():
    "The best INT8 of ONNX Runtime beside whatever variant of OpenVINO is fastest on this processor."
    head = "1 thread, 1×32: "
    rates = {"PyTorch eager": 1.0, "dynamic QInt8": 6.0, "static (guide)": 2.0, "OpenVINO static INT8": 5.0, "OpenVINO, its default (bf16)": 6.5}
    arms = {head + name: {"per_s": rate, "per_cpu_s": rate} for name, rate in rates.items()}
    with scripts.loaded("deploy") as deploy:
        found = deploy.against(arms, head)
        assert found["best INT8"]["wall"] == 6.0 and found["best INT8"]["goal"] is None, "how many times PyTorch is no goal"
        versus = found[deploy.VERSUS]
        assert versus["to"].endswith("(bf16)") and versus["wall"] == pytest.approx(6 / 6.5) and versus["met"] is False
        del arms[head + "OpenVINO static INT8"], arms[head + "OpenVINO, its default (bf16)"]
        assert deploy.VERSUS not in deploy.against(arms, head), "without OpenVINO there is nothing to compare with"


def test_goals_that_are_missed_say_so():
    with scripts.loaded("readme") as readme:
        part = {"ratios": {"a": {"wall": 1.5, "goal": ">= 2", "met": False}, "b": {"wall": 1.0, "goal": None, "met": None}},
                "points lost": {"ner": {"points": 0.2, "goal": "<= 0.5", "met": True}}}  # fmt: skip
        assert list(readme.goals({"speed": part})) == [["a", ">= 2", "1.50", "**missed**"], ["ner", "<= 0.5", "0.20", "met"]]
