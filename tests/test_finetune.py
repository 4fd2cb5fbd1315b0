"""`bertcourse finetune`: from labelled files to a finished folder, and one sentence for whatever stands in the way."""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import commands
import pytest
import shared
import torch
import transformers
from commands import HAN, weights
from datasets import Dataset

import bertcourse.training
from bertcourse.app import cli
from bertcourse.assets import asset
from bertcourse.corpus_tasks import TOY_TASKS, dataset, examples
from bertcourse.jobs import finetuning
from bertcourse.jobs import folder as run_folder
from bertcourse.jobs.data import hold_out
from bertcourse.jobs.reporter import format_score
from bertcourse.jobs.setup import learning_rate

FILES = {"README.md", "bertcourse.json", "config.json", "curves.png", "history.jsonl", "metrics.json", "model.safetensors",
         "tokenizer.json", "tokenizer_config.json"}
TASKS = {  # command's task: the toy world's, ending of the files, metrics
    "classification": ("polarity", "jsonl", {"accuracy", "macro_f1", "mcc", "f1"}),
    "pairs": ("nli", "jsonl", {"accuracy", "macro_f1", "mcc"}),
    "regression": ("similarity", "jsonl", {"pearson", "spearman", "mse"}),
    "ner": ("ner", "conll", {"f1", "precision", "recall", "accuracy"}),
    "qa": ("qa", "json", {"exact", "f1", "f1_answerable", "f1_unanswerable"}),
}
FAST = ["--model", "tiny", "--steps", "4", "--batch-size", "8", "--precision", "no", "--quiet"]
FINETUNE = commands.Training("finetune")
call, succeed, refused, in_both_languages = FINETUNE.call, FINETUNE.succeed, FINETUNE.refused, FINETUNE.in_both_languages


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings(), shared.cached_curves(finetuning):
        yield


# --- files to train on --------------------------------------------------------------------------------------------

def tag_name(tag: int | str) -> str:
    return tag if isinstance(tag, str) else dataset("ner", sizes={"train": 1})["train"].features["ner_tags"].feature.names[tag]


def text_of(toy: str, rows: list[dict]) -> str:
    """Rows of the toy world as a file."""
    if toy == "ner":
        return "\n\n".join("\n".join(f"{word} {tag_name(tag)}" for word, tag in zip(r["tokens"], r["ner_tags"])) for r in rows) + "\n"
    if toy == "qa":
        return json.dumps({"data": [{"paragraphs": [{"context": r["context"], "qas": [{
            "id": r["id"], "question": r["question"], "answers": [
                {"text": text, "answer_start": at} for text, at in zip(*r["answers"].values())]}]} for r in rows]}]})
    names = TOY_TASKS[toy].classes
    return "".join(json.dumps({k: r[k] for k in ("sentence", "sentence1", "sentence2") if k in r} |
                              {"label": names[r["label"]] if names else r["label"]}, ensure_ascii=False) + "\n" for r in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, list]:
    """Task: its options for files."""
    folder, made = tmp_path_factory.mktemp("data"), {}
    for task, (toy, ending, _) in TASKS.items():
        made[task] = ["--task", task]
        for option, split, n in [("train", "train", 40), ("dev", "validation", 24), ("test", "test", 24)]:
            path = folder / f"{task}-{option}.{ending}"
            path.write_text(text_of(toy, list(examples(toy, n, split=split))), encoding="utf-8")
            made[task] += [f"--{option}", path]
    return made


def file_of(argv: list, option: str) -> Path:
    return argv[argv.index(option) + 1]


def only_train(argv: list) -> list:
    """Without --dev and --test."""
    return argv[:4]


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """Task: a finished folder, and what was printed. Each is made when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    class Runs(dict):
        def __missing__(self, task):
            self[task] = folder / task, succeed(*data[task], *FAST, "--out", folder / task)
            return self[task]
    return Runs()


# --- the finished folder ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("task", TASKS)
def test_the_folder_holds_what_is_promised(runs, data, task):
    out, printed = runs[task]
    assert {path.name for path in out.iterdir()} == FILES
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG") and (out / "curves.png").stat().st_size > 5_000
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert printed == {"out": str(out)} | metrics
    assert metrics["task"] == task and metrics["seed"] == 0 and 0 < metrics["seconds"] < 60 and metrics["steps"] == 4
    assert metrics["dev"].keys() == TASKS[task][2] | {"loss"} and metrics["test"].keys() == TASKS[task][2]
    assert metrics["data"] == {"rows": {"train": 40, "dev": 24, "test": 24}, "skipped": {"train": 0, "dev": 0, "test": 0},
                               "moved": {"train": 0, "dev": 0, "test": 0}, "held_out": False}
    assert [file["name"] for file in metrics["files"]] == [file_of(data[task], f"--{o}").name for o in ("train", "dev", "test")]
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "lr" in row] == [1, 2, 3, 4] and "dev" in rows[-1]
    about = json.loads((out / "bertcourse.json").read_text(encoding="utf-8"))
    assert about["task"] == task and about["lang"] == "en" and about["model"] == "tiny" and about["columns"] == {}
    assert about["max_length"] % 8 == 0 and about["labels"] == metrics["labels"]
    assert isinstance(about["threshold"], float) if task == "qa" else about["threshold"] is None


@pytest.mark.parametrize("task", TASKS)
def test_the_checkpoint_loads_with_its_labels(runs, data, task):
    from bertcourse import files
    from bertcourse.tasks import TASK_TYPES
    out, metrics = runs[task]
    about = json.loads((out / "bertcourse.json").read_text(encoding="utf-8"))
    auto_class = TASK_TYPES[task].auto_class
    model, found = auto_class.from_pretrained(out, output_loading_info=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert not any(found.values()) and tokenizer.model_max_length == about["max_length"]
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"]
    if about["labels"]:
        assert [model.config.id2label[i] for i in range(len(about["labels"]))] == about["labels"]
        assert model.config.label2id == {label: i for i, label in enumerate(about["labels"])}
    if task == "regression":
        assert model.config.num_labels == 1 and model.config.problem_type == "regression"
    assert (out / "tokenizer.json").read_bytes() == (asset("tiny-bert") / "tokenizer.json").read_bytes()
    again = TASK_TYPES[task](tokenizer, tuple(about["labels"]), max_length=about["max_length"])
    if task == "qa":
        again.threshold = about["threshold"]
    paths = {"train": file_of(data[task], "--train"), "validation": file_of(data[task], "--dev")}
    dev = files.dataset(task, paths)["validation"]
    scores = again.metrics(dev)(model.eval())
    for name, value in scores.items():
        assert math.isnan(value) and metrics["dev"][name] is None or value == pytest.approx(metrics["dev"][name], abs=1e-6), name


@pytest.mark.parametrize("task", TASKS)
def test_the_card(runs, data, task):
    out, metrics = runs[task]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n") and f"# {out.name}\n" in card and "![" in card
    assert metrics["command"] in card and all(file["sha256"][:16] in card for file in metrics["files"])
    assert all(f"`{label}`" in card for label in metrics["labels"]) and "train 40, dev 24, test 24" in card
    assert "bertcourse predict " + out.name in card and not re.search(r"\bnan\b|None", card)
    name = next(iter(TASKS[task][2]))
    assert format_score(name, metrics["dev"][name]) in card
    for path in out.iterdir():  # no folder of this machine is told
        for folder in (out.parent, file_of(data[task], "--train").parent):
            assert str(folder).encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize("task", TASKS)
def test_predict_gives_what_was_scored(runs, task, tmp_path):
    """The same predictions by the other command, scored by hand: those of the metrics."""
    from bertcourse.tasks import answer_scores, span_f1
    (out, metrics), toy = runs[task], TASKS[task][0]
    rows = list(examples(toy, 24, split="test"))
    names = ("sentence", "sentence1", "sentence2", "tokens", "question", "context")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({k: r[k] for k in names if k in r}) + "\n" for r in rows))
    assert cli.main(["predict", str(out), str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]) == 0
    said, test = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()], metrics["test"]
    if task == "regression":
        mse = sum((p["score"] - r["label"]) ** 2 for p, r in zip(said, rows)) / 24
        assert mse == pytest.approx(test["mse"], rel=1e-4)
    elif task == "ner":
        truth = [[tag_name(tag) for tag in row["ner_tags"]] for row in rows]
        assert span_f1(truth, [p["tags"] for p in said])["f1"] == pytest.approx(test["f1"])
    elif task == "qa":
        exact = sum(answer_scores(p["answer"], r["answers"]["text"])[0] for p, r in zip(said, rows)) / 24
        assert exact == pytest.approx(test["exact"])
    else:
        right = sum(p["label"] == TOY_TASKS[toy].classes[r["label"]] for p, r in zip(said, rows)) / 24
        assert right == pytest.approx(test["accuracy"])


def test_the_printed_command_repeats_the_run(runs, data, tmp_path, monkeypatch):
    out, metrics = runs["pairs"]
    for option in ("--train", "--dev", "--test"):
        shutil.copy(file_of(data["pairs"], option), tmp_path)
    monkeypatch.chdir(tmp_path)
    assert metrics["command"].startswith("bertcourse finetune --task pairs --train pairs-train.jsonl --dev ")
    assert call(*metrics["command"].split()[2:], "--quiet") == (0, "", "")
    assert weights(tmp_path / "pairs") == weights(out)


def test_another_seed_gives_other_weights(runs, data, tmp_path):
    succeed(*data["pairs"], *FAST, "--seed", 1, "--out", tmp_path / "m")
    assert weights(tmp_path / "m") != weights(runs["pairs"][0])


def test_training_teaches(tmp_path):
    def rows(n):
        return "sentence\tlabel\n" + "".join(f"the {noun} is {word}\t{label}\n" for noun in "film book meal dog song".split()
                                             for word, label in [("good", "up"), ("bad", "down")])[:n]
    (tmp_path / "t.tsv").write_text(rows(None))
    (tmp_path / "d.tsv").write_text("sentence\tlabel\nthe film is good\tup\nthe dog was bad\tdown\nthe house is bad\tdown\n")
    metrics = succeed("--task", "sentiment", "--train", tmp_path / "t.tsv", "--dev", tmp_path / "d.tsv", "--model", "tiny",
                      "--epochs", 12, "--batch-size", 5, "--out", tmp_path / "m", "--quiet")
    assert metrics["task"] == "classification" and metrics["steps"] == 24 and metrics["dev"]["accuracy"] == 1
    evaluations = [row for row in map(json.loads, (tmp_path / "m/history.jsonl").read_text().splitlines()) if "dev" in row]
    assert len(evaluations) == 12 and evaluations[-1]["dev"]["loss"] < evaluations[0]["dev"]["loss"] / 2


# --- what is said -------------------------------------------------------------------------------------------------

def test_what_was_understood_is_said(data, tmp_path, monkeypatch):
    argv = [*data["classification"], "--model", "tiny", "--steps", 4, "--batch-size", 8]
    code, out, err = call(*argv, "--out", tmp_path / "m")
    lines = err.splitlines()
    assert code == 0 and not HAN.search(err + out) and len(lines) == 10
    assert all(line.startswith("  line 1: ") and line.endswith(("→ positive", "→ negative")) for line in lines[1:6:2])
    lines = lines[0:6:2] + lines[6:]
    for line, option in zip(lines, ("--train", "--dev", "--test")):
        assert file_of(argv, option).name in line
    assert re.fullmatch(r"length \d+ tokens \(auto\): .* of the texts are longer and cut", lines[3])
    assert lines[4] == "model tiny: BertForSequenceClassification, 4 × 128, 1,093,378 parameters; newly initialised: classifier"
    assert lines[5].startswith("4 steps of 8, learning rate 0.001 (auto, width 128), precision ") and "language en" in lines[5]
    assert re.fullmatch(r"epoch 0.8, step 4 of 4: loss \S+; dev: accuracy \S+%, macro_f1 \S+%, mcc \S+, f1 \S+%", lines[6])
    assert f"model card: {tmp_path / 'm' / 'README.md'}" in out and len(out.splitlines()) == 4
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    code, out, err = call(*argv, "--out", tmp_path / "zh")
    assert code == 0 and all(HAN.search(line) for line in err.splitlines()) and "模型卡" in out


def test_a_question_without_a_place_for_its_answer_is_left_out_and_said(data, tmp_path):
    rows = json.loads(file_of(data["qa"], "--train").read_text(encoding="utf-8"))
    paragraph = rows["data"][0]["paragraphs"][0]
    paragraph["context"] += "\u200b\u200b"
    paragraph["qas"][0]["answers"] = [{"text": "\u200b", "answer_start": len(paragraph["context"]) - 1}]
    train = tmp_path / "train.json"
    train.write_text(json.dumps(rows), encoding="utf-8")
    code, _, err = call("--task", "qa", "--train", train, "--dev", file_of(data["qa"], "--dev"), *FAST[:-1], "--out", tmp_path / "m")
    assert code == 0 and "1 question left out of training: the tokenizer gives no token for the answer" in err


def test_a_part_of_the_training_file_is_held_out(data, tmp_path):
    argv = [*only_train(data["regression"]), *FAST[:-1]]
    code, _, err = call(*argv, "--out", tmp_path / "a")
    assert code == 0 and "no --dev: 4 rows of the training file held out for it (seed 0), 36 are left" in err
    metrics = json.loads((tmp_path / "a/metrics.json").read_text())
    assert metrics["data"]["rows"] == {"train": 36, "dev": 4} and metrics["data"]["held_out"] and metrics["test"] == {}
    assert "held out" in (tmp_path / "a/README.md").read_text(encoding="utf-8")


def test_answers_may_be_as_long_as_those_of_the_training(tmp_path, monkeypatch):
    context = "the " + "red and green and " * 12 + "blue house"
    rows = [{"question": f"what is number {i}?", "context": context, "answers": [{"text": context[4:], "answer_start": 4}]} for i in range(12)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = ["--task", "qa", "--train", tmp_path / "t.jsonl", "--dev", tmp_path / "d.jsonl", *FAST[:-1]]
    shutil.copyfile(tmp_path / "t.jsonl", tmp_path / "d.jsonl")
    code, _, err = call(*argv, "--out", tmp_path / "m")
    kept = json.loads((tmp_path / "m/bertcourse.json").read_text())["max_answer_length"]
    assert code == 0 and f"answers of at most {kept} tokens (auto)" in err and 38 <= kept <= 60
    succeed(*argv, "--max-answer-length", 7, "--out", tmp_path / "n")
    assert json.loads((tmp_path / "n/bertcourse.json").read_text())["max_answer_length"] == 7
    in_both_languages(monkeypatch, "--max-answer-length is for --task qa, not for ner", "--task", "ner", "--train", tmp_path / "t.jsonl", *FAST,
                      "--max-answer-length", 7, "--out", tmp_path / "x")


def test_names_that_are_not_utf8(data, tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode("训练".encode("gbk"))
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes UTF-8 only")
    file, source = folder / os.fsdecode("训练.jsonl".encode("gbk")), file_of(data["classification"], "--train")
    shutil.copyfile(source, file)
    argv = ["--task", "classification", "--train", file, *FAST]
    metrics = succeed(*argv, "--out", tmp_path / "m")
    assert metrics["files"][0]["name"] == "ѵ\ufffd\ufffd.jsonl" and "ѵ\ufffd\ufffd" in (tmp_path / "m/README.md").read_text(encoding="utf-8")
    assert succeed("--out", tmp_path / "m", "--resume") == metrics
    in_both_languages(monkeypatch, "ѵ\ufffd\ufffd/m is not UTF-8 at byte", *argv, "--out", folder / "m")
    (tmp_path / "m").rename(folder / "m")
    in_both_languages(monkeypatch, "ѵ\ufffd\ufffd/m is not UTF-8 at byte", *argv[:4], "--model", folder / "m", *FAST[2:], "--out", tmp_path / "n")
    spec = finetuning.FinetuneSpec(task="classification", model="tiny", settings={}, paths={"train": str(file)}, command="")
    spec.write(tmp_path)
    assert Path(json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["paths"]["train"]).is_file()


def test_a_name_that_may_mean_two_models_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [*only_train(data["classification"]), "--steps", 1, "--batch-size", 4, "--precision", "no", "--quiet"]
    (tmp_path / "tiny").mkdir()
    in_both_languages(monkeypatch, "tiny is both a model of the course and a path here: write bertcourse:tiny or ./tiny",
                      *argv, "--model", "tiny", "--out", tmp_path / "m", left=tmp_path / "m")
    in_both_languages(monkeypatch, "the course has no 'bertcourse:big': write bertcourse:tiny or bertcourse:base",
                      *argv, "--model", "bertcourse:big", "--out", tmp_path / "m", left=tmp_path / "m")
    assert "has no config.json" in call(*argv, "--model", "./tiny", "--out", tmp_path / "m")[2]
    metrics = succeed(*argv, "--model", "bertcourse:tiny", "--out", tmp_path / "m")
    assert metrics["model"] == "tiny"
    (tmp_path / "tiny").rmdir()
    assert succeed("--model", "tiny", "--out", tmp_path / "m", "--resume") == metrics


def test_questions_about_a_passage_stay_together():
    train = Dataset.from_dict({"context": [f"passage {i // 5}" for i in range(50)], "question": [str(i) for i in range(50)]})
    parts = hold_out(train, 0, "f")
    assert len(parts["dev"]) == 5 and len(parts["train"]) == 45 and not {*parts["dev"]["context"]} & {*parts["train"]["context"]}
    assert hold_out(train, 0, "f")["dev"][:] == parts["dev"][:] != hold_out(train, 2, "f")["dev"][:]
    for n in (2, 3, 9, 11, 26, 100):
        rows = Dataset.from_dict({"sentence": [str(i) for i in range(n)]})
        parts = hold_out(rows, 3, "f")
        assert sorted([*parts["dev"]["sentence"], *parts["train"]["sentence"]], key=int) == rows["sentence"][:]
        assert len(parts["dev"]) == max(1, round(n / 10))


def test_every_class_gives_its_share():
    counts = {0: 900, 1: 90, 2: 10, 3: 1}
    labels = [label for label, n in counts.items() for _ in range(n)]
    rows = Dataset.from_dict({"sentence": [str(i) for i in range(len(labels))], "label": labels})
    for seed in range(5):
        held = Counter(hold_out(rows, seed, "f")["dev"]["label"])
        assert held.total() == 100 and held[3] == 0 and all(abs(held[label] - n / 10) <= 1 for label, n in counts.items()), held
    numbers = Dataset.from_dict({"sentence": [str(i) for i in range(1000)], "label": [i / 100 for i in range(1000)]})
    held = hold_out(numbers, 0, "f")["dev"]["label"]
    assert all(9 <= sum(low <= label < low + 1 for label in held) <= 11 for low in range(10))


def test_the_same_input_is_never_on_both_sides():
    rows = Dataset.from_dict({"sentence1": [str(i % 20) for i in range(200)], "sentence2": ["x"] * 200, "label": [i % 2 for i in range(200)]})
    parts = hold_out(rows, 0, "f")
    assert len(parts["dev"]) == 20 and not {*parts["dev"]["sentence1"]} & {*parts["train"]["sentence1"]}
    words = Dataset.from_dict({"tokens": [[str(i % 20)] for i in range(200)], "ner_tags": [[0]] * 200})
    parts = hold_out(words, 0, "f")
    assert not {*map(tuple, parts["dev"]["tokens"])} & {*map(tuple, parts["train"]["tokens"])}


def test_chinese_is_noticed(tmp_path):
    (tmp_path / "t.jsonl").write_text(text_of("polarity", list(examples("polarity", 24, lang="zh"))), encoding="utf-8")
    argv = ["--task", "classification", "--train", tmp_path / "t.jsonl", *FAST]
    assert succeed(*argv, "--out", tmp_path / "a")["lang"] == "zh"
    assert succeed(*argv, "--out", tmp_path / "b", "--lang", "en")["lang"] == "en"


# --- settings -----------------------------------------------------------------------------------------------------

def test_learning_rate_by_width():
    assert [learning_rate(width) for width in (64, 128, 312, 768, 1024, 4096)] == [1e-3, 1e-3, 2.3e-4, 5e-5, 3.1e-5, 2e-5]


@pytest.mark.parametrize("more", [["--llrd", 0.5], ["--reinit", 2], ["--adversarial", "fgm"], ["--adversarial", "pgd"],
                                  ["--dropout", 0.3], ["--precision", "bf16"], ["--lr", 1e-4], ["--warmup", 2], ["--weight-decay", 1],
                                  ["--max-length", 9]], ids=lambda more: f"{more[0]} {more[1]}")
def test_settings_matter(runs, data, tmp_path, more):
    metrics = succeed(*data["pairs"], *FAST, *more, "--out", tmp_path / "m")
    name = more[0][2:].replace("-", "_")
    assert metrics["settings"][name] == more[1]
    assert weights(tmp_path / "m") != weights(runs["pairs"][0])


def test_the_best_weights_are_kept_with_patience(data, tmp_path):
    metrics = succeed(*data["pairs"], "--model", "tiny", "--epochs", 9, "--batch-size", 20, "--patience", 1, "--out", tmp_path / "m",
                      "--quiet")
    rows = [row for row in map(json.loads, (tmp_path / "m/history.jsonl").read_text().splitlines()) if "dev" in row]
    best = max(rows, key=lambda row: row["dev"]["accuracy"])
    assert metrics["steps"] < 18 and metrics["best_step"] == best["step"] and metrics["dev"] == best["dev"]


def test_length_is_chosen_or_given(tmp_path):
    sentences = [f"the dog is {'very ' * (40 if i == 7 else 2)}happy\t{'ab'[i % 2]}" for i in range(30)]
    (tmp_path / "t.tsv").write_text("sentence\tlabel\n" + "\n".join(sentences) + "\n")
    argv = ["--task", "classification", "--train", tmp_path / "t.tsv", "--dev", tmp_path / "t2.tsv", *FAST[:-1]]
    (tmp_path / "t2.tsv").write_text("sentence\tlabel\nthe dog\ta\nthe cat\tb\n")
    code, _, err = call(*argv, "--out", tmp_path / "a", "--max-length", 16)
    assert code == 0 and "length 16 tokens: 3.3% of the texts are longer and cut" in err
    assert json.loads((tmp_path / "a/bertcourse.json").read_text())["max_length"] == 16
    assert succeed(*argv, "--out", tmp_path / "b")["max_length"] == 48


def test_columns_of_ones_own(tmp_path):
    (tmp_path / "t.csv").write_text("stars,review\n" + "".join(f"{i % 2},the dog number {i} is happy\n" for i in range(20)))
    argv = ["--task", "classification", "--train", tmp_path / "t.csv", *FAST, "--out", tmp_path / "m", "--columns"]
    metrics = succeed(*argv, "sentence=review,label=stars")
    assert metrics["labels"] == ["0", "1"] and metrics["settings"]["columns"] == {"sentence": "review", "label": "stars"}
    assert json.loads((tmp_path / "m/bertcourse.json").read_text())["columns"] == {"sentence": "review", "label": "stars"}


# --- heads --------------------------------------------------------------------------------------------------------

def test_the_head_of_another_task_is_replaced(runs, data, tmp_path):
    for base, task in [("pairs", "qa"), ("qa", "classification"), ("regression", "classification"), ("pairs", "regression"),
                       ("pairs", "ner")]:
        argv = [*data[task], "--model", runs[base][0], "--steps", 2, "--batch-size", 8, "--out", tmp_path / f"{base}-{task}"]
        code, _, err = call(*argv)
        assert code == 0 and "newly initialised: " in err, err
        assert f"in place of the head of {type_of(runs[base][0])}" in err
        assert type_of(tmp_path / f"{base}-{task}") == type_of(runs[task][0])


def type_of(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["architectures"][0]


def test_a_head_for_the_same_labels_goes_on(runs, data, tmp_path):
    argv = ["--model", runs["pairs"][0], "--steps", 1, "--lr", 1e-12, "--out"]
    code, _, err = call(*data["pairs"], *argv, tmp_path / "same")
    assert code == 0 and "the head (classifier) goes on from the checkpoint's" in err
    before, after = (transformers.AutoModelForSequenceClassification.from_pretrained(folder).classifier.weight
                     for folder in (runs["pairs"][0], tmp_path / "same"))
    assert torch.allclose(before, after, atol=1e-6)
    other = tmp_path / "other.jsonl"  # as many labels, which mean something else
    other.write_text(file_of(data["pairs"], "--train").read_text(encoding="utf-8").replace("entailment", "yes"), encoding="utf-8")
    code, _, err = call("--task", "pairs", "--train", other, *argv, tmp_path / "new")
    assert code == 0 and "newly initialised: classifier" in err
    after = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "new").classifier.weight
    assert not torch.allclose(before, after, atol=1e-3)


# --- what is refused ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("argv, says", [
    ([], "--out"), (["--out", "m"], "--task, --train, --model must be given"), (["--out", "m", "stray"], "stray"),
    (["--out", "m", "--task", "chat"], "--task"), (["--out", "m", "--nonsense"], "--nonsense"),
    (["--out", "m", "--epochs", "3", "--steps", "4"], "--epochs"),
    *[(["--out", "m", option, value], option) for option, value in [
        ("--steps", "0"), ("--epochs", "0"), ("--epochs", "-1"), ("--epochs", "1.5"), ("--batch-size", "0"), ("--lr", "0"), ("--lr", "-1"),
        ("--lr", "nan"), ("--lr", "fast"), ("--max-length", "7"), ("--max-length", "long"), ("--warmup", "-1"), ("--weight-decay", "-1"),
        ("--patience", "0"), ("--seed", "-1"), ("--llrd", "0"), ("--llrd", "1.5"), ("--reinit", "-1"), ("--adversarial", "fool"),
        ("--dropout", "1"), ("--dropout", "-0.1"), ("--precision", "fp16"), ("--lang", "fr"), ("--columns", "sentence"),
        ("--columns", "a=b,a=c"), ("--columns", "a="), ("--columns", "")]],
    (["--out", "m", "--resume"], "there is no run in m to go on with"),
    (["--out", "m", "--task", "pairs", "--train", "absent.tsv", "--model", "tiny"], "absent.tsv is not there"),
    (["--out", "m", "--task", "pairs", "--train", ".", "--model", "tiny"], "is a folder"),
    (["--out", "m", "--task", "pairs", "--train", "-", "--model", "tiny"], "read only once"),
    (["--out", "m", "--task", "pairs", "--train", "t.tsv", "--dev", "./t.tsv", "--model", "tiny"], "is given twice"),
    (["--out", "m", "--task", "pairs", "--train", "t.tsv", "--model", "tiny", "--seed", "4294967296"], "--seed"),
])
def test_arguments_that_are_refused(tmp_path, monkeypatch, argv, says):
    monkeypatch.chdir(tmp_path)
    Path("t.tsv").write_text("sentence1\tsentence2\tlabel\na\tb\t0\nb\tc\t1\nd\te\t1\n")
    refused(says, *argv, left=tmp_path / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"t.tsv"}


TABLE = "sentence\tlabel\nthe dog is happy\tup\nthe cat is sad\tdown\n"
CONTENTS = [  # task, name, training file, more options, what the sentence says
    ("classification", "t.tsv", TABLE, ["--columns", "sentence=review"], "review"),
    ("classification", "t.tsv", TABLE.replace("sentence", "words"), [], "sentence"),
    ("classification", "t.tsv", TABLE.replace("down", "up"), [], "every label is 'up'"),
    ("regression", "t.tsv", TABLE.replace("down", "3").replace("up", "3"), [], "every label in t.tsv is 3"),
    ("classification", "t.tsv", "", [], "t.tsv"),
    ("classification", "t.tsv", "sentence\tlabel\n", [], "t.tsv"),
    ("classification", "t.tsv", TABLE.encode() + "Zoë and the ".encode() + b"\xff\tup\n", [], "line 4"),
    ("ner", "t.conll", "the O\ndog O\n\na O\n", [], "every label is 'O'"),
    ("ner", "t.jsonl", '{"tokens": ["a", "b"], "ner_tags": ["O", "B-PER"]}\n{"tokens": ["a"], "ner_tags": ["O", "O"]}\n', [], "line 2"),
    ("qa", "t.jsonl", '{"question": "who", "context": "the dog", "answers": {"text": [], "answer_start": []}}\n' * 3, [], "has an answer"),
]


@pytest.mark.parametrize("task, name, content, more, says", CONTENTS)
def test_files_that_are_refused(tmp_path, monkeypatch, task, name, content, more, says):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    in_both_languages(monkeypatch, says, "--task", task, "--train", tmp_path / name, *FAST, *more, "--out", tmp_path / "m",
                      left=tmp_path / "m")


def test_a_label_that_training_never_saw(tmp_path, monkeypatch):
    (tmp_path / "t.tsv").write_text(TABLE)
    (tmp_path / "d.tsv").write_text(TABLE + "the sun is warm\tsideways\n")
    in_both_languages(monkeypatch, "sideways", "--task", "classification", "--train", tmp_path / "t.tsv", "--dev", tmp_path / "d.tsv",
                      *FAST, "--out", tmp_path / "m", left=tmp_path / "m")


def test_answers_that_are_not_where_they_should_be(data, tmp_path):
    content = json.loads(file_of(data["qa"], "--train").read_text(encoding="utf-8"))
    pairs = [(paragraph, qa) for paragraph in content["data"][0]["paragraphs"] for qa in paragraph["qas"] if qa["answers"]]
    for _, qa in pairs[:3]:
        qa["answers"][0]["text"] = "nowhere to be found"
    paragraph, qa = next((p, qa) for p, qa in pairs[3:] if p["context"].count(qa["answers"][0]["text"]) == 1)
    qa["answers"][0]["answer_start"] += 1
    (tmp_path / "t.json").write_text(json.dumps(content))
    code, _, err = call("--task", "qa", "--train", tmp_path / "t.json", *FAST[:-1], "--out", tmp_path / "m")
    assert code == 0 and "1 answer moved" in err and "3 skipped" in err
    found = json.loads((tmp_path / "m/metrics.json").read_text())["data"]
    assert sum(found["rows"].values()) == 37 and found["skipped"] == {"train": 3} and found["moved"] == {"train": 1}
    assert "skipped: 3；" in (tmp_path / "m/README.md").read_text(encoding="utf-8")


def test_models_that_are_refused(data, tmp_path, monkeypatch):
    argv = [*data["pairs"], "--steps", 2, "--quiet", "--out", tmp_path / "m"]
    (tmp_path / "empty").mkdir()
    for says, *more in [("there is no profile or folder nowhere", "--model", "nowhere"), ("config.json", "--model", tmp_path / "empty"),
                        ("--max-length 129 is more than the 128 positions", "--model", "tiny", "--max-length", 129),
                        ("more than the 4 layers", "--model", "tiny", "--reinit", 5),
                        ("--warmup 2 leaves nothing of 2 steps", "--model", "tiny", "--warmup", 2)]:
        in_both_languages(monkeypatch, says, *argv, *more, left=tmp_path / "m")


def test_folders_that_are_refused(data, tmp_path, monkeypatch):
    argv = [*data["pairs"], *FAST, "--out"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, says in [("full", "is not empty"), ("file", "is a file"), ("file/m", "is a file, no folder can be made in it")]:
        in_both_languages(monkeypatch, says, *argv, tmp_path / out)
    refused("is not empty", *argv, asset("tiny-bert"), "--resume")  # of `bertcourse pretrain`
    monkeypatch.setattr(run_folder.os, "access", lambda *_: False)
    in_both_languages(monkeypatch, "cannot be written to", *argv, tmp_path / "new", left=tmp_path / "new")


def test_divergence_leaves_nothing_and_advises(data, tmp_path, monkeypatch):
    in_both_languages(monkeypatch, "training diverged (step", *only_train(data["regression"]), "--model", "tiny", "--epochs", 4,
                      "--quiet", "--batch-size", 40, "--warmup", 0, "--lr", 1e30, "--out", tmp_path / "m", left=None)
    refused("", *only_train(data["regression"]), *FAST, "--warmup", 0, "--lr", 1e38, "--out", tmp_path / "n", left=tmp_path / "n")


def test_nothing_heavy_is_imported_to_refuse(data, tmp_path):
    code = f"""import sys
from bertcourse.app import cli
for argv in (["--out", "m"], ["--out", "m", "--task", "qa", "--train", "absent", "--model", "tiny"], ["--out", {str(tmp_path.parent)!r},
             "--task", "qa", "--train", {str(file_of(data["qa"], "--train"))!r}, "--model", "tiny"]):
    assert cli.main(["finetune", *argv]) == 2
print([name for name in ("torch", "transformers", "matplotlib", "datasets") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n" and len(done.stderr.splitlines()) == 3


# --- stopped and resumed ------------------------------------------------------------------------------------------

LONG = ["--model", "tiny", "--epochs", "3", "--batch-size", "8", "--precision", "no", "--quiet"]  # 15 steps, saved at each


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "m"
    succeed(*data["pairs"], *LONG, "--out", out)
    return out


def interrupt_at(step: int, patch) -> None:
    """Send SIGINT when a step has been done."""
    genuine = bertcourse.training.State.record

    def record(self, due):
        genuine(self, due)
        if self.step == step:
            signal.raise_signal(signal.SIGINT)
    patch.setattr(bertcourse.training.State, "record", record)


def test_ctrl_c_and_resume(data, tmp_path, monkeypatch, whole):
    out = tmp_path / "m"
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        code, printed, err = call(*data["pairs"], *LONG, "--out", out, "--json")
    assert code == 130 and err == f"bertcourse: stopped at step 7; to go on: bertcourse finetune --out {out} --resume\n"
    assert json.loads(printed) == {"out": str(out), "finished": False, "step": 7}
    assert {path.name for path in out.iterdir()} == {"unfinished"}
    refused("holds an unfinished run: go on with it by --resume", *data["pairs"], *LONG, "--out", out)
    other_settings(out, data)
    assert succeed("--out", out, "--resume", "--quiet")["steps"] == 15
    assert weights(out) == weights(whole) and {path.name for path in out.iterdir()} == FILES


def other_settings(out: Path, data) -> None:
    """Check that a run is not gone on with as another."""
    changed = out.parent / "pairs-dev.jsonl"
    changed.write_text(file_of(data["pairs"], "--dev").read_text(encoding="utf-8").replace("the", "a", 1), encoding="utf-8")
    for says, more in [("another --seed (0, not 5)", ["--seed", 5]), ("another --lr (auto, not 0.1)", ["--lr", 0.1]),
                       ("another --steps", ["--steps", 15]), ("another --task (pairs, not qa)", ["--task", "qa"]),
                       ("another --model", ["--model", "base"]), ("another --adversarial", ["--adversarial", "fgm"]),
                       ("pairs-dev.jsonl is not the file of the run", ["--dev", changed]),
                       ("another --max-length", ["--max-length", 8])]:
        refused(says, "--out", out, "--resume", "--quiet", *more)


def test_a_finished_folder_is_not_touched(whole, data):
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in whole.iterdir()}
    refused("is not empty", *data["pairs"], *LONG, "--out", whole)
    assert succeed("--out", whole, "--resume") == succeed(*data["pairs"], *LONG, "--out", whole, "--resume")
    other_settings(whole, data)
    assert before == {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in whole.iterdir()}


def test_files_that_changed_before_the_resumption(data, tmp_path, monkeypatch):
    file = tmp_path / "t.jsonl"
    shutil.copy(file_of(data["pairs"], "--train"), file)
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        assert call("--task", "nli", "--train", file, *LONG, "--out", tmp_path / "m")[0] == 130
    file.write_text(file.read_text(encoding="utf-8") + file.read_text(encoding="utf-8")[:1], encoding="utf-8")
    in_both_languages(monkeypatch, "t.jsonl is not the file of the run", "--out", tmp_path / "m", "--resume", "--quiet")
    file.unlink()
    refused("t.jsonl is not the file of the run", "--out", tmp_path / "m", "--resume", "--quiet")
    (tmp_path / "m/unfinished/run.json").write_text("{}")
    refused("does not say what the run was", "--out", tmp_path / "m", "--resume", "--quiet")


def test_stopped_while_the_folder_is_put_together(data, tmp_path, monkeypatch, whole):
    genuine = os.replace

    def replace(source, target):
        if Path(target) == tmp_path / "m" / "metrics.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        genuine(source, target)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        refused("No space left on device; ", *data["pairs"], *LONG, "--out", tmp_path / "m")
    assert (tmp_path / "m/model.safetensors").exists() and not (tmp_path / "m/metrics.json").exists()
    refused("holds an unfinished run", *data["pairs"], *LONG, "--out", tmp_path / "m")
    succeed("--out", tmp_path / "m", "--resume", "--quiet")
    assert weights(tmp_path / "m") == weights(whole) and {path.name for path in (tmp_path / "m").iterdir()} == FILES


@contextlib.contextmanager
def files_of_at_most(size: int):
    """Larger ones cannot be written, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("writer", ["save_checkpoint", "save_weights"])  # by torch, by safetensors
def test_a_full_disk(runs, data, tmp_path, monkeypatch, writer):
    """Both libraries have exceptions of their own for it, with none of the system's behind them."""
    genuine, out = getattr(bertcourse.training, writer), tmp_path / "m"

    def write(*args):
        with files_of_at_most(1 << 20):
            genuine(*args)
    monkeypatch.setattr(bertcourse.training, writer, write)
    if writer == "save_checkpoint":
        in_both_languages(monkeypatch, "nothing was written: fix this", *data["pairs"], *FAST, "--out", out, left=out)
        return
    refused(f"{out} holds the run up to step 3: fix this, then go on by --resume", *data["pairs"], *FAST, "--out", out)
    monkeypatch.setattr(bertcourse.training, writer, genuine)
    succeed("--out", out, "--resume", "--quiet")
    assert weights(out) == weights(runs["pairs"][0])


@pytest.mark.parametrize("moment", ["reading", "the first evaluation", "a later evaluation", "the test set"])
def test_termination_at_once_where_no_step_is_done(data, tmp_path, monkeypatch, whole, moment):
    """An evaluation of a large file takes many minutes: nobody waits for its end."""
    calls, out = [], tmp_path / "m"

    def stop_at(number: int, genuine):
        def replaced(*args, **kw):
            calls.append(moment)
            if len(calls) == number:
                signal.raise_signal(signal.SIGTERM)
                pytest.fail("went on after SIGTERM")
            return genuine(*args, **kw)
        return replaced

    with monkeypatch.context() as patch:
        if moment == "reading":
            patch.setattr("bertcourse.files.read_all", stop_at(1, None))
        elif moment == "the test set":
            patch.setattr(finetuning, "score_kept_weights", stop_at(1, None))
        else:
            patch.setattr(bertcourse.training, "_evaluate", stop_at(1 if "first" in moment else 2, bertcourse.training._evaluate))
        code, _, err = call(*data["pairs"], *LONG, "--out", out)
    assert code == 130 and ("nothing was written" in err) == (moment == "reading"), err
    if moment == "reading":
        assert not out.exists()
        return
    succeed("--out", out, "--resume", "--quiet")
    assert weights(out) == weights(whole) and {path.name for path in out.iterdir()} == FILES


def test_ctrl_c_before_training(data, tmp_path, monkeypatch):
    def stop(*_):
        signal.raise_signal(signal.SIGINT)
    monkeypatch.setattr(finetuning, "prepare", stop)
    code, _, err = call(*data["pairs"], *LONG, "--out", tmp_path / "new" / "m")
    assert code == 130 and "nothing was written" in err and not (tmp_path / "new").exists()
