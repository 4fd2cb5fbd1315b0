"""The benchmarks and tools are scripts, not modules: how tests load and run them."""

import contextlib
import importlib.util
import io
import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
PADDED = ["padded to 128, default Trainer", "padded to 128, ours"]  # arms of finetune.py; the others are:
KINDS = [f"{precision}, {attention}" for precision, attention in itertools.product(("fp32", "bf16"), ("eager", "sdpa"))]
LOOP = [form.format(kind) for form in ("ours, {}", "Trainer, {}", "Trainer, {}, 2 workers") for kind in KINDS]


def tool(name: str) -> ModuleType:
    "A script of `tools/` as a module of its own, which a test may change; it finds its neighbours there."
    if str(ROOT / "tools") not in sys.path:
        sys.path.append(str(ROOT / "tools"))  # behind the rest: one of them is called site
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def loaded(name: str) -> Iterator[ModuleType]:
    "A script of `benchmarks/` as a module."
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)  # where a script finds what the benchmarks share
        spec.loader.exec_module(module)
    yield module
    sys.modules.pop(spec.name, None)  # a test may load it again inside of a fixture


def run(name: str, *args: object, **kwargs) -> subprocess.CompletedProcess:
    "A script of `benchmarks/`, as a person starts it."
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, args)],
        capture_output=True,
        text=True,
        **kwargs,
    )


def run_here(module: ModuleType, *args: object) -> subprocess.CompletedProcess:
    "A loaded script with arguments, in this process: where a separate process is not what is tested."
    out, line, environment = io.StringIO(), [module.__file__, *map(str, args)], dict(os.environ)
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setattr(sys, "argv", line)
            code = module.main()
    finally:  # it tells libraries how many threads to use
        os.environ.clear()
        os.environ.update(environment)
    return subprocess.CompletedProcess(line, code, out.getvalue(), "")


# --- what quick runs must show, in this process (`test_benchmark_*.py`) or in one of their own (`slow/`) ------


def check_deploy_run(found: dict) -> None:
    "All parts of `deploy.py` that measure BERT-base's shape."
    assert (
        list(found["parts"]) == ["speed", "lengths", "settings"] and found["date"] and found["machine"]["cpu"]
    )
    assert all(
        arm["per_s"] > 0 and arm["per_cpu_s"] > 0
        for part in found["parts"].values()
        for arm in part["arms"].values()
    )
    speed = found["parts"]["speed"]
    head = "1 thread, 1×8: "
    assert {
        f"{head}{name}" for name in ("PyTorch eager", "ONNX Runtime FP32", "dynamic QInt8", "static (guide)")
    } <= set(speed["arms"])
    best = speed["ratios"][f"{head}best INT8"]
    assert best["of"].startswith((head + "dynamic", head + "static")) and best["to"] == head + "PyTorch eager"
    assert speed["megabytes"]["dynamic QInt8"] < 0.3 * speed["megabytes"]["ONNX Runtime FP32"]


def check_forms_agree(bench: ModuleType, made: dict, batch: dict) -> None:
    "All variants of a model give its logits, in 8 bits and in bf16 about the same."
    expected = made[bench.EAGER](**batch)["logits"]
    for name, run in made.items():
        exact = "INT8" not in name and "Int8" not in name and "bf16" not in name and "static" not in name
        np.testing.assert_allclose(
            run(**batch)["logits"], expected, atol=1e-4 if exact else 0.15, err_msg=name
        )


def check_points_lost(found: dict) -> None:
    "`accuracy` of `deploy.py`: points are hundredths of each task's own metric."
    assert (
        list(found["scores"]) == list(found["points lost"]) == ["sentiment", "nli", "similarity", "ner", "qa"]
    )
    for name, row in found["points lost"].items():
        scores = found["scores"][name]
        metric = scores["metric"]
        assert row["points"] == pytest.approx(
            100 * (scores["before"][metric] - scores["after"][metric])
        ) and row["met"] == (row["points"] <= 0.5)


def check_finetune_run(found: dict, printed: str) -> None:
    "All of `finetune.py`."
    assert found["settings"]["threads"] == 1 and found["settings"]["quick"]
    assert list(found["parts"]) == ["loop", "remedies"]
    loop, remedies = found["parts"].values()
    assert set(loop["arms"]) == {*LOOP, *PADDED}
    assert {"plain", "dropout 0.1", "clipping", "decoupled decay", "L2 in Adam", "FGM", "PGD", "Mixup", "layer-wise rates",
            "early stopping"} <= set(remedies["arms"])  # fmt: skip
    for part in (loop, remedies):
        check_part(part, found["settings"]["rounds"], printed)
    goals = [row["goal"] for row in loop["ratios"].values() if row["goal"]]
    assert goals == [">= 1.0", ">= 4.0"] and not any(row["goal"] for row in remedies["ratios"].values())
    assert {row["to"] for row in remedies["ratios"].values() if row["of"] == "plain"} == set(
        remedies["arms"]
    ) - {"plain"}


def check_part(part: dict, rounds: int, printed: str) -> None:
    "Rates are medians of the samples, ratios those of the rates, and all of them are printed."
    for name, arm in part["arms"].items():
        assert len(arm["samples"]) == rounds and name in printed
        assert arm["per_s"] == pytest.approx(
            statistics.median(a / wall for a, wall, _ in arm["samples"]), rel=1e-3
        )
        assert arm["per_cpu_s"] == pytest.approx(
            statistics.median(a / cpu for a, _, cpu in arm["samples"]), rel=1e-3
        )
    for name, row in part["ratios"].items():
        of, to = (part["arms"][row[side]] for side in ("of", "to"))
        assert name in printed
        assert row["wall"] == pytest.approx(of["per_s"] / to["per_s"])
        assert row["cpu"] == pytest.approx(of["per_cpu_s"] / to["per_cpu_s"])
        assert row["met"] == (row["wall"] >= float(row["goal"].split()[1]) if row["goal"] else None)


def check_distill_run(found: dict) -> None:
    "All of `distill.py`."
    parts = found["parts"]
    assert list(parts) == ["steps", "cache", "scores"]
    assert all(
        arm["per_s"] > 0 and arm["per_cpu_s"] > 0 for part in parts.values() for arm in part["arms"].values()
    )
    taken = parts["cache"]["bytes"]
    assert taken["logits, per example"] < taken["hidden states and scores, per example"] / 100


def check_collator_run(found: dict, printed: str) -> None:
    "The part of `pretrain.py` that compares collators."
    assert found["settings"]["threads"] == 1 and found["settings"]["quick"]
    assert list(found["parts"]) == ["collator"]
    part = found["parts"]["collator"]
    assert set(part["arms"]) == {
        "ours",
        "transformers",
        "ours, whole words",
        "transformers, whole words",
        "ours, as shipped",
    }
    for name, arm in part["arms"].items():
        assert len(arm["samples"]) == found["settings"]["rounds"]
        assert name in printed
    assert len(part["ratios"]) == 2
    for name, row in part["ratios"].items():
        of, to = (part["arms"][row[side]] for side in ("of", "to"))
        assert row["wall"] == pytest.approx(of["per_s"] / to["per_s"])
        assert row["cpu"] == pytest.approx(of["per_cpu_s"] / to["per_cpu_s"])
        assert row["met"] == (row["wall"] >= 1)
        assert name in printed
