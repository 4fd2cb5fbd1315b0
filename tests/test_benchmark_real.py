"""`benchmarks/real.py` runs what it shows, reads the scores that are printed, and reports a missed goal as missed."""

import json
import shlex
from pathlib import Path

import pytest
import scripts

SAID = "epoch 1, step 9 of 9: loss 0.1; dev: accuracy 12.5%, macro_f1 9.9%\ndev: f1 1.5%, accuracy 86.9%, macro_f1 88.1%\n"

STUDENT = """epoch 1, step 9 of 9: loss 0.1; dev: accuracy 85.4%, macro_f1 85.4%
                  teacher     student  student ÷ teacher
dev, accuracy       88.1%       85.4%              96.9%
parameters     22,713,986  17,390,594              76.6%
"""

EXPORT = "sst2-int8: INT8 dynamic\ndev.tsv: accuracy 88.1% → 87.5%, 98.1% of the answers the same, 9 became wrong, 4 right, p = 0.27\n"
BENCH = "times as fast (ms)     MB         1×32\nsst2 (pytorch)      90.87  1.00 (15.2)\n"
OUTPUTS = {"finetune": SAID, "distill": STUDENT, "export": EXPORT, "bench": BENCH}


@pytest.fixture(scope="module")
def real():
    with scripts.loaded("real") as module:
        yield module


def test_what_is_shown_is_what_runs(real, tmp_path):
    for name in real.RUNS:
        shown = real.shown(name).replace("$DATA", str(tmp_path)).replace("$MINILM", "/models/minilm")
        assert shlex.split(shown) == ["bertcourse", *real.command(name, Path("/models/minilm"), tmp_path)]


def test_scores_are_those_printed_last(real):
    assert real.score("sst2", SAID) == 86.9 and real.score("wnut17", SAID) == 1.5  # and not macro_f1
    assert "missed with 86.9%" in real.verdict("sst2", SAID) and real.verdict("ocnli", SAID) == ""
    assert "met with 87.0%" in real.verdict("sst2", SAID.replace("86.9", "87.0"))


def test_a_student_is_scored_against_its_teacher(real):
    assert real.score("sst2-student", STUDENT) == 96.9
    assert real.verdict("sst2-student", STUDENT) == "Goal 97% of the teacher's: missed with 96.9%."
    assert "met" in real.verdict("sst2-student", STUDENT.replace("96.9", "97.0"))


def test_an_export_is_scored_by_what_it_keeps(real):
    assert real.score("sst2-int8", EXPORT) == 98.1 and real.lost("sst2-int8", EXPORT) == 0.6
    said = real.verdict("sst2-int8", EXPORT)
    assert "the same: met with 98.1%" in said and "points lost: missed with 0.6" in said
    assert real.verdict("sst2-int8", EXPORT.replace("87.5", "88.6")).count("met") == 2, "to gain is not to lose"


def test_a_run_without_the_model_it_needs_is_not_started(real, tmp_path):
    with pytest.raises(SystemExit, match="the model sst2 is not in"):
        real.run("sst2-student", tmp_path, tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_articles_are_split_and_none_is_lost(real, tmp_path):
    (tmp_path / "xquad").mkdir()
    articles = [{"title": str(i), "paragraphs": []} for i in range(48)]
    (tmp_path / "xquad/xquad.en.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    real.split_xquad(tmp_path, tmp_path)
    parts = [json.loads((tmp_path / name).read_text()) for name in real.SPLIT]
    assert [len(part["data"]) for part in parts] == [38, 10] and parts[0]["data"] + parts[1]["data"] == articles


def test_report_holds_commands_outputs_and_verdict(real, tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for file in {file for run in real.RUNS.values() for file in run.files}:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    monkeypatch.setattr(real, "unknown", lambda *_: 0.5)
    text = "\n".join(real.report(tmp_path, tmp_path, {name: OUTPUTS[run.command] for name, run in real.RUNS.items()}))
    assert all(real.shown(name) in text for name in real.RUNS)
    for command, output in OUTPUTS.items():
        assert text.count(output.strip()) == sum(run.command == command for run in real.RUNS.values()) > 0
    assert "Goal 87%: missed with 86.9%." in text and str(tmp_path) not in text


@pytest.mark.parametrize("args, said", [
    ([], "--checkpoint"), (["--checkpoint", ".", "--data", ".", "--work", "w"], "model.safetensors"),
])  # fmt: skip
def test_bad_input_is_one_sentence(args, said, tmp_path):
    done = scripts.run("real", *args, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "w").exists()
