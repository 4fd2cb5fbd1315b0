"""The whole of TinyBERT on the command line: general distillation, teacher, augmentation, the task; killed once and resumed.

Two to four minutes of both cores, so only with BERTCOURSE_RERUN=all (weekly on GitHub): each of the commands, and its resumption, has
tests of its own in every run.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertcourse.corpus_tasks import TOY_TASKS, examples

ENV = os.environ | {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "LC_ALL": "C.UTF-8"}
STUDENT = '{"num_hidden_layers": 2, "hidden_size": 40, "intermediate_size": 160}'


def start(*argv: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "bertcourse.app.cli", *map(str, argv), "--quiet"], env=ENV, stderr=subprocess.PIPE, text=True)


def finish(*argv: object) -> None:
    process = start(*argv)
    err = process.communicate(timeout=900)[1]
    assert process.returncode == 0 and not err, err


def write(path: Path, split: str, n: int) -> Path:
    names = TOY_TASKS["sentiment"].classes
    rows = [f"{row['sentence']}\t{names[row['label']]}\n" for row in examples("sentiment", n, split=split)]
    path.write_text("sentence\tlabel\n" + "".join(rows))
    return path


def first_checkpoint(folder: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 300
    while not list(folder.glob("checkpoint-*.pt")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.skipif(os.environ.get("BERTCOURSE_RERUN") != "all", reason="only in the weekly run: make experiments-again")
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_student_of_an_eighth_keeps_what_its_teacher_knows(tmp_path):
    train, dev = write(tmp_path / "train.tsv", "train", 500), write(tmp_path / "dev.tsv", "test", 500)
    general, teacher, more, out = (tmp_path / name for name in ("general", "teacher", "more.jsonl", "student"))
    finish("distill", "--method", "general", "--teacher", "tiny", "--student", STUDENT, "--steps", 1500, "--out", general)
    finish("finetune", "--task", "sentiment", "--train", train, "--dev", dev, "--model", "tiny", "--steps", 300, "--out", teacher)
    finish("augment", train, "--task", "sentiment", "--model", "tiny", "--teacher", teacher, "-n", 10, "-p", 0.2, "-k", 5, "--only-new",
           "--out", more)  # fmt: skip
    assert len(more.read_text().splitlines()) == 500 * 10
    asked = ["distill", "--method", "tinybert", "--teacher", teacher, "--student", general, "--train", train, "--augmented", more, "--dev", dev,
             "--layer-steps", 800, "--steps", 800, "--lr", 3e-3]  # fmt: skip
    process = start(*asked, "--out", out)
    first_checkpoint(out / "unfinished" / "training" / "intermediate", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    process.stderr.close()
    finish("distill", "--out", out, "--resume")
    metrics = json.loads((out / "metrics.json").read_text())
    of = metrics["comparison"]
    assert of["parameters"]["teacher"] / of["parameters"]["student"] > 7.5
    majority = 0.3  # more than any of the five grades has
    assert (of["dev"]["student"] - majority) / (of["dev"]["teacher"] - majority) > 0.9
