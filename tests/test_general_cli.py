"""`bertcourse distill --method general`: layers learnt from text, and a folder from which the distillation of a task goes on."""

import json
from pathlib import Path

import commands
import pytest
import torch
from commands import HAN, weights
from test_distill_cli import call, load_json, refused, succeed
from test_finetune import FINETUNE, interrupt_at
from transformers import AutoModel

from bertcourse import corpus
from bertcourse.jobs import general
from bertcourse.jobs.student import PROJECTIONS, load_projections

STUDENT = '{"num_hidden_layers": 2, "hidden_size": 40, "intermediate_size": 80}'
START = ["--method", "general", "--teacher", "tiny", "--student", STUDENT]
FAST = ["--steps", "6", "--batch-size", "8", "--precision", "no", "--quiet"]


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join("\n".join(document) for document in corpus.texts(60, lang="en", split="train")))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory, text) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("general") / "student"
    return out, succeed(*START, "--train", text, *FAST, "--out", out)


def test_the_folder(finished):
    out, metrics = finished
    assert {file.name for file in out.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json", "projections.safetensors",
                                                     "metrics.json", "history.jsonl", "curves.png", "README.md"}
    assert {name: value for name, value in metrics.items() if name != "out"} == load_json(out / "metrics.json")
    assert not (out / "unfinished").exists()
    assert all(metrics["after"][term] < metrics["before"][term] for term in general.TERMS), "six steps are enough for less loss"
    model = AutoModel.from_pretrained(out)
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"]["student"] and metrics["layers"] == [2, 4]
    card = (out / "README.md").read_text()
    assert f"{metrics['parameters']['teacher']:,}" in card and str(out.parent) not in card


def test_the_toy_world_without_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(general, "DOCUMENTS", 40)
    metrics = succeed(*START, *FAST, "--out", tmp_path / "g")
    assert metrics["files"] == [] and metrics["passages"]["train"] > 20


def test_an_interrupted_run_ends_in_the_same_weights(finished, tmp_path, text, monkeypatch):
    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        interrupt_at(3, patch)
        assert call(*START, "--train", text, *FAST, "--out", out)[0] == 130
    assert (out / "unfinished" / "run.json").exists() and not (out / "metrics.json").exists()
    succeed("--out", out, "--resume", "--quiet")
    assert weights(out) == weights(finished[0])
    assert (out / PROJECTIONS).read_bytes() == (finished[0] / PROJECTIONS).read_bytes()
    again = succeed("--out", out, "--resume")  # a finished run only reports
    assert again["steps"] == 6


def test_projections_go_on(finished):
    from bertcourse.distillation import new_model
    from bertcourse.profiles import load
    from bertcourse.tinybert import Intermediate
    teacher, config = load("tiny").model(AutoModel), AutoModel.from_pretrained(finished[0]).config
    learner = Intermediate(new_model(config)(AutoModel), teacher)
    before = learner.project_hidden.weight.clone()
    assert load_projections(learner, str(finished[0])) and not torch.equal(learner.project_hidden.weight, before)
    config.hidden_size = 44
    assert not load_projections(Intermediate(new_model(config)(AutoModel), teacher), str(finished[0]))
    assert not load_projections(learner, str(finished[0].parent))


def test_the_task_goes_on_from_it(finished, tmp_path):
    train = tmp_path / "train.tsv"
    train.write_text("sentence\tlabel\n" + "".join(f"The film was {word}\t{word}\n" for word in ("good", "bad") * 12))
    FINETUNE.succeed("--task", "classification", "--train", train, "--model", "tiny", "--steps", "2", "--quiet", "--out", tmp_path / "teacher")
    metrics = succeed("--teacher", tmp_path / "teacher", "--student", finished[0], "--train", train, "--method", "tinybert", "--steps", "2",
                      "--quiet", "--out", tmp_path / "student")  # fmt: skip
    assert metrics["beginning"].startswith("starts from its checkpoint") and set(metrics["stages"]) == {"intermediate", "prediction"}


@pytest.mark.parametrize("argv, says", [
    (["--alpha", "0.5"], "--alpha is not for --method general"),
    (["--dev", __file__], "--dev is not for --method general"),
    (["--train", "nowhere.txt"], "nowhere.txt is not there"),
    (["--teacher", "nowhere"], "there is no folder nowhere"),
    (["--teacher", "ann/bert"], "--train must be given"),
    (["--student", "tiny"], "starts from random weights"),
    (["--student", '{"num_hidden_layers": 3}'], "cannot be spread evenly"),
    (["--student", '{"num_attention_heads": 2}'], "compares head by head"),
    (["--student", '{"hidden": 3}'], "has no setting"),
    (["--student", "bertcourse:tinybert-4"], "compares head by head"),
])  # fmt: skip
def test_refusals(tmp_path, argv, says, monkeypatch):
    out = tmp_path / "out"
    refused(says, *START, *argv, "--quiet", "--out", out, left=out)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert HAN.search(refused("", *START, *argv, "--quiet", "--out", out, left=out))


def test_other_settings_on_resuming(finished):
    refused("has another --seed (0, not 1)", "--out", finished[0], "--resume", "--seed", "1")
    assert json.loads((finished[0] / "metrics.json").read_text())["seed"] == 0
