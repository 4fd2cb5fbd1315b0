"""The commands that train, in two processes on one CPU: the weights of one process, one folder, and Ctrl-C that can be resumed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from bertcourse.assets import asset

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo over POSIX sockets")

TOLERANCE = 1e-5
ENV = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "LC_ALL": "C.UTF-8"}
ALONE = [sys.executable, "-m", "bertcourse"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "bertcourse"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "bertcourse"]
STUDENT = {"num_hidden_layers": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def run(command: list, *argv: object) -> subprocess.CompletedProcess:
    done = subprocess.run([*command, *map(str, argv)], env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Reviews, text, a recipe without dropout, and a teacher."""
    from bertcourse.corpus_tasks import dataset
    from bertcourse.jobs.rows import write_rows
    folder = tmp_path_factory.mktemp("files")
    reviews = dataset("sentiment", "en", {"train": 120, "test": 40})
    write_rows(reviews["train"], "train", folder / "train.jsonl")
    write_rows(reviews["test"], "dev", folder / "dev.jsonl")
    (folder / "text.txt").write_text("\n\n".join(f"The cat sees dog {i}. The dog sees a bird. Birds fly." for i in range(60)))
    recipe = (asset("tiny-bert") / "pretrain.toml").read_text(encoding="utf-8")
    recipe, count = re.subn(r"(?m)^dropout = .*$", "dropout = 0.0", recipe)
    assert count == 1
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    run(ALONE, *commands(folder)["finetune"], "--out", folder / "teacher", "--quiet")
    return folder


def commands(folder: Path) -> dict[str, list]:
    data = ["--train", folder / "train.jsonl", "--dev", folder / "dev.jsonl", "--precision", "no"]
    return {
        "finetune": ["finetune", "--task", "classification", "--model", "tiny", *data, "--steps", 12, "--dropout", 0],
        "distill": ["distill", "--teacher", folder / "teacher", "--student", json.dumps(STUDENT), "--method", "kd", *data, "--steps", 8],
        "tinybert": ["distill", "--teacher", folder / "teacher", "--student", json.dumps(STUDENT), "--method", "tinybert", *data,
                     "--steps", 4, "--layer-steps", 6],
        "pretrain": ["pretrain", "--corpus", folder / "text.txt", "--config", folder / "recipe.toml", "--dev-share", 0.1, "--vocab-size", 200,
                     "--steps", 8, "--layers", 1, "--hidden-size", 16, "--heads", 2, "--batch-size", 4, "--max-length", 32,
                     "--precision", "no"],
    }  # fmt: skip


def largest_difference(first: Path, second: Path) -> float:
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert a.keys() == b.keys()
    return max((a[name].float() - b[name].float()).abs().max().item() for name in a)


@pytest.mark.parametrize("name, launcher", [("finetune", TORCHRUN), ("finetune", ACCELERATE), ("distill", TORCHRUN), ("tinybert", TORCHRUN),
                                            ("pretrain", ACCELERATE)], ids=lambda value: value if isinstance(value, str) else value[2][:5])
def test_two_processes_train_like_one(files, tmp_path, name, launcher):
    """And not exactly like one: sums of halves have other last digits, so that two processes must have been at work."""
    argv = commands(files)[name]
    one, two = run(ALONE, *argv, "--out", tmp_path / "one", "--json"), run(launcher, *argv, "--out", tmp_path / "two", "--json")
    assert 0 < largest_difference(tmp_path / "one", tmp_path / "two") < TOLERANCE
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}
    metrics = json.loads(two.stdout)  # one process has printed
    assert metrics["steps"] == json.loads(one.stdout)["steps"] and two.stderr.count("train.jsonl: 120 rows") == (name != "pretrain")


def test_ctrl_c_reaches_both_and_the_run_is_resumed(files, tmp_path):
    argv = [*commands(files)["finetune"][:-4], "--steps", 200, "--dropout", 0]
    out = tmp_path / "m"
    process = subprocess.Popen([*TORCHRUN, *map(str, argv), "--out", str(out)], env=ENV, stderr=subprocess.PIPE, text=True, start_new_session=True)
    limit = time.monotonic() + 120
    while not list(out.glob("unfinished/training/checkpoint-*.pt")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=120)
    assert process.returncode and err.count("to go on: bertcourse finetune --out") == 1, err[-2000:]
    assert {path.name for path in out.iterdir()} == {"unfinished"}
    run(TORCHRUN, "finetune", "--out", out, "--resume", "--quiet")
    run(TORCHRUN, *argv, "--out", tmp_path / "whole", "--quiet")
    assert largest_difference(out, tmp_path / "whole") == 0


def test_bad_input_is_said_once(files, tmp_path):
    argv = [*commands(files)["finetune"], "--out", tmp_path / "m", "--max-length", 4000]
    done = subprocess.run([*TORCHRUN, *map(str, argv)], env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode and done.stderr.count("--max-length 4000 is more than the") == 1 and not (tmp_path / "m").exists()
