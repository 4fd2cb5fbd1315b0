"""What the benchmark of distillation compares is comparable. How fast things are is not tested."""

import json

import pytest
import scripts


@pytest.fixture(scope="module")
def bench():
    with scripts.loaded("distill") as module:
        yield module


def test_quick_run_measures_all_parts(bench, tmp_path):
    "In this process; `slow/test_benchmark_runs.py` runs the script as it is."
    file = tmp_path / "found.json"
    done = scripts.run_here(bench, "--threads", 1, "--quick", "--json", file)
    assert done.returncode == 0
    scripts.check_distill_run(json.loads(file.read_text()))


def test_all_start_from_the_same_weights(bench):
    import torch

    task, _ = bench.toy(64)
    first, second = bench.pair(task), bench.pair(task)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


def test_a_cached_teacher_is_not_asked(bench, monkeypatch):
    from bertcourse import distillation

    settings = bench.Settings(1, 1, True, warmup=1, steps=2, examples=64)
    seen, real = [], distillation.observe
    monkeypatch.setattr(distillation, "observe", lambda model, *args, **kw: seen.append(model.config.hidden_size) or real(model, *args, **kw))

    def soft(student, teacher):
        return distillation.Distiller(student, teacher, distillation.Weights(hard=0.5, soft=0.5))

    bench.train(settings, soft)
    asked = seen.count(128)
    seen.clear()
    bench.train(settings, soft, cached=True)
    assert asked == 3 and seen.count(128) == 0 and len(seen) == 3
