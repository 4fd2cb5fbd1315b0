"""`bertcourse predict`: JSON lines out for lines in, in order, and one sentence for whatever stands in the way."""

import gzip
import io
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

from bertcourse import jobs
from bertcourse.app import cli
from bertcourse.assets import asset
from bertcourse.base.errors import UserError
from bertcourse.corpus_tasks import examples
from bertcourse.models.answers import cut
from bertcourse.models.checkpoint import open_checkpoint

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


def fine_tuned(folder: Path, kind: str, auto_class: type, labels: list[str], inputs: list[str],
               layers: int | None = None, **about: object) -> Path:
    """A folder as `bertcourse finetune` makes it, with a head that knows nothing; `layers`: only the first ones."""
    torch.manual_seed(0)
    names = dict(enumerate(labels))
    more = {"num_labels": 1, "problem_type": "regression"} if kind == "regression" else \
        {"id2label": names, "label2id": {name: i for i, name in names.items()}} if labels else {}
    if layers is not None:
        more["num_hidden_layers"] = layers
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
    assert row.keys() == {"words", "tags", "spans"} and row["spans"]
    assert row["words"] == ["Anna", "lives", "in", "New", "York", ",", "near", "Tom", "."] and len(row["tags"]) == 9
    for span in row["spans"]:
        assert span.keys() == {"label", "text", "start", "end", "probability"}
        assert line[span["start"]:span["end"]] == span["text"] and span["label"] in ("PER", "LOC") and 0 < span["probability"] <= 1
    tokens = ["Anna", "lives", "in", "New", "York", ",", "near", "Tom", "."]
    same, = said(models["ner"], stdin=json.dumps({"id": 7, "tokens": tokens}))
    assert same["id"] == 7 and same["tags"] == row["tags"] and same["words"] == tokens
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
    row = cut(line)
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


def test_names_that_requests_of_the_service_have(models, tmp_path):
    """`text` and `text_pair`, as the service takes them; a text is cut into words, and tokens with tags are not."""
    pair, line = {"text": "a dog", "text_pair": "a cat"}, "Anna  lives in New York."
    for kind in ("pairs", "regression"):
        assert said(models[kind], stdin=json_lines([pair])) == said(models[kind], stdin="a dog\ta cat\n")
    assert said(models["classification"], stdin='{"text": "my dog"}') == said(models["classification"], stdin="my dog\n")
    row, = said(models["ner"], stdin=json_lines([{"id": 7, "text": line}]))
    assert [row] == [{"id": 7} | same for same in said(models["ner"], stdin=line)]
    for tokens in ({"text": "Anna  lives.", "labels": ["B-PER", "O"]}, {"text": ["Anna", "lives."]}):
        assert len(said(models["ner"], stdin=json_lines([tokens]))[0]["tags"]) == 2
    shutil.copytree(models["pairs"], tmp_path / "foreign")
    (tmp_path / "foreign/bertcourse.json").unlink()  # nobody says that it reads pairs
    assert said(tmp_path / "foreign", stdin=json_lines([pair])) == said(tmp_path / "foreign", stdin="a dog\ta cat\n")
    (tmp_path / "a.json").write_text(json.dumps([pair | {"label": 2}]))
    found, about = predicted(models["regression"], tmp_path / "a.json", "--labelled")
    assert found[0].pop("gold") == 2 and found == said(models["regression"], stdin=json_lines([pair])) and "sentence2 (text_pair)" in about


def test_the_function_writes_what_the_command_writes(models, tmp_path):
    rows, out = [{"sentence": "my dog", "label": "up"}, {"sentence": "no", "label": "down"}], io.StringIO()
    assert jobs.predict(models["classification"], rows, scores=True, out=tmp_path / "out.jsonl") is None
    assert (tmp_path / "out.jsonl").read_text() == call(models["classification"], "--scores", stdin=json_lines(rows))[1]
    scores = jobs.predict(models["classification"], rows, labelled=True, metrics=tmp_path / "m.json", out=out)
    assert scores == json.loads((tmp_path / "m.json").read_text()) and scores["rows"] == 2
    assert [json.loads(line)["gold"] for line in out.getvalue().splitlines()] == ["up", "down"]
    for source, options, says in [([], {}, "file has no rows"), (rows, {"blank": "no"}, "--blank must be one of keep, skip"),
                                  (rows, {"metrics": "m.json"}, "--metrics needs --labelled"), ([{"text": 3}], {}, "'sentence' is not text but 3")]:
        with pytest.raises(UserError, match=says):
            jobs.predict(models["classification"], source, **options)


def test_the_function_returns_what_the_command_writes(models, capsys):
    rows = [{"sentence": "my dog", "label": "up"}, {"sentence": "no", "label": "down"}]
    found = jobs.predict(models["classification"], rows)
    assert found == said(models["classification"], stdin=json_lines(rows)) and capsys.readouterr() == ("", "")
    labelled = jobs.predict(models["classification"], rows, labelled=True)
    assert labelled == [row | {"gold": gold} for row, gold in zip(found, ["up", "down"])] and capsys.readouterr().out == ""


@pytest.mark.parametrize("as_command", [False, True])
def test_the_encoding_of_stdout_is_set_by_the_command_only(models, monkeypatch, as_command):
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    if as_command:
        monkeypatch.setattr(sys, "stdin", commands.Stdin("安娜\n".encode()))
        assert cli.main(["predict", str(models["ner"])]) == 0
    else:
        jobs.predict(models["classification"], [{"sentence": "my dog"}], out=sys.stdout)
    written = [json.loads(line) for line in out.buffer.getvalue().decode("utf-8").splitlines()]
    assert len(written) == 1 and out.encoding == ("utf-8" if as_command else "latin-1")
    if as_command:
        assert written[0]["words"] == ["安", "娜"]


def test_a_long_line_and_blank_lines(models):
    text = "my dog " * 20_000
    lines = said(models["classification"], stdin=f"\n{text}\n \n\nno\n")
    assert [bool(line) for line in lines] == [False, True, False, False, True]  # a line for each line
    assert len(said(models["classification"], "--blank", "skip", stdin=f"\n{text}\n \n\nno\n")) == 2
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
    out, seen = io.StringIO(), []

    def lines():
        for _ in range(9):
            seen.append(len(out.getvalue().splitlines()))
            yield b"my dog is here\n"
    options = [models["classification"], "--batch-size", 2]
    assert commands.run("predict", *options, stdin=lines(), out=out)[0] == 0
    assert seen == [0, 0, 2, 2, 4, 4, 6, 6, 8] and len(out.getvalue().splitlines()) == 9


def test_a_reader_that_leaves(models):
    "In this process; `slow/test_command_processes.py` has a pipe between two."
    with commands.abandoned_pipe() as out:
        assert commands.run("predict", models["classification"], stdin="my dog is hairy\n", out=out) == (0, "", "")


def test_answers_have_a_length(models, tmp_path, monkeypatch):
    row = json_lines([{"question": "who?", "context": "my dog and my cat and the bird " * 5}])
    whole, short = said(models["qa"], stdin=row), said(models["qa"], "--max-answer-length", 1, stdin=row)
    assert len(short[0]["answer"].split()) == 1 < len(whole[0]["answer"].split())
    shutil.copytree(models["qa"], tmp_path / "m")
    about = json.loads((tmp_path / "m/bertcourse.json").read_text())
    (tmp_path / "m/bertcourse.json").write_text(json.dumps(about | {"max_answer_length": 1}))
    assert said(tmp_path / "m", stdin=row) == short and said(tmp_path / "m", "--max-answer-length", 30, stdin=row) == whole
    in_both_languages(monkeypatch, "this model is for classification", models["classification"], "--max-answer-length", 3)


# --- files as `finetune` reads them -------------------------------------------------------------------------------

def predicted(*argv: object, stdin: bytes | str = b"") -> tuple[list[dict], str]:
    """What is printed, and what is said about the file."""
    code, out, err = call(*argv, stdin=stdin)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()], err


TABLES = {  # model, file, its text, the same texts as plain lines
    "a table with header": ("classification", "a.tsv", "sentence\tlabel\nmy dog\tup\nno\tdown\n", "my dog\nno\n"),
    "called .txt": ("classification", "a.txt", "label\tsentence\nup\tmy dog\ndown\tno\n", "my dog\nno\n"),
    "without header": ("classification", "a.txt", "my dog\tup\nno\tdown\n", "my dog\nno\n"),
    "CSV": ("classification", "a.csv", 'id,sentence,label\n7,"my ""dog""",up\n8,no,down\n', 'my "dog"\nno\n'),
    "CSV called .txt": ("classification", "a.txt", "sentence,label\nmy dog,up\n", "my dog\n"),
    "UTF-16": ("classification", "a.txt", "my dog\nno\n".encode("utf-16"), "my dog\nno\n"),
    "GB18030": ("classification", "a.txt", "这部电影很好看\n服务太差了\n".encode("gb18030"), "这部电影很好看\n服务太差了\n"),
    "a packed table": ("classification", "a.tsv.gz", gzip.compress(b"sentence\tlabel\nmy dog\tup\n"), "my dog\n"),
    "labelled pairs": ("pairs", "a.txt", "a dog\ta cat\tyes\nno\tyes\tno\n", "a dog\ta cat\nno\tyes\n"),
    "an array": ("pairs", "a.json", json.dumps([{"sentence1": "a", "sentence2": "b", "label": "no"}]), "a\tb\n"),
    "numbers": ("regression", "a.tsv", "a dog\ta cat\t2.5\n", "a dog\ta cat\n"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_gives_what_its_texts_give(case, models, tmp_path):
    kind, name, text, plain = TABLES[case]
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    found, about = predicted(models[kind], tmp_path / name)
    assert [{**row, "id": 0} for row in found] == [{**row, "id": 0} for row in said(models[kind], stdin=plain)]
    assert about or case == "UTF-16"
    if name != "a.json":
        from_pipe, _ = predicted(models[kind], "-", *(["--format", "csv"] if name == "a.csv" else []), stdin=(tmp_path / name).read_bytes())
        assert [{**row, "id": 0} for row in from_pipe] == [{**row, "id": 0} for row in found]


def test_conll_gives_what_its_words_give(models, tmp_path):
    (tmp_path / "a.txt").write_text("-DOCSTART- O\n\nAnna B-PER\nwent O\n\nto O\nParis B-LOC\n")
    found, about = predicted(models["ner"], tmp_path / "a.txt")
    assert found == said(models["ner"], stdin=json_lines([{"tokens": ["Anna", "went"]}, {"tokens": ["to", "Paris"]}]))
    assert "2 sentences, CoNLL" in about and "line 3: Anna went" in about


def test_squad_gives_what_its_questions_give(models, tmp_path):
    qa = {"id": "q7", "question": "who?", "answers": [{"text": "dog", "answer_start": 3}]}
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "my dog", "qas": [qa]}]}]}))
    found, _ = predicted(models["qa"], tmp_path / "a.json")
    assert found == said(models["qa"], stdin=json_lines([{"id": "q7", "question": "who?", "context": "my dog"}]))


def test_labels_are_compared(models, tmp_path):
    (tmp_path / "a.tsv").write_text("sentence\tlabel\nmy dog\tup\nno\tdown\nAnna\tup\n")
    plain = said(models["classification"], stdin="my dog\nno\nAnna\n")
    found, about = predicted(models["classification"], tmp_path / "a.tsv", "--labelled", "--metrics", tmp_path / "m.json")
    assert [row.pop("gold") for row in found] == ["up", "down", "up"] and found == plain
    right = sum(row["label"] == gold for row, gold in zip(plain, ["up", "down", "up"]))
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["accuracy"] == pytest.approx(right / 3) and metrics["rows"] == 3 and f"3 rows: accuracy {right / 3:.1%}" in about


@pytest.mark.parametrize(("kind", "text", "metric"), [
    ("ner", "Anna B-PER\nwent O\n\nto O\nParis B-LOC\n", "f1"),
    ("qa", json.dumps({"question": "who?", "context": "my dog", "answers": [{"text": "dog", "answer_start": 3}]}), "exact"),
    ("regression", "a dog\ta cat\t2.5\nno\tyes\t1\n", "mse"),
])  # fmt: skip
def test_labels_of_every_task_are_compared(kind, text, metric, models, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    found, about = predicted(models[kind], tmp_path / "a.txt", "--labelled", "--metrics", tmp_path / "m.json")
    assert metric in json.loads((tmp_path / "m.json").read_text()) and all("gold" in row for row in found)


def test_files_that_are_refused(models, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one\ttwo\nthree\tfour\n")
    in_both_languages(monkeypatch, "a.txt has tabs in its lines: say --format text", models["classification"], tmp_path / "a.txt")
    assert len(said(models["classification"], tmp_path / "a.txt", "--format", "text")) == 2
    (tmp_path / "b.tsv").write_text("sentence\tlabel\nno\tsideways\n")
    code, out, err = call(models["classification"], tmp_path / "b.tsv", "--labelled")
    assert code == 2 and not out and "the model has no label 'sideways'" in err.splitlines()[-1]
    in_both_languages(monkeypatch, "no column 'label'", models["classification"], "-", "--labelled", stdin='{"sentence": "a"}\n')
    in_both_languages(monkeypatch, "--metrics needs --labelled", models["classification"], "--metrics", tmp_path / "m")
    in_both_languages(monkeypatch, "there is no encoding 'x'", models["classification"], "--encoding", "x")


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
    content = "我的狗\n".encode() * 40 + b"the \xff\n"
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
    monkeypatch.setattr("bertcourse.jobs.folder.os.access", lambda *_: False)
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
    found = open_checkpoint(str(models["classification"])).predict_rows(rows(), 8)
    for n in (8, 16, 24):
        assert len(next(found)) == 8 and len(asked) == n
