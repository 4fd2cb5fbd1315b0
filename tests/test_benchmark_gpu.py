"""What the benchmark on a card compares is comparable, and it keeps to its time. Speed is not tested.

No test needs a card: `--quick` runs all code paths on the CPU, with only the packages that it may use.
"""

import ast
import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scripts

SCRIPT = scripts.BENCHMARKS / "gpu.py"
ALLOWED = ("torch", "transformers", "accelerate", "safetensors", "numpy")
RUN_WITH_BLOCKED_IMPORTS = """
import importlib.util, json, re, runpy, sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    "Finds modules and packages as Python does, apart from those that count as not installed."
    asked = set()

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in blocked["modules"]:
            cls.asked.add(top)
            return None
        return super().find_spec(name, path, target)

    @staticmethod
    def find_distributions(*args, **kwargs):
        for package in PathFinder.find_distributions(*args, **kwargs):
            if re.sub(r"[-_.]+", "-", package.name).lower() not in blocked["packages"]:
                yield package

blocked, log, sys.argv = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
sys.meta_path = [finder for finder in sys.meta_path if finder is not PathFinder] + [Finder]
assert not set(blocked["modules"]) & set(sys.modules)
assert importlib.util.find_spec("matplotlib") is None, "nothing is blocked"
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    with open(log, "w") as file:
        json.dump(sorted(Finder.asked), file)
"""


def normal(name: str) -> str:
    "A package's name as it is compared."
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(names) -> set[str]:
    "These packages and all that they require, without extras."
    found, waiting = set(), [normal(name) for name in names]
    while waiting:
        name = waiting.pop()
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # required on another platform only
            continue
        if name not in found:
            found.add(name)
            waiting += [normal(re.match(r"[\w.-]+", line)[0]) for line in lines if "extra ==" not in line]
    return found


def other_packages() -> dict[str, list[str]]:
    "Installed packages that the script must do without, and their top-level modules."
    allowed = requirements(ALLOWED) | {"bertcourse"}
    owners = {top: set(map(normal, names)) for top, names in metadata.packages_distributions().items()}
    packages = {normal(package.name) for package in metadata.distributions()} - allowed
    return {"modules": [top for top in owners if not owners[top] & allowed], "packages": sorted(packages)}


@pytest.fixture(scope="module")
def bench():
    with scripts.loaded("gpu") as module:
        yield module


@pytest.fixture(scope="module")
def tiny(bench):
    return replace(bench.Settings(), **bench.QUICK, backend="eager")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    "A whole quick run without a card and without other packages: the process, the figures, modules refused."
    folder = tmp_path_factory.mktemp("gpu")
    file, log = folder / "gpu.json", folder / "asked.json"
    code = [sys.executable, "-c", RUN_WITH_BLOCKED_IMPORTS, json.dumps(other_packages()), log]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*code, SCRIPT, "--quick", "--json", file], capture_output=True, text=True, env=env, cwd=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in folder.iterdir()} == {file.name, log.name}, "a temporary file is left"
    return SimpleNamespace(done=done, found=json.loads(file.read_text()), refused=json.loads(log.read_text()))


# --- a quick run --------------------------------------------------------------------------------------------


def test_quick_run_measures_every_arm(quick, bench):
    found = quick.found
    assert found["quick"] is True and found["machine"]["device"] == "cpu" and found["machine"]["gpu"] is None
    assert found["settings"]["backend"] == "eager", "torch.compile on the CPU"
    assert list(found["parts"]) == list(bench.PARTS) and found["skipped"] == []
    assert 0 < found["seconds"]["used"] < found["seconds"]["budget"] == 360
    for key in ("torch", "transformers", "accelerate", "numpy", "python", "cpu", "system"):
        assert found["machine"][key], key
    for name, part in found["parts"].items():
        assert part["status"] == "ok" and part["seconds"] > 0
        for arm, row in part["arms"].items():
            assert row["status"] == "ok" and row["visits"] >= 1 and row["first_visit_s"] > 0, (name, arm)


def test_the_arms_are_those_that_are_promised(quick):
    training, inference, transfer = quick.found["parts"].values()
    assert set(training["arms"]) == {
        "matrix product, bf16",
        "fit, eager attention",
        "fit, SDPA",
        "fit, SDPA, compiled",
        "Trainer, eager attention",
        "Trainer, SDPA",
        "Trainer, SDPA, 1 worker",
        "Trainer, SDPA, 1 worker, compiled",
    }
    kinds = ("fp32", "bf16", "bf16, compiled")
    assert set(inference["arms"]) == {f"{batch}×8, {kind}" for batch in (1, 2) for kind in kinds}
    assert inference["tf32"] is False and inference["float32_matmul_precision"] == "highest"
    assert len(transfer["arms"]) == 6 + 6 + 4 and transfer["pinned_memory"] is False
    assert transfer["padding"]["batches, packed, nested tensor"]["padding"] == 0
    shares = [row["padding"] for row in transfer["padding"].values()]
    assert shares[0] == max(shares) and all(0 <= share < 1 for share in shares)


def test_figures_follow_from_their_samples(quick):
    for part in quick.found["parts"].values():
        for row in part["arms"].values():
            assert row["per_s"] == pytest.approx(
                statistics.median(amount / s for amount, s in row["samples"])
            )
            if "latency_ms" in row:
                latency = row["latency_ms"]
                assert latency["median"] == pytest.approx(statistics.median(latency["samples"]))
                assert latency["p95"] == pytest.approx(np.percentile(latency["samples"], 95))
                assert len(latency["samples"]) == quick.found["settings"]["calls"] * row["visits"]
        assert part["ratios"]
        for row in part["ratios"].values():
            of, to = (part["arms"][row[side]] for side in ("of", "to"))
            assert row["wall"] == pytest.approx(of["per_s"] / to["per_s"])


def test_share_of_the_peak_follows_from_the_flops(quick):
    training = quick.found["parts"]["training"]
    peak = training["arms"]["matrix product, bf16"]["per_s"] * 1e3  # GFLOP/s
    for name, row in training["arms"].items():
        if row["unit"] == "tokens":
            assert row["share_of_peak"] == pytest.approx(row["per_s"] * training["gflop_per_token"] / peak), (
                name
            )


def test_stdout_shows_every_arm(quick):
    for part in quick.found["parts"].values():
        for name in (*part["arms"], *part["ratios"]):
            assert name in quick.done.stdout
    assert not re.search(r"Traceback|'train_runtime'", quick.done.stdout + quick.done.stderr)


def test_no_other_package_is_needed(quick, bench):
    assert "matplotlib" in quick.refused, "nothing was blocked"
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    imports = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imports += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    tops = {name.partition(".")[0] for name in imports}
    assert tops <= {*sys.stdlib_module_names, *ALLOWED, "bertcourse"}


# --- refusals -----------------------------------------------------------------------------------------------


def run(*args, **env):
    return scripts.run("gpu", *args, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | env)


def test_without_a_card_it_says_what_to_do(tmp_path):
    file = tmp_path / "gpu.json"
    done = run("--json", file)
    assert done.returncode == 2 and done.stdout == "" and not file.exists()
    assert len(done.stderr.splitlines()) == 1
    assert "no NVIDIA card is visible to PyTorch: " in done.stderr and "--quick" in done.stderr


@pytest.mark.parametrize(
    "args, part",
    [
        (["wrong"], "'wrong'"),
        (["--seconds", "5"], "--seconds is 5"),
        (["--seconds", "many"], "--seconds"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--json", "no/such/folder/gpu.json"], "--json"),
    ],
)
def test_bad_input_is_one_sentence(bench, capsys, args, part):
    with pytest.raises(SystemExit) as ended:
        bench.read_arguments(args)
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and out == "" and len(err.splitlines()) == 1 and part in err


@pytest.mark.parametrize("before, after", [(None, "0"), ("", ""), ("2,3", "2"), ("GPU-1", "GPU-1")])
def test_one_card_is_enough(bench, monkeypatch, before, after):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    bench.use_one_card()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


# --- time ---------------------------------------------------------------------------------------------------


class Clock:
    "Time that passes only when a test says so."

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def make_arm(bench, clock, name, seconds, log, **options):
    "An arm whose visits take so many seconds; one sample of a second."

    def work(is_late):
        clock.now += seconds
        log.append(name)
        return [bench.Sample(10, 1)]

    return bench.Arm(name, "tokens", work, **options)


def test_parts_share_the_time_and_leave_the_rest_to_later_ones(bench, clock):
    budget = bench.Budget(350, {"a": 0.5, "b": 0.3, "c": 0.2}, clock, begin=clock.now - 50)
    assert budget.used() == 50
    assert budget.start_part("a") == pytest.approx(150)  # half of 300
    clock.now += 100
    assert budget.left() == pytest.approx(50)
    assert budget.start_part("b") == pytest.approx(200 * 0.6)  # 0.3 of 0.3 + 0.2
    clock.now += 150  # more than its share
    assert budget.left() == 0
    assert budget.start_part("c") == pytest.approx(50)
    clock.now += 60
    assert budget.left() == 0 and budget.is_late()


def test_a_visit_has_its_share_of_the_part(bench, clock):
    budget = bench.Budget(100, {"a": 1}, clock)
    budget.start_part("a")
    budget.start_visit(4)
    clock.now += 24
    assert not budget.is_late()
    clock.now += 1
    assert budget.is_late()


def test_arms_run_in_turn_and_compile_last(bench, clock):
    log, compiler, budget = [], bench.Compiler(), bench.Budget(1000, {"a": 1}, clock)
    arms = [
        make_arm(bench, clock, "c", 1, log, compiler=compiler, key="k"),
        make_arm(bench, clock, "d", 1, log, compiler=compiler, most=1),
        *(make_arm(bench, clock, name, 1, log) for name in "xy"),
    ]
    bench.take_turns(arms, budget, 3)
    assert "".join(log) == "xycd" + "yxc" + "cxy"
    assert [arm.visits for arm in arms] == [3, 1, 3, 3]


def test_what_does_not_fit_is_skipped_and_said(bench, clock):
    log, budget = [], bench.Budget(50, {"a": 1}, clock)
    arms = [
        make_arm(bench, clock, "x", 20, log),
        make_arm(bench, clock, "slow", 1, log, compiler=bench.Compiler()),
        make_arm(bench, clock, "y", 29.5, log),
        make_arm(bench, clock, "z", 1, log),
    ]
    bench.take_turns(arms, budget, 2)
    assert log == ["x", "y"], "compiling is expected to take a minute, and half a second is left to z"
    assert [arm.row()["status"] for arm in arms] == ["ok", "skipped", "ok", "skipped"]
    assert arms[0].row()["per_s"] == 10 and "samples" not in arms[1].row()
    assert "no time was left" in arms[1].row()["reason"] and "60 s" in arms[1].row()["reason"]


def test_a_measured_compilation_is_what_the_next_is_expected_to_take(bench, clock):
    log, budget = [], bench.Budget(100, {"a": 1}, clock)
    compiler = bench.Compiler()
    arms = [
        make_arm(bench, clock, "c", 70, log, compiler=compiler, key=1),
        make_arm(bench, clock, "d", 9, log, compiler=compiler),
    ]
    bench.take_turns(arms, budget, 1)
    assert log == ["c"] and budget.compile_s == pytest.approx(56) and "56 s" in arms[1].reason


def test_parts_without_time_are_skipped_and_named(bench, clock, tiny, tmp_path, capsys):
    budget = bench.Budget(100, {"training": 1, "inference": 1}, clock)
    found = {"settings": {"seconds": 110}, "skipped": [], "parts": {}}
    run = bench.Run(tiny, None, budget, bench.Report(found, tmp_path / "gpu.json", budget))
    clock.now += 95
    for part in ("training", "inference"):
        bench.run_part(part, run)
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["skipped"] == ["training", "inference"] and written["seconds"] == {
        "budget": 110,
        "used": 95,
    }
    assert {part["status"] for part in written["parts"].values()} == {"skipped"}
    assert capsys.readouterr().out.count("skipped: no time was left") == 2


def test_figures_are_kept_before_something_is_compiled(bench, clock):
    log, budget = [], bench.Budget(1000, {"a": 1}, clock)
    arms = [
        make_arm(bench, clock, "c", 1, log, compiler=bench.Compiler(), key=1),
        make_arm(bench, clock, "x", 1, log),
    ]
    bench.take_turns(arms, budget, 2, lambda: log.append("save"))
    assert log == ["x", "save", "c", "save", "x", "c", "save"]


def test_the_hard_limit_keeps_what_was_measured(bench, clock, tmp_path, capsys):
    file, codes = tmp_path / "gpu.json", []
    budget = bench.Budget(100, {"training": 1, "transfer": 1}, clock)
    report = bench.Report({"settings": {"seconds": 110}, "skipped": [], "parts": {}}, file, budget)
    report.part = "training"
    budget.start_part("training")
    report.stop(codes.append)
    assert json.loads(file.read_text())["parts"]["training"] == {"status": "unfinished", "arms": {}}
    arms = [make_arm(bench, clock, "x", 1, [])]
    bench.take_turns(arms, budget, 1, lambda: report.save_arms(arms))
    report.stop(codes.append)
    written = json.loads(file.read_text())
    assert (
        written["parts"]["training"]["status"] == "unfinished"
        and written["parts"]["training"]["arms"]["x"]["per_s"] == 10
    )
    assert written["skipped"] == ["transfer"] and "110 s" in written["stopped"] and codes == [1, 1]
    assert len(capsys.readouterr().err.splitlines()) == 2, "one sentence each"


def test_a_visit_of_training_ends_when_it_is_late(bench, tiny):
    import torch

    settings, late = replace(tiny, warmup=2, steps=3, segments=4), []
    meter = bench.Meter(settings, torch.device("cpu"), lambda: bool(late))
    states = [SimpleNamespace(step=step, tokens=10 * step, stop=False) for step in range(1, 15)]
    for state in states[:7]:
        meter.on_step_end(state)
    assert [sample.amount for sample in meter.samples] == [30] and not any(state.stop for state in states)
    late.append(True)
    meter.on_step_end(states[7])
    assert states[7].stop and len(meter.samples) == 2
    late.clear()
    for state in states[8:]:
        meter.on_step_end(state)
    assert states[-1].stop and len(meter.samples) == 4, "after 2 + 4 × 3 steps it ends anyway"


# --- failures -----------------------------------------------------------------------------------------------


def test_out_of_memory_and_failures_do_not_end_the_run(bench, clock):
    import torch

    def run_out(is_late):
        try:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore lines")
        except torch.cuda.OutOfMemoryError as error:
            raise RuntimeError("the backend failed") from error

    def break_down(is_late):
        raise RuntimeError("no C compiler\nwas found")

    log, compiler, budget = [], bench.Compiler(), bench.Budget(1000, {"a": 1}, clock)
    arms = [
        bench.Arm("large", "tokens", run_out),
        bench.Arm("compiled", "tokens", break_down, compiler=compiler, key=1),
        bench.Arm("compiled later", "tokens", break_down, compiler=compiler, key=2),
        make_arm(bench, clock, "x", 1, log),
    ]
    bench.take_turns(arms, budget, 2)
    rows = [arm.row() for arm in arms]
    assert [row["status"] for row in rows] == ["out of memory", "failed", "failed", "ok"] and log == [
        "x",
        "x",
    ]
    assert rows[1]["reason"] == rows[2]["reason"] == "RuntimeError: no C compiler"
    assert bench.has_failed({"parts": {"a": {"status": "ok", "arms": dict(enumerate(rows))}}})
    assert not bench.has_failed({"parts": {"a": {"status": "ok", "arms": {"x": rows[0], "y": rows[3]}}}})


def test_a_compiler_that_failed_is_not_tried_again(bench, clock):
    calls = []

    def break_down(is_late):
        calls.append(1)
        raise RuntimeError("no C compiler")

    compiler, budget = bench.Compiler(), bench.Budget(1000, {"a": 1}, clock)
    bench.take_turns(
        [bench.Arm(str(i), "tokens", break_down, compiler=compiler, key=i) for i in range(3)], budget, 2
    )
    assert len(calls) == 1


def test_a_later_failure_leaves_no_figures(bench, clock):
    log, budget = [], bench.Budget(1000, {"a": 1}, clock)
    arm = make_arm(bench, clock, "x", 1, log)
    bench.visit(arm, budget)
    arm.run = lambda is_late: 1 / 0
    bench.visit(arm, budget)
    assert arm.row() == {
        "status": "failed",
        "reason": "ZeroDivisionError: division by zero",
        "unit": "tokens",
    }


# --- what is computed ---------------------------------------------------------------------------------------


def test_flops_are_those_of_a_count(bench, tiny):
    from torch.utils.flop_counter import FlopCounterMode

    settings = replace(tiny, layers=2, longest=16)
    model = bench.make_model(settings, "cpu", "eager")
    rows = bench.make_rows(
        replace(settings, sigma=0.0, median=16), 3
    )  # all of the same length: nothing is padded
    with FlopCounterMode(display=False) as counter:
        model(**bench.Collator(settings.vocabulary)(rows)).loss.backward()
    tokens = sum(bench.lengths_of(rows))
    assert counter.get_total_flops() / tokens == pytest.approx(
        bench.flops_per_token(settings, bench.lengths_of(rows))
    )
    by_hand = 6 * (2 * 12 * 16**2 + 16**2 + 16 * 64) + 12 * 2 * 16 * 16
    assert bench.flops_per_token(settings, [16]) == by_hand
    assert bench.flops_per_token(settings, [8, 16]) == by_hand + 12 * 2 * 16 * (320 / 24 - 16)


def test_lengths_are_spread_and_repeatable(bench):
    settings = bench.Settings()
    lengths = bench.draw_lengths(settings, 5000)
    assert (
        lengths == bench.draw_lengths(settings, 5000)
        and min(lengths) >= 4
        and max(lengths) == settings.longest
    )
    assert statistics.median(lengths) == pytest.approx(128, rel=0.05)
    assert statistics.fmean(lengths) == pytest.approx(128 * np.exp(0.18), rel=0.05)


def test_all_kinds_of_batches_hold_the_same_tokens(bench, tiny):
    rows = bench.make_rows(tiny, 40)
    tokens = sum(bench.lengths_of(rows))
    for kind in bench.KINDS:
        batches = bench.make_batches(kind, rows, tiny)
        assert sum(map(bench.count_tokens, batches)) == tokens, kind
        assert all((batch["labels"] != -100).any() for batch in batches), kind


def test_packing_fills_rows_and_a_token_budget_holds(bench):
    lengths = bench.draw_lengths(bench.Settings(), 300)
    packs = bench.pack_examples(lengths, 512)
    assert sorted(i for pack in packs for i in pack) == list(range(300))
    filled = [sum(lengths[i] for i in pack) for pack in packs]
    assert max(filled) <= 512 and sum(filled) / (512 * len(packs)) > 0.9
    batches = bench.token_batches(lengths, 4096)
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    assert all(len(batch) * bench.round_up(max(lengths[i] for i in batch)) <= 4096 for batch in batches)


def test_packed_examples_do_not_see_each_other(bench, tiny):
    "The logits of each example are those that it has alone, in both kinds of packing."
    import torch

    rows = bench.make_rows(tiny, 5)
    trained = bench.TrainedModel(tiny, torch.device("cpu"))
    model = trained.model.eval()
    packs = bench.pack_examples(bench.lengths_of(rows), tiny.longest)
    packed = bench.packed_batch(rows, packs, tiny)
    nested = bench.nested_batch(rows, range(5), tiny)
    packed["input_ids"] = restored(packed)
    nested["input_ids"] = restored(nested)
    del packed["labels"], nested["labels"]
    segments = packed.pop("segments")
    packed["attention_mask"] = segments[:, None, :, None] == segments[:, None, None, :]
    with torch.no_grad():
        alone = [model(input_ids=torch.from_numpy(row["input_ids"])[None]).logits[0] for row in rows]
        in_rows = model(**packed).logits
        model.set_attn_implementation("nested")
        in_one = model(**nested).logits[0]
    torch.testing.assert_close(in_one, torch.cat(alone))
    for k, pack in enumerate(packs):
        expected = torch.cat([alone[i] for i in pack])
        torch.testing.assert_close(in_rows[k, : len(expected)], expected)


def restored(batch):
    "The ids of a batch before some were masked."
    import torch

    return torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"])


def test_masking_hides_about_15_percent(bench):
    import torch

    torch.manual_seed(0)
    ids = torch.randint(bench.FIRST, 1000, (100, 100))
    ids[:, 0] = bench.CLS
    masked, labels = bench.mask_tokens(ids, 1000)
    chosen = labels != -100
    assert (
        (labels[chosen] == ids[chosen]).all()
        and (masked[~chosen] == ids[~chosen]).all()
        and not chosen[:, 0].any()
    )
    assert chosen.float().mean() == pytest.approx(0.15, abs=0.01)
    assert (masked[chosen] == bench.MASK).float().mean() == pytest.approx(0.8, abs=0.03)


def test_a_run_of_trainer_leaves_nothing_to_the_next(bench, monkeypatch):
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    with bench.fresh_accelerate(ACCELERATE_DYNAMO_USE_DYNAMIC="true"):
        os.environ["ACCELERATE_DYNAMO_BACKEND"] = "inductor"
        assert os.environ["ACCELERATE_USE_CPU"] == "1"
    left = {name for name in os.environ if name.startswith("ACCELERATE_")}
    assert left == {"ACCELERATE_USE_CPU"} and not AcceleratorState._shared_state


def test_trainer_compiles_once_for_all_lengths_and_only_where_it_should(bench, tiny, monkeypatch):
    import torch

    calls = []

    def compile_nothing(model, **options):
        calls.append(options)
        return model

    monkeypatch.setattr(torch, "compile", compile_nothing)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    rows = bench.make_rows(tiny, 12)
    for compiled in (False, True, False):
        samples = bench.run_trainer(tiny, torch.device("cpu"), rows, "sdpa", 0, compiled, lambda: True)
        assert len(samples) == 1 and 4 * 4 <= samples[0].amount <= 4 * tiny.longest
    assert len(calls) == 1 and calls[0]["dynamic"] is True and calls[0]["backend"] == "eager"


def test_trainer_has_its_fastest_settings(bench, tiny):
    import torch

    options = bench.trainer_options(tiny, torch.device("cuda", 0), 4, True)
    assert options["optim"] == "adamw_torch_fused" and options["bf16"] and options["dataloader_pin_memory"]
    assert (
        options["train_sampling_strategy"] == "group_by_length" and options["logging_nan_inf_filter"] is False
    )
    assert options["torch_compile"] and options["dataloader_num_workers"] == 4
    assert "torch_compile" not in bench.trainer_options(tiny, torch.device("cuda", 0), 0, False)


def test_the_shape_is_bert_base(bench):
    import torch

    with torch.device("meta"):
        model = bench.make_model(bench.Settings(), "meta")
    assert round(model.num_parameters() / 1e6) == 110 and Path(bench.__file__) == SCRIPT


def test_a_card_is_described(bench, monkeypatch):
    import torch

    card = SimpleNamespace(name="H100", major=9, minor=0, total_memory=80 * 2**30, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(
        subprocess, "run", lambda *args, **kwargs: SimpleNamespace(returncode=0, stdout="570.1\n")
    )
    found = bench.describe_machine(torch.device("cuda", 0))
    assert found["driver"] == "570.1" and found["device"] == "cuda"
    assert found["gpu"] == {
        "name": "H100",
        "compute_capability": "9.0",
        "memory_gib": 80.0,
        "multiprocessors": 132,
    }
