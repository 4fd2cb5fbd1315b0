"""`bertcourse distill`: from a fine-tuned teacher to a finished student, and one sentence for whatever stands in the way."""

import json
import math
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import commands
import pytest
import shared
import torch
import transformers
from commands import HAN, weights
from test_finetune import FILES, FINETUNE, TASKS, interrupt_at, text_of
from transformers import AutoModelForSequenceClassification

import bertcourse.training
from bertcourse import distillation
from bertcourse.app import cli
from bertcourse.assets import asset
from bertcourse.base.messages import wide
from bertcourse.corpus_tasks import examples
from bertcourse.jobs import comparison, distilling, finetuning
from bertcourse.jobs.student import student_rate
from bertcourse.models.checkpoint import open_checkpoint

DISTILL = commands.Training("distill")
call, succeed, refused, in_both_languages = DISTILL.call, DISTILL.succeed, DISTILL.refused, DISTILL.in_both_languages
SMALL = '{"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}'
STUDENTS = {"kd": SMALL, "distilbert": '{"model_type": "distilbert", "num_hidden_layers": 2}', "tinybert": SMALL}
FAST = ["--steps", "2", "--batch-size", "20", "--precision", "no", "--quiet"]


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings(), shared.cached_curves(distilling, finetuning):
        yield


def load_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


# --- teachers and files -------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, list]:
    """Task: its options for files."""
    folder, made = tmp_path_factory.mktemp("data"), {}
    for task, (toy, ending, _) in TASKS.items():
        made[task] = []
        for option, split, n in [("train", "train", 40), ("dev", "validation", 20), ("test", "test", 20)]:
            path = folder / f"{task}-{option}.{ending}"
            path.write_text(text_of(toy, list(examples(toy, n, split=split))), encoding="utf-8")
            made[task] += [f"--{option}", path]
    return made


@pytest.fixture(scope="module")
def given(teachers, data):
    """Task: its options for teacher and files. A teacher is made when it is first asked for."""
    class Given:
        def __getitem__(self, task):
            return ["--teacher", teachers[task], *data[task]]
    return Given()


def file_of(argv: list, option: str) -> Path:
    return argv[argv.index(option) + 1]


@pytest.fixture(scope="module")
def teachers(data, tmp_path_factory) -> dict[str, Path]:
    """Task: a fine-tuned model. Each is made when it is first asked for."""
    folder = tmp_path_factory.mktemp("teachers")

    class Teachers(dict):
        def __missing__(self, task):
            steps = 12 if task == "classification" else 4
            FINETUNE.succeed("--task", task, *data[task], "--model", "tiny", "--steps", steps, "--batch-size", 10, "--lr", 1e-3, "--precision", "no",
                    "--quiet", "--out", folder / task)  # fmt: skip
            self[task] = folder / task
            return self[task]
    return Teachers()


@pytest.fixture(scope="module")
def runs(given, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """Method: a finished folder, and what was printed."""
    folder = tmp_path_factory.mktemp("runs")

    class Runs(dict):
        def __missing__(self, method):
            self[method] = folder / method, succeed(
                *given["classification"], "--student", STUDENTS[method], "--method", method,
                "--steps", 4, "--batch-size", 10, "--precision", "no", "--quiet", "--out", folder / method)
            return self[method]
    return Runs()


def swapped(teacher: Path, folder: Path) -> Path:
    """The same classifier with its labels in the order that is not the alphabet's."""
    shutil.copytree(teacher, folder)
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    with torch.no_grad():
        for weight in model.classifier.parameters():
            weight.copy_(weight.flip(0))
    names = [model.config.id2label[i] for i in (1, 0)]
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    model.save_pretrained(folder)
    about = load_json(folder / "bertcourse.json")
    (folder / "bertcourse.json").write_text(json.dumps(about | {"labels": names}))
    return folder


# --- the finished folder ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", STUDENTS)
def test_the_folder_holds_what_is_promised(runs, teachers, data, method):
    out, printed = runs[method]
    assert {path.name for path in out.iterdir()} == FILES
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG") and (out / "curves.png").stat().st_size > 5_000
    metrics = load_json(out / "metrics.json")
    assert printed == {"out": str(out)} | metrics
    assert metrics["task"] == "classification" and metrics["method"] == method and metrics["seed"] == 0
    names = TASKS["classification"][2]
    assert metrics["dev"].keys() == names | {"loss"} and metrics["test"].keys() == names
    assert metrics["teacher"]["name"] == "classification" and metrics["teacher"]["dev"].keys() == metrics["teacher"]["test"].keys() == names
    assert [file["name"] for file in metrics["files"]] == [file_of(data["classification"], f"--{o}").name for o in ("train", "dev", "test")]
    about = load_json(out / "bertcourse.json")
    assert about["labels"] == metrics["labels"] == ["negative", "positive"] and about["inputs"] == ["sentence"]
    assert about["max_length"] == load_json(teachers["classification"] / "bertcourse.json")["max_length"]
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    steps = [(row["stage"], row["step"]) for row in rows if "lr" in row]
    if method == "tinybert":
        assert steps == [("intermediate", i) for i in range(1, 9)] + [("prediction", i) for i in range(1, 5)]
        assert metrics["steps"] == 12
        assert [(name, of["steps"]) for name, of in metrics["stages"].items()] == [("intermediate", 8), ("prediction", 4)]
    else:
        assert steps == [("distillation", i) for i in range(1, 5)] and metrics["steps"] == 4
    assert "dev" in rows[-1]


@pytest.mark.parametrize("method", STUDENTS)
def test_the_checkpoint_is_the_student_alone(runs, method):
    out, metrics = runs[method]
    model, found = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert not any(found.values()) and tokenizer.model_max_length == metrics["max_length"]
    assert type(model).__name__ == ("DistilBertForSequenceClassification" if method == "distilbert" else "BertForSequenceClassification")
    assert model.config.num_hidden_layers == 2 and model.config.hidden_size == (128 if method == "distilbert" else 64)
    assert model.config.id2label == {0: "negative", 1: "positive"} and model.config.vocab_size == 2083
    assert ("token_type_ids" in tokenizer("a dog")) == (method != "distilbert")
    assert (out / "tokenizer.json").read_bytes() == (asset("tiny-bert") / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("method", STUDENTS)
def test_predict_gives_what_was_scored(runs, data, tmp_path, method):
    out, metrics = runs[method]
    rows = [json.loads(line) for line in file_of(data["classification"], "--test").read_text().splitlines()]
    (tmp_path / "in.txt").write_text("".join(row["sentence"] + "\n" for row in rows))
    assert cli.main(["predict", str(out), str(tmp_path / "in.txt"), "--out", str(tmp_path / "out.jsonl")]) == 0
    said = [json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sum(label == row["label"] for label, row in zip(said, rows, strict=True)) / 20 == pytest.approx(metrics["test"]["accuracy"])


@pytest.mark.parametrize("method", STUDENTS)
def test_the_comparison(runs, teachers, data, method):
    out, metrics = runs[method]
    c, models = metrics["comparison"], {"teacher": open_checkpoint(str(teachers["classification"])), "student": open_checkpoint(str(out))}
    assert c["metric"] == "accuracy"
    for part in ("dev", "test"):
        assert c[part]["student"] == metrics[part]["accuracy"] and c[part]["teacher"] == metrics["teacher"][part]["accuracy"]
        assert c[part]["kept"] == pytest.approx(metrics[part]["accuracy"] / metrics["teacher"][part]["accuracy"])
    assert metrics["teacher"]["dev"]["accuracy"] == load_json(teachers["classification"] / "metrics.json")["dev"]["accuracy"]
    rows = [json.loads(line) for line in file_of(data["classification"], "--dev").read_text().splitlines()]
    coded = sorted(models["teacher"].task.encode(rows, labelled=False), key=lambda row: len(row["input_ids"]))
    assert c["pieces"] == len(coded[10]["input_ids"]) and c["batch"] == 1 and c["rounds"] == 15 and c["device"] == "cpu"
    batch = models["teacher"].task.collate([coded[10]])
    for name, found in models.items():
        found.model.set_attn_implementation("eager")
        cost = distillation.measure_cost(found.model, batch)
        assert c["parameters"][name] == cost["parameters"] == sum(p.numel() for p in found.model.parameters())
        assert c["megabytes"][name] == pytest.approx(cost["megabytes"]) and c["mflops"][name] == pytest.approx(cost["gflops"] * 1e3)
    for name in ("parameters", "megabytes", "mflops", "milliseconds"):
        assert c[name]["ratio"] == pytest.approx(c[name]["student"] / c[name]["teacher"])
    assert metrics["parameters"] == c["parameters"]["student"] and c["milliseconds"]["teacher"] > 0


def test_the_time_is_the_median_of_rounds_side_by_side(monkeypatch):
    times = {"teacher": [1.0, 9.0, 2.0], "student": [0.5, 0.25, 8.0]}
    asked = []
    monkeypatch.setattr(distillation, "race", lambda models, batch, rounds: asked.append((list(models), rounds)) or times)
    config = transformers.BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    teacher, student = (distillation.new_model(config)(AutoModelForSequenceClassification) for _ in range(2))
    found = comparison.measure_costs(teacher, student, {"input_ids": [1, 2, 3]}, bertcourse.training.pad)
    assert found["milliseconds"] == {"teacher": statistics.median(times["teacher"]), "student": 0.5, "ratio": 0.25}
    assert asked == [(["teacher", "student"], 15)] and teacher.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("teacher, student, kept", [
    (0.8, 0.6, 0.75), (0.5, 0.6, 1.2), (0.5, 0.0, 0.0), (0.0, 0.5, None), (-0.2, 0.1, None), (0.4, -0.1, None), (math.nan, 0.5, None),
    (None, 0.5, None),
])
def test_kept(teacher, student, kept):
    found = comparison.share_kept(teacher, student)
    assert found is None if kept is None else found == pytest.approx(kept)


@pytest.mark.parametrize("method", STUDENTS)
def test_the_card(runs, teachers, data, method):
    out, metrics = runs[method]
    text, c = (out / "README.md").read_text(encoding="utf-8"), metrics["comparison"]
    assert text.startswith("---\nlibrary_name: transformers\n") and f"# {method}\n" in text and "![" in text
    assert metrics["command"] in text and all(file["sha256"][:16] in text for file in metrics["files"])
    score = " | ".join([*(f"{c['test'][who]:.1%}" for who in ("teacher", "student")), comparison.format_share(c["test"]["kept"])])
    assert f"| 测试，准确率 / test, accuracy | {score} |" in text
    size = c["parameters"]
    assert f"| 参数 / parameters | {size['teacher']:,} | {size['student']:,} | {size['ratio']:.1%} |" in text
    assert "batch 1" in text and "每批 1 条" in text and f"bertcourse predict {method}" in text
    assert not re.search(r"\bnan\b|None", text)
    for path in out.iterdir():  # no folder of this machine is told
        for folder in (out.parent, teachers["classification"].parent, file_of(data["classification"], "--train").parent):
            assert str(folder).encode() not in path.read_bytes(), path.name


def test_the_printed_command_repeats_the_run(runs, teachers, data, tmp_path, monkeypatch):
    out, metrics = runs["kd"]
    for option in ("--train", "--dev", "--test"):
        shutil.copy(file_of(data["classification"], option), tmp_path)
    shutil.copytree(teachers["classification"], tmp_path / "classification")
    monkeypatch.chdir(tmp_path)
    assert call(*shlex.split(metrics["command"])[2:], "--quiet") == (0, "", "")
    assert weights(tmp_path / "kd") == weights(out)


def test_a_student_teaches_as_well(runs, data, tmp_path):
    """And the teacher's own shape will do."""
    metrics = succeed("--teacher", runs["distilbert"][0], *data["classification"], "--student", "{}", "--method", "tinybert", *FAST,
                      "--init-layers", "1,2", "--out", tmp_path / "m")
    assert metrics["teacher"]["dev"]["accuracy"] == runs["distilbert"][1]["dev"]["accuracy"]
    assert metrics["copied"][0] == metrics["copied"][1] and metrics["init_layers"] == [1, 2]
    assert load_json(tmp_path / "m/config.json")["model_type"] == "distilbert"


# --- what is said -------------------------------------------------------------------------------------------------

def test_what_was_understood_is_said(given, tmp_path, monkeypatch):
    argv = [*given["classification"][:6], "--student", STUDENTS["distilbert"], "--init-layers", "1,4",
            "--method", "tinybert", "--steps", 2, "--layer-steps", 3, "--batch-size", 20, "--precision", "no"]
    code, out, err = call(*argv, "--out", tmp_path / "m")
    lines = err.splitlines()
    assert code == 0 and not HAN.search(err + out) and len(lines) == 10
    assert all(line.startswith("  line 1: ") for line in (lines[2], lines[4]))  # a row of each file
    lines = [line for line in lines if not line.startswith("  line")]
    assert lines[0].startswith("teacher classification: classification, BertForSequenceClassification, 1,093,378 parameters, length ")
    assert lines[0].endswith("labels negative, positive")
    assert lines[3] == f"student {STUDENTS['distilbert']}: DistilBertForSequenceClassification, 2 × 128, 696,578 parameters; " \
        "starts from layers 1, 4 of the teacher: 38 of 40 tensors copied"
    assert lines[4] == "tinybert, temperature 1: 3 steps on the layers, then 2 steps on the outputs, 20 rows each, learning rate 0.001 " \
        "(auto, width 128), precision no"
    assert lines[5].startswith("the teacher on dev: accuracy ") and lines[6].startswith("layers: 3 steps, loss ")
    assert re.fullmatch(r"epoch 1, step 2 of 2: loss \S+; dev: accuracy \S+%, macro_f1 \S+%, mcc \S+, f1 \S+%", lines[7])
    table = out.splitlines()
    assert table[1].split() == ["teacher", "student", "student", "÷", "teacher"] and len({len(line) for line in table[1:7]}) == 1
    assert table[2].startswith("dev, accuracy ") and table[3].split() == ["parameters", "1,093,378", "696,578", "63.7%"]
    assert f"model card: {tmp_path / 'm' / 'README.md'}" in out
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    code, out, err = call(*argv, "--out", tmp_path / "zh")
    assert code == 0 and all(map(HAN.search, err.splitlines())) and "模型卡" in out and "学生 ÷ 教师" in out
    assert len({wide(line) for line in out.splitlines()[1:7]}) == 1


def test_learning_rate():
    assert student_rate(128, random=False) == 1e-3 and student_rate(128, random=True) == 3e-3
    assert student_rate(312, random=True) == pytest.approx(6.9e-4) and student_rate(768, random=True) == pytest.approx(1.5e-4)


# --- labels and columns -------------------------------------------------------------------------------------------

def test_the_order_of_the_labels_is_the_teachers(teachers, data, tmp_path):
    """The file's first label and the alphabet's are others: scores by number and by name agree all the same."""
    teacher = swapped(teachers["classification"], tmp_path / "swapped")
    metrics = succeed("--teacher", teacher, *data["classification"], "--student", SMALL, "--method", "kd", *FAST, "--out", tmp_path / "m")
    assert metrics["labels"] == ["positive", "negative"]
    before = load_json(teachers["classification"] / "metrics.json")
    for part in ("dev", "test"):
        found = metrics["teacher"][part]
        assert all(found[name] == before[part][name] for name in found if name != "f1")  # f1 is of the second label, now another
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").config.id2label == {0: "positive", 1: "negative"}
    rows = [json.loads(line) for line in file_of(data["classification"], "--dev").read_text().splitlines()]
    said = (found := open_checkpoint(str(tmp_path / "m"))).task.predict(found.model, rows)
    right = sum(p["label"] == row["label"] for p, row in zip(said, rows, strict=True))
    assert right / 20 == pytest.approx(metrics["dev"]["accuracy"])


def test_the_teachers_columns(teachers, data, tmp_path):
    """A file has the names that the teacher's had, or ours."""
    teacher = tmp_path / "teacher"
    shutil.copytree(teachers["classification"], teacher)
    about = load_json(teacher / "bertcourse.json")
    (teacher / "bertcourse.json").write_text(json.dumps(about | {"columns": {"sentence": "review", "label": "stars"}}))
    rows = [json.loads(line) for line in file_of(data["classification"], "--train").read_text().splitlines()]
    (tmp_path / "t.tsv").write_text("stars\treview\n" + "".join(f"{row['label']}\t{row['sentence']}\n" for row in rows))
    argv = ["--teacher", teacher, "--train", tmp_path / "t.tsv", "--student", SMALL, "--method", "kd", *FAST]
    metrics = succeed(*argv, *data["classification"][2:4], "--out", tmp_path / "m")
    assert load_json(tmp_path / "m/bertcourse.json")["columns"] == {"sentence": "review", "label": "stars"}
    assert metrics["data"]["rows"] == {"train": 40, "dev": 20} and not metrics["data"]["held_out"]
    assert succeed(*argv, "--out", tmp_path / "held")["data"]["rows"] == {"train": 36, "dev": 4}
    refused("no column 'words'", *argv, "--columns", "sentence=words", "--out", tmp_path / "n", left=tmp_path / "n")


@pytest.mark.parametrize("task", ["classification", "pairs"])
def test_a_teacher_of_others(teachers, data, tmp_path, task):
    """Nobody says whether it read pairs: the file does."""
    teacher = tmp_path / "teacher"
    shutil.copytree(teachers[task], teacher)
    (teacher / "bertcourse.json").unlink()
    metrics = succeed("--teacher", teacher, *data[task], "--student", SMALL, "--method", "kd", *FAST, "--out", tmp_path / "m")
    about = load_json(tmp_path / "m/bertcourse.json")
    assert metrics["task"] == about["task"] == task
    assert about["inputs"] == {"classification": ["sentence"], "pairs": ["sentence1", "sentence2"]}[task]


# --- methods ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("task, method", [("pairs", "distilbert"), ("regression", "kd"), ("ner", "kd"), ("ner", "tinybert"), ("qa", "kd")])
def test_all_tasks(given, tmp_path, task, method):
    metrics = succeed(*given[task], "--student", STUDENTS[method], "--method", method, *FAST, "--out", tmp_path / "m")
    assert metrics["task"] == task and metrics["dev"].keys() == TASKS[task][2] | {"loss"} and metrics["test"].keys() == TASKS[task][2]
    assert metrics["teacher"]["test"].keys() == TASKS[task][2]
    again = open_checkpoint(str(tmp_path / "m"))
    assert again.kind == task and not again.model.newly_initialised
    assert isinstance(again.task.threshold, float) if task == "qa" else metrics["threshold"] is None


@pytest.mark.parametrize("task, method", [("regression", "kd"), ("classification", "tinybert")])
def test_half_precision(given, tmp_path, task, method):
    metrics = succeed(*given[task][:6], "--student", SMALL, "--method", method, *FAST, "--precision", "bf16", "--out", tmp_path / "m")
    assert metrics["precision"] == "bf16" and math.isfinite(metrics["dev"]["loss"])
    assert all(weight.dtype == torch.float32 for weight in open_checkpoint(str(tmp_path / "m")).model.parameters())


def captured(monkeypatch, *argv: object, out: Path) -> SimpleNamespace:
    """What a run would train, before it does."""
    seen = SimpleNamespace()

    def train(spec, plan, folder, reporter):
        model, teacher = plan.student.model, plan.teacher
        seen.__dict__.update(plan=plan, student=model, start=plan.student.start, teacher=teacher, rows=plan.inputs,
                             learners=distilling.make_learners(spec, model, teacher.model),
                             cached=distilling.add_teacher_logits(spec, teacher, plan.inputs[:4], reporter))
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(distilling, "train", train)
        code, _, err = call(*argv, "--out", out)
    assert code == 130 and "nothing was written" in err and not out.exists(), err
    return seen


def test_what_each_method_weighs(given, tmp_path, monkeypatch):
    argv = [*given["classification"], "--precision", "no", "--quiet"]
    seen = captured(monkeypatch, *argv, "--student", SMALL, "--method", "kd", "--alpha", 0.7, "--temperature", 3, out=tmp_path / "m")
    learner = seen.learners["distillation"]
    assert learner.weights == distillation.Weights(hard=pytest.approx(0.3), soft=0.7) and learner.temperature == 3
    assert "teacher_logits" in seen.cached[0] and "labels" in seen.rows[0]
    assert seen.plan.stages == {"distillation": 6} and seen.plan.lr == 3e-3
    seen = captured(monkeypatch, *argv, "--student", STUDENTS["distilbert"], "--method", "distilbert", "--lr", 0.01, out=tmp_path / "m")
    assert seen.learners["distillation"].weights == distillation.Weights(hard=0.25, soft=0.625, cosine=0.125)
    assert seen.learners["distillation"].temperature == 2 and seen.plan.lr == 0.01 and "teacher_logits" not in seen.cached[0]
    seen = captured(monkeypatch, *argv, "--student", SMALL, "--method", "tinybert", "--mapping", "top", "--epochs", 2, "--batch-size", 7,
                    out=tmp_path / "m")
    assert seen.learners["intermediate"].layers == (3, 4) and seen.learners["prediction"].temperature == 1
    assert seen.plan.stages == {"intermediate": 24, "prediction": 12} and "labels" not in seen.rows[0]
    assert seen.learners["intermediate"].student is seen.learners["prediction"].student
    assert not seen.teacher.model.training and not any(p.requires_grad for p in seen.teacher.model.parameters())


def test_names_of_students(given, tmp_path, monkeypatch):
    argv = [*given["classification"], "--method", "kd", "--quiet"]
    for name, shape in [("tinybert-4", (4, 312, 12, 1200)), ("distilbert-6", (6, 128, 4, 512))]:
        student = captured(monkeypatch, *argv, "--student", name, out=tmp_path / "m").student
        config, inner = student.config, getattr(student.config, "intermediate_size", None) or student.config.hidden_dim
        assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, inner) == shape
        assert config.vocab_size == 2083 and config.max_position_embeddings == 128


@pytest.mark.parametrize("family", ["albert", "electra", "mobilebert", "roberta"])
def test_other_families(given, tmp_path, monkeypatch, family):
    """RoBERTa never uses the first positions, so it gets more of them."""
    seen = captured(monkeypatch, *given["classification"], "--method", "tinybert", "--quiet",
                    "--student", json.dumps({"model_type": family, "num_hidden_layers": 1}), out=tmp_path / "m")
    assert seen.student.config.max_position_embeddings == 128 + (family == "roberta") and seen.student.config.hidden_size == 128
    batch = seen.teacher.task.collate([row | {"input_ids": [5] * 128, "token_type_ids": [0] * 128} for row in seen.rows[:1]])
    for learner in seen.learners.values():
        assert torch.isfinite(learner(**batch).loss)


def test_layers_that_the_student_starts_from(given, tmp_path, monkeypatch):
    argv = [*given["classification"], "--quiet"]
    two = '{"num_hidden_layers": 2}'
    seen = captured(monkeypatch, *argv, "--method", "kd", "--student", two, "--init-layers", "1,4", out=tmp_path / "m")
    ours, theirs = seen.student.state_dict(), seen.teacher.model.state_dict()
    assert seen.start.layers == (1, 4) and seen.start.copied == (len(ours), len(ours)) and not seen.start.random and seen.plan.lr == 1e-3
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name.replace("layer.1.", "layer.3.")]), name
    seen = captured(monkeypatch, *argv, "--method", "distilbert", "--student", STUDENTS["distilbert"], out=tmp_path / "m")
    assert seen.start.layers == (2, 4)  # evenly spread, unasked
    query = seen.student.distilbert.transformer.layer[0].attention.q_lin.weight
    assert torch.equal(query, theirs["bert.encoder.layer.1.attention.self.query.weight"])
    for more in (["--init-layers", "none"], ["--student", '{"model_type": "distilbert", "num_hidden_layers": 3}']):
        seen = captured(monkeypatch, *argv, "--method", "distilbert", "--student", STUDENTS["distilbert"], *more, out=tmp_path / "m")
        assert seen.start.layers == () and seen.start.random and seen.plan.lr == 3e-3
    first = captured(monkeypatch, *argv, "--method", "kd", "--student", SMALL, out=tmp_path / "m").student.state_dict()
    second = captured(monkeypatch, *argv, "--method", "kd", "--student", SMALL, out=tmp_path / "m").student.state_dict()
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_a_checkpoint_to_start_from(given, runs, tmp_path, monkeypatch):
    """With its own head, if that is for the same labels; no layer of the teacher is copied over it."""
    argv = [*given["classification"], "--quiet", "--method", "distilbert"]
    same = captured(monkeypatch, *argv, "--student", runs["distilbert"][0], out=tmp_path / "m")
    before = AutoModelForSequenceClassification.from_pretrained(runs["distilbert"][0]).state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in same.student.state_dict().items()) and not same.start.layers
    assert same.start.en == "goes on from its checkpoint" and same.plan.lr == 1e-3
    (folder := tmp_path / "general").mkdir()  # as a general distillation leaves it
    transformers.AutoModel.from_pretrained(runs["distilbert"][0]).save_pretrained(folder)
    new = captured(monkeypatch, *argv, "--student", folder, out=tmp_path / "m")
    assert "with a new head" in new.start.en
    assert all(torch.equal(weight, before[name]) == name.startswith("distilbert.") for name, weight in new.student.state_dict().items()
               if weight.ndim == 2)


def test_a_configuration_from_a_file(given, teachers, tmp_path, monkeypatch):
    """What it leaves out is the teacher's; what a checkpoint's file says beside the shape may stand there."""
    (tmp_path / "small.json").write_text(json.dumps({
        "model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 1, "vocab_size": 2083, "hidden_dropout_prob": 0.3,
        "transformers_version": "4.0"}))
    student = captured(monkeypatch, *given["classification"], "--quiet", "--method", "kd", "--student",
                       tmp_path / "small.json", out=tmp_path / "m").student
    theirs = open_checkpoint(str(teachers["classification"])).model.config.to_dict()
    ours = student.config.to_dict()
    assert {name for name in theirs if theirs[name] != ours[name]} <= {"num_hidden_layers", "hidden_dropout_prob", "architectures", "dtype",
                                                                     "_name_or_path"}
    assert ours["num_hidden_layers"] == 1 and ours["hidden_dropout_prob"] == 0.3


def test_patience_keeps_the_best(given, tmp_path):
    metrics = succeed(*given["classification"][:6], "--student", SMALL, "--method", "tinybert", "--epochs", 6,
                      "--layer-epochs", 1, "--batch-size", 20, "--patience", 1, "--quiet", "--out", tmp_path / "m")
    rows = [row for row in map(json.loads, (tmp_path / "m/history.jsonl").read_text().splitlines()) if "dev" in row]
    best = max(rows, key=lambda row: row["dev"]["accuracy"])
    assert metrics["steps"] < 14 and metrics["best_step"] == best["step"] and metrics["dev"] == best["dev"]


def test_distilling_brings_the_student_to_the_teacher(teachers, data, tmp_path):
    """It learns what the teacher says, not what is right."""
    teacher = open_checkpoint(str(teachers["classification"]))
    rows = [json.loads(line) for line in file_of(data["classification"], "--train").read_text().splitlines()]
    said = [p["label"] for p in teacher.task.predict(teacher.model, rows)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"sentence": r["sentence"], "label": r["label"]}) + "\n" for r in rows))
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"sentence": r["sentence"], "label": s}) + "\n" for r, s in zip(rows, said)))
    metrics = succeed("--teacher", teachers["classification"], "--train", tmp_path / "t.jsonl", "--dev", tmp_path / "d.jsonl",
                      "--student", SMALL, "--method", "kd", "--alpha", 1, "--steps", 60, "--batch-size", 20, "--quiet",
                      "--out", tmp_path / "m")
    assert metrics["dev"]["accuracy"] > 0.9 and metrics["teacher"]["dev"]["accuracy"] == 1


# --- augmented rows -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def augmented(tmp_path_factory) -> Path:
    """More rows, with labels that are all wrong."""
    path = tmp_path_factory.mktemp("augmented") / "more.jsonl"
    rows = [json.loads(line) for line in text_of("polarity", list(examples("polarity", 12, seed=5))).splitlines()]
    flipped = {"negative": "positive", "positive": "negative"}
    path.write_text("".join(json.dumps({"sentence": r["sentence"], "label": flipped[r["label"]]}) + "\n" for r in rows))
    return path


def test_augmented_rows(given, data, tmp_path, monkeypatch, augmented):
    """They are rows as the others; tinybert does not look at their labels, the others need them."""
    argv = [*given["classification"], "--student", SMALL, "--quiet"]
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"sentence": json.loads(line)["sentence"]}) + "\n" for line in augmented.read_text().splitlines()))
    seen = [captured(monkeypatch, *argv, "--method", "tinybert", "--augmented", file, out=tmp_path / "m").rows
            for file in (augmented, bare)]
    assert seen[0] == seen[1] and len(seen[0]) == 52 and not any("labels" in row for row in seen[0])
    rows = captured(monkeypatch, *argv, "--method", "kd", "--augmented", augmented, out=tmp_path / "m").rows
    assert len(rows) == 52 and all("labels" in row for row in rows)
    in_both_languages(monkeypatch, "bare.jsonl has rows without labels", *argv, "--method", "kd", "--augmented", bare,
                      "--out", tmp_path / "m", left=tmp_path / "m")
    metrics = succeed(*argv, *FAST[:-1], "--method", "kd", "--augmented", augmented, "--out", tmp_path / "m")
    assert metrics["data"]["rows"] == {"train": 40, "dev": 20, "test": 20, "augmented": 12}
    assert [file["option"] for file in metrics["files"]] == ["train", "dev", "test", "augmented"]


def test_augmented_rows_of_words(given, tmp_path, monkeypatch):
    """Which pieces carry a tag is known without the tags."""
    rows = [json.dumps({"tokens": row["tokens"]}) + "\n" for row in examples("ner", 6, seed=5)]
    (tmp_path / "more.jsonl").write_text("".join(rows))
    seen = captured(monkeypatch, *given["ner"], "--student", SMALL, "--quiet", "--method", "tinybert", "--augmented",
                    tmp_path / "more.jsonl", out=tmp_path / "m")
    assert len(seen.rows) == 46 and {label for row in seen.rows for label in row["labels"]} == {0, -100}
    assert torch.isfinite(seen.learners["prediction"](**seen.teacher.task.collate(seen.rows[36:44])).loss)


# --- what is refused ----------------------------------------------------------------------------------------------

GIVEN = ["--out", "m", "--teacher", ".", "--train", "t.tsv", "--student", "tinybert-4"]


@pytest.mark.parametrize("argv, says", [
    ([], "--out"), (["--out", "m"], "--teacher, --student, --train, --method must be given"), (["--out", "m", "stray"], "stray"),
    ([*GIVEN, "--method", "kd", "--nonsense"], "--nonsense"), ([*GIVEN, "--method", "magic"], "--method"),
    *[(["--out", "m", option, value], option) for option, value in [
        ("--steps", "0"), ("--epochs", "1.5"), ("--layer-epochs", "0"), ("--layer-steps", "-1"), ("--batch-size", "0"), ("--lr", "0"),
        ("--lr", "fast"), ("--warmup", "-1"), ("--patience", "0"), ("--seed", "-1"), ("--precision", "fp16"), ("--columns", "a="),
        ("--alpha", "1.1"), ("--alpha", "-0.1"), ("--temperature", "0"), ("--temperature", "nan"), ("--mapping", "middle"),
        ("--init-layers", "0,1"), ("--init-layers", "all"), ("--init-layers", "")]],
    (["--out", "m", "--epochs", "3", "--steps", "4"], "--epochs"),
    (["--out", "m", "--layer-epochs", "3", "--layer-steps", "4"], "--layer-epochs"),
    ([*GIVEN, "--method", "kd", "--mapping", "top"], "--mapping is for --method tinybert, not for kd"),
    ([*GIVEN, "--method", "distilbert", "--layer-steps", "4"], "--layer-steps is for --method tinybert"),
    ([*GIVEN, "--method", "tinybert", "--alpha", "0.5"], "--alpha is for --method kd, not for tinybert"),
    ([*GIVEN, "--method", "distilbert", "--alpha", "0.5"], "--alpha is for --method kd, not for distilbert"),
    ([*GIVEN, "--method", "kd", "--seed", "4294967296"], "--seed"),
    ([*GIVEN, "--method", "kd", "--dev", "./t.tsv"], "is given twice"),
    ([*GIVEN, "--method", "kd", "--augmented", "u.tsv"], "--augmented needs --dev"),
    ([*GIVEN, "--method", "kd", "--dev", "absent.tsv"], "absent.tsv is not there"),
    ([*GIVEN, "--method", "kd", "--teacher", "nowhere"], "there is no folder nowhere"),
    ([*GIVEN, "--method", "kd", "--student", "tinybert-5"], "tinybert-5 is no name, file or folder"),
    ([*GIVEN, "--method", "kd", "--student", "./absent.json"], "is no name, file or folder"),
    ([*GIVEN, "--method", "kd", "--student", '{"num_hidden_layers": 2'], "--student is not valid JSON"),
    ([*GIVEN, "--method", "kd", "--student", "list.json"], "list.json is not a JSON object"),
    ([*GIVEN, "--method", "kd", "--student", "t.tsv"], "t.tsv is not valid JSON"),
    (["--out", "m", "--resume"], "there is no run in m to go on with"),
])
def test_arguments_that_are_refused(tmp_path, monkeypatch, argv, says):
    monkeypatch.chdir(tmp_path)
    for name in ("t.tsv", "u.tsv"):
        Path(name).write_text("sentence\tlabel\na\t0\nb\t1\n")
    Path("list.json").write_text("[1, 2]")
    refused(says, *argv, left=tmp_path / "m")
    if "is for" in says or "student" in argv or "--augmented" in argv or "--teacher" in argv:
        monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
        code, _, err = call(*argv)
        assert code == 2 and (HAN.search(err) or "see `bertcourse" in err)
    assert {path.name for path in tmp_path.iterdir()} == {"t.tsv", "u.tsv", "list.json"}


MORE_LAYERS = '{"num_hidden_layers": 5}'


@pytest.mark.parametrize("method, more, says", [
    ("kd", ["--student", '{"num_hiden_layers": 2}'], "bert has no setting 'num_hiden_layers': did you mean num_hidden_layers?"),
    ("kd", ["--student", '{"zzz": 2}'], "bert has no setting 'zzz': leave it out"),
    ("kd", ["--student", '{"n_layers": 2}'], "bert has no setting 'n_layers'"),
    ("kd", ["--student", '{"vocab_size": 30522}'], "vocab_size must be that of the teacher (2083), not 30522"),
    ("kd", ["--student", '{"max_position_embeddings": 64}'], "max_position_embeddings must be that of the teacher (128), not 64"),
    ("kd", ["--student", '{"num_labels": 5}'], "num_labels must be that of the teacher (2), not 5"),
    ("kd", ["--student", '{"model_type": "gpt2"}'], "there is no model_type 'gpt2'"),
    ("kd", ["--student", '{"num_hidden_layers": 0}'], "num_hidden_layers must be a whole number from 1 on, not 0"),
    ("kd", ["--student", '{"hidden_size": "64"}'], "hidden_size must be a whole number"),
    ("kd", ["--student", '{"hidden_size": 66}'], "4 heads do not divide a width of 66 evenly"),
    ("kd", ["--student", '{"hidden_act": "sine"}'], "--student makes no bert"),
    ("tinybert", ["--student", "tinybert-4"], "compares head by head, and the student has 12, the teacher 4"),
    ("tinybert", ["--student", '{"num_hidden_layers": 3}'],
     "3 layers cannot be spread evenly over the teacher's 4: take --mapping top or bottom, or 1, 2, 4 layers"),
    ("tinybert", ["--student", MORE_LAYERS], "the student has 5 layers, the teacher only 4"),
    ("tinybert", ["--student", MORE_LAYERS, "--mapping", "bottom"], "the student has 5 layers, the teacher only 4"),
    ("distilbert", ["--student", SMALL], "the student is 64 wide, the teacher 128: make it as wide, or take --method kd or tinybert"),
    ("kd", ["--init-layers", "2,4"], "(bert, 128 wide, 4 heads) do not fit the student (bert, 64 wide, 4 heads)"),
    ("kd", ["--student", '{"num_hidden_layers": 2}', "--init-layers", "2,5"], "the student needs 2 layers, each a number from 1 to 4"),
    ("kd", ["--student", '{"num_hidden_layers": 2}', "--init-layers", "2"], "the student needs 2 layers"),
    ("kd", ["--student", '{"num_hidden_layers": 2, "num_attention_heads": 2}', "--init-layers", "2,4"], "do not fit"),
    ("kd", ["--student", '{"model_type": "albert"}', "--init-layers", "1,2,3,4"], "do not fit the student (albert"),
    ("kd", ["--student", "tiny", "--init-layers", "1,2,3,4"], "--init-layers is for a student without weights of its own"),
    ("kd", ["--warmup", "2"], "--warmup 2 leaves nothing of 2 steps"),
    ("kd", ["--teacher", "tiny"], "not fine-tuned"),
    ("kd", ["--columns", "sentence=words"], "no column 'words'"),
])
def test_what_does_not_fit_is_refused(given, tmp_path, monkeypatch, method, more, says):
    in_both_languages(monkeypatch, says, *given["classification"], "--student", SMALL, "--method", method,
                      *FAST, *more, "--out", tmp_path / "m", left=tmp_path / "m")


def test_files_that_are_refused(given, tmp_path, monkeypatch):
    def refuses(says: str, content: str, *more: object, task: str = "classification", name: str = "f.jsonl") -> None:
        (tmp_path / name).write_text(content)
        in_both_languages(monkeypatch, says, *given[task][:6], "--student", SMALL, "--method", "kd", *FAST, *more,
                          "--out", tmp_path / "m", left=tmp_path / "m")
    strange = '{"sentence": "the dog is happy", "label": "positive"}\n{"sentence": "no", "label": "sideways"}\n'
    for option in ("--train", "--test", "--augmented"):
        refuses("the model has no label 'sideways', only negative, positive", strange, option, tmp_path / "f.jsonl")
    refuses("line 2", '{"sentence": "the dog is happy", "label": "positive"}\n{"sentence": \n', "--train", tmp_path / "f.jsonl")
    refuses("regression (regression) reads sentence1, sentence2", strange.replace('"positive"', "1").replace('"sideways"', "2"), "--train",
            tmp_path / "f.jsonl", task="regression")
    refuses("--temperature makes distributions flatter", "", "--temperature", 3, task="regression")
    refuses("f.jsonl has sentence, the training file sentence1, sentence2", '{"sentence": "a", "label": 2}\n',
            "--augmented", tmp_path / "f.jsonl", task="regression")


def test_checkpoints_that_are_refused(given, runs, tmp_path, monkeypatch):
    argv = [*given["classification"], "--method", "kd", *FAST, "--out", tmp_path / "m"]
    shape = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    for name, more, says in [
        ("words", {"vocab_size": 99}, "words has another vocabulary than the teacher (99 entries, 2,083)"),
        ("short", {"vocab_size": 2083, "max_position_embeddings": 8}, "short has 8 positions, the teacher reads up to"),
    ]:
        transformers.BertModel(transformers.BertConfig(**shape, **more)).save_pretrained(tmp_path / name)
        in_both_languages(monkeypatch, says, *argv, "--student", tmp_path / name, left=tmp_path / "m")
    (tmp_path / "empty").mkdir()
    in_both_languages(monkeypatch, "config.json", *argv, "--student", tmp_path / "empty", left=tmp_path / "m")
    shutil.copytree(runs["kd"][0], tmp_path / "shuffled")
    path = tmp_path / "shuffled" / "tokenizer.json"
    content = load_json(path)
    one, other = [word for word in content["model"]["vocab"] if word.isalpha()][:2]
    vocab = content["model"]["vocab"]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(content))
    in_both_languages(monkeypatch, "shuffled has another vocabulary", *argv, "--student", tmp_path / "shuffled", left=tmp_path / "m")


def test_folders_that_are_refused(given, runs, teachers, data, tmp_path, monkeypatch):
    argv = [*given["classification"], "--student", SMALL, "--method", "kd", *FAST, "--out"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, says in [(tmp_path / "full", "is not empty"), (tmp_path / "file", "is a file"), (runs["kd"][0], "is not empty")]:
        in_both_languages(monkeypatch, says, *argv, out)
    refused("is not empty", *argv, teachers["classification"], "--resume")  # of `bertcourse finetune`
    code, _, err = FINETUNE.call("--task", "classification", *data["classification"], "--model", "tiny", "--out", runs["kd"][0], "--resume")
    assert code == 2 and "is not empty" in err


def test_divergence_leaves_nothing_and_advises(given, tmp_path, monkeypatch):
    in_both_languages(monkeypatch, "training diverged (step", *given["regression"], "--student", SMALL, "--method",
                      "kd", "--epochs", 3, "--batch-size", 40, "--warmup", 0, "--lr", 1e38, "--precision", "no", "--quiet",
                      "--out", tmp_path / "m", left=tmp_path / "m")


def test_nothing_heavy_is_imported_to_refuse(tmp_path):
    (tmp_path / "t.tsv").write_text("sentence\tlabel\na\t0\nb\t1\n")
    argv = ["--out", "m", "--train", str(tmp_path / "t.tsv"), "--method", "kd"]
    code = f"""import sys
from bertcourse.app import cli
for more in ([], ["--teacher", "absent", "--student", "tinybert-4"], ["--teacher", ".", "--student", "absent"],
             ["--teacher", ".", "--student", "{{"], ["--teacher", ".", "--student", "tinybert-4", "--mapping", "top"],
             ["--teacher", ".", "--student", "tinybert-4", "--out", {str(tmp_path)!r}]):
    assert cli.main(["distill", *{argv!r}, *more]) == 2
print([name for name in ("torch", "transformers", "matplotlib", "datasets") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n" and len(done.stderr.splitlines()) == 6, done.stderr


# --- stopped and resumed ------------------------------------------------------------------------------------------

def long(given, method: str) -> list:
    """10 steps, or 4 on the layers and 6 on the outputs, saved at each."""
    more = ["--steps", 6, "--layer-steps", 4] if method == "tinybert" else ["--steps", 10]
    return [*given["classification"][:6], "--student", SMALL, "--method", method, "--batch-size", 10,
            "--precision", "no", "--quiet", *more]


@pytest.fixture(scope="module")
def uninterrupted(given, tmp_path_factory) -> dict[str, Path]:
    """Method: a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")

    class Whole(dict):
        def __missing__(self, method):
            succeed(*long(given, method), "--out", folder / method)
            self[method] = folder / method
            return self[method]
    return Whole()


@pytest.mark.parametrize("method, at, done", [("kd", 7, 7), ("tinybert", 2, 2), ("tinybert", 4, 5), ("tinybert", 5, 9)])
def test_ctrl_c_and_resume(given, teachers, data, tmp_path, monkeypatch, uninterrupted, method, at, done):
    """In the middle of either stage, and in the last step of the first, where the next step is the first that can wait."""
    out, argv = tmp_path / "m", long(given, method)
    with monkeypatch.context() as patch:
        interrupt_at(at, patch)
        code, printed, err = call(*argv, "--out", out, "--json")
    assert code == 130 and err == f"bertcourse: stopped at step {done}; to go on: bertcourse distill --out {out} --resume\n"
    assert json.loads(printed) == {"out": str(out), "finished": False, "step": done}
    assert {path.name for path in out.iterdir()} == {"unfinished"}
    refused("holds an unfinished run: go on with it by --resume", *argv, "--out", out)
    if method == "kd":
        other_settings(out, teachers, data)
    assert succeed("--out", out, "--resume", "--quiet")["steps"] == 10
    assert weights(out) == weights(uninterrupted[method]) and {path.name for path in out.iterdir()} == FILES
    assert history(out) == history(uninterrupted[method])


def history(folder: Path) -> list[dict]:
    """But for the time, which passes as it likes."""
    rows = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def other_settings(out: Path, teachers, data) -> None:
    """Check that a run is not gone on with as another."""
    changed = out.parent / "classification-dev.jsonl"
    changed.write_text(file_of(data["classification"], "--dev").read_text(encoding="utf-8").replace("the", "a", 1), encoding="utf-8")
    for says, more in [("another --seed (0, not 5)", ["--seed", 5]), ("another --method (kd, not tinybert)", ["--method", "tinybert"]),
                       ("another --student", ["--student", "tinybert-4"]), ("another --student", ["--student", '{"num_hidden_layers": 2}']),
                       ("another --teacher", ["--teacher", teachers["pairs"]]), ("another --alpha (0.5, not 0.1)", ["--alpha", 0.1]),
                       ("another --mapping (None, not top)", ["--mapping", "top"]), ("another --init-layers", ["--init-layers", "1,2"]),
                       ("classification-dev.jsonl is not the file of the run", ["--dev", changed])]:
        refused(says, "--out", out, "--resume", "--quiet", *more)


def test_a_finished_folder_is_not_touched(given, teachers, data, uninterrupted):
    out, argv = uninterrupted["kd"], long(given, "kd")
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    assert succeed("--out", out, "--resume") == succeed(*argv, "--out", out, "--resume")
    other_settings(out, teachers, data)
    assert before == {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}


def test_a_teacher_that_changed_before_the_resumption(given, teachers, tmp_path, monkeypatch):
    teacher, out = tmp_path / "teacher", tmp_path / "m"
    shutil.copytree(teachers["classification"], teacher)
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        assert call(*long(given, "kd"), "--teacher", teacher, "--out", out)[0] == 130
    shutil.rmtree(teacher)
    swapped(teachers["classification"], teacher)
    in_both_languages(monkeypatch, f"teacher is not the teacher of the run in {out}", "--out", out, "--resume", "--quiet")
    run = load_json(out / "unfinished/run.json")
    (out / "unfinished/run.json").write_text(json.dumps({"settings": {}, "model": "tiny"}))
    in_both_languages(monkeypatch, "holds a run of `bertcourse finetune`", "--out", out, "--resume", "--quiet")
    (out / "unfinished/run.json").write_text(json.dumps(run | {"method": None, "settings": {}}))
    in_both_languages(monkeypatch, "does not say what the run was", "--out", out, "--resume", "--quiet")


def test_ctrl_c_before_training(given, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(distilling, "make_student", stop)
    code, _, err = call(*long(given, "kd"), "--out", tmp_path / "new" / "m")
    assert code == 130 and "nothing was written" in err and not (tmp_path / "new").exists()


def test_a_full_disk_at_the_end(given, tmp_path, monkeypatch, uninterrupted):
    """All that was trained is kept, and the rest is made when there is room."""
    def full(*_):
        raise OSError(28, "No space left on device", "README.md")
    with monkeypatch.context() as patch:
        patch.setattr(distilling, "shell_example", full)
        refused("No space left on device; ", *long(given, "tinybert"), "--out", tmp_path / "m")
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"unfinished"}
    succeed("--out", tmp_path / "m", "--resume", "--quiet")
    assert weights(tmp_path / "m") == weights(uninterrupted["tinybert"]) and {path.name for path in (tmp_path / "m").iterdir()} == FILES
