"""`bertcourse predict`: JSON lines out for lines in, in order, and one sentence for whatever stands in the way."""

import contextlib
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import commands
import pytest
import torch
import transformers
from commands import HAN

from bertcourse.app import predict
from bertcourse.assets import asset
from bertcourse.corpus_tasks import examples

SENTENCES = ["my dog is hairy", "the film is very good", "Anna likes the red house in Paris", "no"] * 3
GRADES, RELATIONS = ["down", "up"], ["no", "perhaps", "yes"]
TAGS = ["O", "B-LOC", "B-PER", "I-LOC", "I-PER"]


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


def call(*argv: object, stdin: str | bytes = b"") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `bertcourse predict ARGV`."""
    return commands.run("predict", *argv, stdin=stdin)


def said(*argv: object, stdin: str | bytes = b"") -> list[dict]:
    """What is printed."""
    code, out, err = call(*argv, stdin=stdin)
    assert code == 0 and not err, err
    return [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]


def refused(says: str, *argv: object, stdin: str | bytes = b"") -> str:
    code, out, err = call(*argv, stdin=stdin)
    assert code == 2 and says in err and len(err.splitlines()) == 1 and err.startswith("bertcourse"), err
    return err


def in_both_languages(monkeypatch, says: str, *argv: object, stdin: str | bytes = b"") -> None:
    assert not HAN.search(refused(says, *argv, stdin=stdin))
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert HAN.search(refused("", *argv, stdin=stdin))
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")


def fine_tuned(folder: Path, kind: str, auto_class: type, labels: list[str], inputs: list[str], **about: object) -> Path:
    """A folder as `bertcourse finetune` makes it, with a head that knows nothing."""
    torch.manual_seed(0)
    names = dict(enumerate(labels))
    more = {"num_labels": 1, "problem_type": "regression"} if kind == "regression" else \
        {"id2label": names, "label2id": {name: i for i, name in names.items()}} if labels else {}
    model = auto_class.from_pretrained(asset("tiny-bert"), **more)
    head = model.qa_outputs if kind == "qa" else model.classifier
    torch.nn.init.normal_(head.weight, std=0.5)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(asset("tiny-bert") / name, folder)
    (folder / "bertcourse.json").write_text(json.dumps({
        "task": kind, "labels": labels, "max_length": 48, "lang": "en", "threshold": None, "columns": {}, "inputs": inputs} | about))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    classes, tokens, spans = (getattr(transformers, f"AutoModelFor{head}") for head in
                              ("SequenceClassification", "TokenClassification", "QuestionAnswering"))
    pair = ["sentence1", "sentence2"]
    return {
        "classification": fine_tuned(folder / "c", "classification", classes, GRADES, ["sentence"], columns={"sentence": "review"}),
        "pairs": fine_tuned(folder / "p", "pairs", classes, RELATIONS, pair),
        "regression": fine_tuned(folder / "r", "regression", classes, [], pair),
        "ner": fine_tuned(folder / "n", "ner", tokens, TAGS, ["tokens"]),
        "qa": fine_tuned(folder / "q", "qa", spans, [], ["question", "context"], threshold=-100.0),
    }


def json_lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def inputs(task: str, n: int, *columns: str) -> list[dict]:
    return [{name: row[name] for name in columns} for row in examples(task, n, split="test")]


# --- each task ----------------------------------------------------------------------------------------------------

def test_classes_of_lines(models):
    rows = said(models["classification"], stdin="\n".join(SENTENCES) + "\n")
    assert len(rows) == 12 and rows[:4] == rows[4:8] == rows[8:] and all(row.keys() == {"label", "probability"} for row in rows)
    assert {row["label"] for row in rows} <= set(GRADES) and all(0.5 <= row["probability"] <= 1 for row in rows)
    assert len({row["probability"] for row in rows}) == 4


def test_scores_and_ids(models):
    rows = [{"id": f"n{i}", "review": s} for i, s in enumerate(SENTENCES)]
    rows = said(models["classification"], "--scores", stdin=json_lines(rows))
    assert [row["id"] for row in rows] == [f"n{i}" for i in range(12)]
    for row in rows:
        assert list(row["scores"]) == GRADES and sum(row["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert row["scores"][row["label"]] == row["probability"] == max(row["scores"].values())


def test_what_is_printed_is_what_the_model_says(models):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(models["pairs"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["pairs"])
    rows = inputs("nli", 5, "sentence1", "sentence2")
    found = said(models["pairs"], "--batch-size", 2, "--scores", stdin=json_lines(rows))
    for row, prediction in zip(rows, found, strict=True):
        with torch.no_grad():
            p = model(**tokenizer(row["sentence1"], row["sentence2"], return_tensors="pt")).logits.softmax(-1)[0]
        assert list(prediction["scores"].values()) == pytest.approx(p.tolist(), abs=1e-5)
        assert prediction["label"] == RELATIONS[int(p.argmax())]


def test_pairs_with_a_tab(models):
    rows = inputs("nli", 5, "sentence1", "sentence2")
    tabs = "".join(f"{row['sentence1']}\t{row['sentence2']}\n" for row in rows)
    assert said(models["pairs"], stdin=tabs) == said(models["pairs"], stdin=json_lines(rows))
    found = said(models["regression"], stdin=tabs)
    assert all(row.keys() == {"score"} and isinstance(row["score"], float) for row in found) and len(found) == 5


def test_entities_of_lines_and_of_tokens(models):
    line = "Anna  lives in New York, near Tom."
    row, = said(models["ner"], stdin=line + "\n")
    assert row.keys() == {"tags", "spans"} and row["spans"]
    for span in row["spans"]:
        assert span.keys() == {"label", "text", "start", "end", "probability"}
        assert line[span["start"]:span["end"]] == span["text"] and span["label"] in ("PER", "LOC") and 0 < span["probability"] <= 1
    tokens = ["Anna", "lives", "in", "New", "York", ",", "near", "Tom", "."]
    same, = said(models["ner"], stdin=json.dumps({"id": 7, "tokens": tokens}))
    assert same["id"] == 7 and same["tags"] == row["tags"]
    for span in same["spans"]:
        assert span["text"] == " ".join(tokens[span["start"]:span["end"]])


def test_entities_of_a_chinese_line(models):
    line = "安娜住在巴黎，喜欢 Tom。"
    row, = said(models["ner"], stdin=line)
    assert all(line[span["start"]:span["end"]] == span["text"] for span in row["spans"])


@pytest.mark.parametrize("line, tokens", [
    ("Anna Smith's 3.5 well-known films.", ["Anna", "Smith", "'", "s", "3.5", "well-known", "films", "."]),
    ("  我住在New York，真的。 ", ["我", "住", "在", "New", "York", "，", "真", "的", "。"]),
    ("a\u3000b\t–c…", ["a", "b", "–", "c", "…"]),
])
def test_a_line_is_cut_into_words(line, tokens):
    row = predict.cut(line)
    assert row["tokens"] == tokens == [line[a:b] for a, b in row["offsets"]]


def test_answers(models, tmp_path):
    rows = inputs("qa", 6, "id", "question", "context")
    found = said(models["qa"], stdin=json_lines(rows))
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    for row, prediction in zip(rows, found, strict=True):
        assert prediction.keys() == {"id", "answer", "start", "end", "probability"}
        assert prediction["answer"] and row["context"][prediction["start"]:prediction["end"]] == prediction["answer"]
    shutil.copytree(models["qa"], tmp_path / "strict")  # the threshold of the folder counts
    about = json.loads((tmp_path / "strict/bertcourse.json").read_text())
    (tmp_path / "strict/bertcourse.json").write_text(json.dumps(about | {"threshold": 1e9}))
    for prediction in said(tmp_path / "strict", stdin=json_lines(rows)):
        assert prediction["answer"] == "" and prediction["start"] is None and prediction["end"] is None


# --- files and pipes ----------------------------------------------------------------------------------------------

def test_the_batch_size_does_not_matter(models):
    stdin = "\n".join(SENTENCES)
    found = [said(models["classification"], "-", "--batch-size", n, stdin=stdin) for n in (1, 5, 100)]
    for other in found[1:]:
        assert [row["label"] for row in other] == [row["label"] for row in found[0]]
        assert [row["probability"] for row in other] == pytest.approx([row["probability"] for row in found[0]], abs=2e-6)


def test_a_file_to_a_file(models, tmp_path):
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(SENTENCES).encode())
    assert call(models["classification"], tmp_path / "in.txt", "--out", tmp_path / "out.jsonl") == (0, "", "")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found == said(models["classification"], stdin="\n".join(SENTENCES))
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "out.jsonl"}


def test_names_that_the_training_file_had(models):
    """The folder's columns are those of JSON that has them; ours do as well, and lines need none."""
    found = [said(models["classification"], stdin=stdin) for stdin in ("my dog\n", '{"review": "my dog"}', '{"sentence": "my dog"}')]
    assert found[0] == found[1] == found[2]


def test_a_long_line_and_blank_lines(models):
    text = "my dog " * 20_000
    assert len(said(models["classification"], stdin=f"\n{text}\n \n\nno\n")) == 2
    assert len(said(models["classification"], stdin=json_lines([{"review": text}]))) == 1


def test_packed_files(models, tmp_path, monkeypatch):
    content = gzip.compress(("\n".join(SENTENCES) + "\n").encode())
    (tmp_path / "in.txt.gz").write_bytes(content)
    assert len(said(models["classification"], tmp_path / "in.txt.gz")) == 12
    (tmp_path / "in.txt.gz").write_bytes(content[:-12])
    in_both_languages(monkeypatch, "in.txt.gz is damaged", models["classification"], tmp_path / "in.txt.gz")


def test_nothing_in_nothing_out(models, monkeypatch, tmp_path):
    assert said(models["classification"], stdin="") == []
    (tmp_path / "empty.txt").write_text("")
    in_both_languages(monkeypatch, "empty.txt is empty", models["classification"], tmp_path / "empty.txt")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_who_types_a_line_gets_its_answer_at_once(models):
    here, there = os.openpty()
    env = os.environ | {"OMP_NUM_THREADS": "1", "LC_ALL": "en_US.UTF-8"}
    command = [sys.executable, "-m", "bertcourse.app.cli", "predict", str(models["ner"])]
    with subprocess.Popen(command, stdin=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        for _ in range(2):
            os.write(here, b"Anna saw Ben .\n")
            assert len(json.loads(process.stdout.readline())["tags"]) == 4  # and nobody has said that it was the last
        os.write(here, b"\x04")
        assert process.wait(60) == 0
    os.close(here)
    os.close(there)


def test_a_batch_is_written_before_the_next_is_read(models):
    env = os.environ | {"LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bertcourse.app.cli", "predict", str(models["classification"]), "--batch-size", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        process.stdin.write("my dog is hairy\n我的狗\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) and json.loads(process.stdout.readline())
        process.stdout.close()  # the reader has seen enough
        process.stdin.write(b"one\ntwo\n" * 1_000)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        assert process.wait(timeout=60) == 0 and process.stderr.read() == b""


# --- folders of others --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["classification", "regression", "ner", "qa"])
def test_without_a_word_of_ours(models, tmp_path, kind):
    folder = tmp_path / "m"
    shutil.copytree(models[kind], folder)
    (folder / "bertcourse.json").unlink()
    stdin = {"classification": "my dog is hairy\n", "regression": "a dog\ta cat\n", "ner": '{"tokens": ["Anna", "lives"]}',
             "qa": '{"question": "who", "context": "Anna lives in Paris"}'}[kind]
    row, = said(folder, stdin=stdin)
    assert {"classification": "label", "regression": "score", "ner": "tags", "qa": "answer"}[kind] in row


def test_models_that_are_refused(models, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    shutil.copytree(models["ner"], tmp_path / "mixed")
    shutil.copy(models["qa"] / "bertcourse.json", tmp_path / "mixed")
    shutil.copytree(models["ner"], tmp_path / "headless")
    (tmp_path / "headless/bertcourse.json").unlink()
    encoder = transformers.AutoModel.from_pretrained(asset("tiny-bert"))
    encoder.save_pretrained(tmp_path / "plain")
    for folder in ("headless", "plain"):
        shutil.copy(tmp_path / "plain/model.safetensors", tmp_path / folder / "model.safetensors") if folder == "headless" else \
            [shutil.copy(asset("tiny-bert") / name, tmp_path / folder) for name in ("tokenizer.json", "tokenizer_config.json")]
    for folder, says in [("empty", "config.json"), ("nowhere", "there is no profile or folder"), ("plain", "not fine-tuned"),
                         ("headless", "not fine-tuned"), ("mixed", "says qa, but the model is a BertForTokenClassification")]:
        in_both_languages(monkeypatch, says, tmp_path / folder, stdin="a\n")
    in_both_languages(monkeypatch, "BertForPreTraining, not fine-tuned", "tiny", stdin="a\n")


def test_heads_that_are_refused(models, tmp_path, monkeypatch):
    """Weights that are no numbers, which JSON cannot say; labels that do not exclude each other."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(models["pairs"])
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    for name, config, says in [("nan", {}, "gives nan"), ("several", {"problem_type": "multi_label_classification"}, "several labels")]:
        shutil.copytree(models["pairs"], tmp_path / name)
        if not config:
            model.save_pretrained(tmp_path / name)
        path = tmp_path / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        in_both_languages(monkeypatch, says, tmp_path / name, "--out", tmp_path / "out", stdin="a\tb\n")
    assert {path.name for path in tmp_path.iterdir()} == {"nan", "several"}


# --- what is refused ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, stdin", [
    ("qa", "my dog is hairy\n"), ("pairs", "my dog is hairy\n"),
    ("classification", '{"tokens": ["a"]}\n'), ("pairs", '{"sentence": "a"}\n'), ("ner", '{"question": "a", "context": "b"}\n'),
    ("qa", '{"question": "a"}\n'), ("pairs", '{"sentence1": "a", "sentence2": 3}\n'), ("ner", '{"tokens": []}\n'),
    ("regression", "a\tb\nc\n"), ("classification", '{"review": "a"}\n{"review": \n'), ("qa", '["a", "b"]\n'),
])
def test_input_that_does_not_fit(models, monkeypatch, tmp_path, kind, stdin):
    in_both_languages(monkeypatch, "", models[kind], stdin=stdin)
    refused("", models[kind], "--out", tmp_path / "out", stdin=stdin)
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_no_text(models, monkeypatch, tmp_path):
    content = b"my dog\n" * 40 + b"the \xff\n"
    in_both_languages(monkeypatch, "line 41", models["classification"], stdin=content)
    (tmp_path / "in.txt").write_bytes(content)
    in_both_languages(monkeypatch, "line 41", models["classification"], tmp_path / "in.txt", "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_places_that_are_refused(models, monkeypatch, tmp_path):
    (tmp_path / "in.txt").write_text("a\n")
    model = models["classification"]
    for says, *argv in [("there is no such file", tmp_path / "absent"), ("it is a folder", tmp_path),
                        ("is the input", tmp_path / "in.txt", "--out", tmp_path / "in.txt"),
                        ("is a folder", tmp_path / "in.txt", "--out", tmp_path),
                        ("there is no folder", tmp_path / "in.txt", "--out", tmp_path / "x" / "y")]:
        in_both_languages(monkeypatch, says, model, *argv)
    refused("--batch-size", model, "--batch-size", "0")
    refused("required", )
    monkeypatch.setattr("bertcourse.app.pretrain.os.access", lambda *_: False)
    in_both_languages(monkeypatch, "cannot be written to", model, tmp_path / "in.txt", "--out", tmp_path / "out")
    assert (tmp_path / "in.txt").read_text() == "a\n" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk(models, monkeypatch, tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # bytes that a file may have
    try:
        code, out, err = call(models["pairs"], "--out", tmp_path / "out", stdin="a\tb\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2 and not out and "cannot be written to" in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_only_a_batch_is_held(models):
    """The generator asks for a batch when it has given the one before."""
    asked = []

    def rows():
        for i in range(100):
            asked.append(i)
            yield {"sentence": "a dog"}
    predictor = predict.open_model(str(models["classification"]))
    found = predict.predict(predictor, rows(), "m", 8, False)
    for n in (8, 16, 24):
        assert len(next(found)) == 8 and len(asked) == n
