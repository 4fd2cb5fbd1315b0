"""Commands as processes of their own: pipes whose reader leaves, signals, kills."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

sys.path.append(str(Path(__file__).parents[1]))
import commands  # noqa: E402
import test_pretrain as pretrain  # noqa: E402
from test_predict import GRADES, fine_tuned  # noqa: E402
from test_pretrain import corpus, surroundings  # noqa: E402, F401

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and pipes")


def read_and_leave(*argv: object, rows: int) -> list[dict]:
    "Two lines in, `rows` out, and then nobody reads the answers to the next two thousand lines."
    command = [sys.executable, "-m", "bertcourse.app.cli", *map(str, argv), "--batch-size", "2"]
    env = os.environ | {"LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        process.stdin.write("my dog is hairy\n我的狗\n".encode())
        process.stdin.flush()
        found = [
            json.loads(process.stdout.readline()) for _ in range(rows)
        ]  # and nobody has said that there are no more
        process.stdout.close()
        process.stdin.write(b"one\ntwo\n" * 1_000)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        assert process.wait(timeout=60) == 0 and process.stderr.read() == b""
    return found


def test_predict_into_a_pipe_whose_reader_leaves(tmp_path):
    auto_class = transformers.AutoModelForSequenceClassification
    model = fine_tuned(tmp_path / "m", "classification", auto_class, GRADES, ["sentence"])
    assert all(row["label"] in GRADES for row in read_and_leave("predict", model, rows=2))


def test_augment_into_a_pipe_whose_reader_leaves():
    rows = read_and_leave(
        "augment", "--task", "classification", "--model", "tiny", "-n", "1", "--quiet", rows=4
    )
    assert [row["sentence"] for row in rows[::2]] == ["my dog is hairy", "我的狗"]


def test_pretrain_interrupted_killed_and_resumed(corpus, tmp_path):  # noqa: F811
    "One process gets Ctrl-C, another is killed, a third finishes: the same weights as without interruption."
    steps, out = [*pretrain.CORE, "--steps", "200"], tmp_path / "m"
    pretrain.interrupted(corpus, out, *steps)
    second = pretrain.process("--out", out, "--resume", "--threads", 1)
    assert re.match(r"step \d+ of 200", second.stderr.readline())
    second.kill()
    second.communicate(timeout=60)
    pretrain.unfinished(out, corpus)
    assert pretrain.succeed("--out", out, "--resume", "--threads", 1, "--quiet")["steps"] == 200
    pretrain.succeed(
        "--out", tmp_path / "whole", "--corpus", corpus["zh.txt"], *pretrain.OURS, *steps, "--quiet"
    )
    assert commands.weights(out) == commands.weights(tmp_path / "whole")
    assert pretrain.rows_of(out) == pretrain.rows_of(tmp_path / "whole")
    assert {path.name for path in out.iterdir()} == pretrain.FILES
