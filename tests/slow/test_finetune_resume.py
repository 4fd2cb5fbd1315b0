"""`bertcourse finetune`, killed at random moments and resumed, ends with the very bits of a run that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 3
ENV = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "LC_ALL": "C.UTF-8"}
SETTINGS = ["--model", "tiny", "--epochs", "6", "--batch-size", "8", "--dropout", "0.1", "--adversarial", "fgm", "--llrd", "0.9",
            "--patience", "9", "--quiet"]


def start(*argv: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "bertcourse.app.cli", "finetune", *map(str, argv)], env=ENV,
                            stderr=subprocess.PIPE, text=True)


def finish(*argv: object) -> None:
    process = start(*argv)
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 0 and not err, err


def saved(out: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(path.stem[-8:]) for path in out.glob("unfinished/training/checkpoint-*.pt")), default=0)


def kill(process: subprocess.Popen, out: Path, beyond: int) -> int:
    """SIGKILL at a random moment after a checkpoint beyond a step; how far it had got."""
    end = time.monotonic() + 120
    while saved(out) <= beyond and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    process.stderr.close()
    return saved(out)


def rows_of(folder: Path) -> list[dict]:
    rows = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_killed_and_resumed(tmp_path):
    from bertcourse.corpus_tasks import TOY_TASKS, examples

    names = TOY_TASKS["nli"].classes
    for split, n in [("train", 240), ("validation", 60)]:
        rows = [{"sentence1": r["sentence1"], "sentence2": r["sentence2"], "label": names[r["label"]]}
                for r in examples("nli", n, split=split)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["--task", "nli", "--train", tmp_path / "train.jsonl", "--dev", tmp_path / "validation.jsonl", *SETTINGS, "--out"]
    whole, out, reached = tmp_path / "whole", tmp_path / "killed", [0]
    finish(*argv, whole)
    process = start(*argv, out)
    for _ in range(KILLS):
        reached.append(kill(process, out, reached[-1] + 20))
        assert not (out / "model.safetensors").exists() and not (out / "metrics.json").exists()
        process = start("--out", out, "--resume", "--quiet")
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 0 and not err, err
    assert reached == sorted(set(reached)) and reached[-1] < 180

    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    for name in ("model.safetensors", "config.json", "tokenizer.json", "bertcourse.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert rows_of(out) == rows_of(whole)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (out, whole)]
    assert metrics[0]["dev"] == metrics[1]["dev"] and metrics[0]["steps"] == metrics[1]["steps"]
