"""`bertcourse augment`: rows and their variants in, in order, and one sentence for whatever stands in the way."""

import gzip
import io
import json
import re
import shutil
from pathlib import Path

import commands
import pytest
import torch
import transformers
from commands import HAN

from bertcourse import files, jobs, profiles
from bertcourse.app import cli
from bertcourse.assets import asset
from bertcourse.base.errors import UserError
from bertcourse.corpus_tasks import examples
from bertcourse.jobs import augmenting

SENTENCES = [{"sentence": "  The film, which Anna  saw in Paris, is very good! ", "label": "up"},
             {"sentence": "我的狗今天很高兴，他在公园里。", "label": "up"}, {"sentence": "The noodles were cold.", "label": "down"}]
GRADES = ["down", "up"]
PAIR = {"sentence1": "My dog is in the house, and he sleeps.", "sentence2": "昨天晚上，高兴看了电影《黄金》。", "label": "yes"}
TAGGED = {"tokens": ["Anna", "lives", "in", "New", "York", ",", "U.S."], "ner_tags": ["B-PER", "O", "O", "B-LOC", "I-LOC", "O", "B-LOC"]}
ODD = "zyxwv"  # several pieces


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


def call(*argv, stdin=b"", out=None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `bertcourse augment ARGV`; with `tiny`, unless a model is given."""
    return commands.run("augment", *argv, *([] if "--model" in argv else ["--model", "tiny"]), stdin=stdin, out=out)


def made(*argv, stdin=b"") -> list[dict]:
    """What is printed."""
    code, out, err = call(*argv, "--quiet", stdin=stdin)
    assert code == 0 and not err, err
    return [json.loads(line, parse_constant=pytest.fail) for line in out.splitlines()]


def in_both_languages(monkeypatch, says: str, *argv, stdin=b"") -> None:
    """The command is refused: one sentence and nothing else, in the language of the reader."""
    for locale, han in (("zh_CN.UTF-8", True), ("en_US.UTF-8", False)):
        monkeypatch.setenv("LC_ALL", locale)
        code, out, err = call(*argv, "--quiet", stdin=stdin)
        assert code == 2 and not out and len(err.splitlines()) == 1 and err.startswith("bertcourse: "), err
        assert bool(HAN.search(err)) == han, err
    assert says in err, err


def json_lines(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def fine_tuned(folder: Path, kind: str, labels: list[str], inputs: list[str], std: float = 0.5) -> Path:
    """A folder as `bertcourse finetune` makes it, with a head that knows nothing; without `std` it always says the same."""
    torch.manual_seed(0)
    auto_class = transformers.AutoModelForTokenClassification if kind == "ner" else transformers.AutoModelForSequenceClassification
    names = dict(enumerate(labels))
    more = {"num_labels": 1, "problem_type": "regression"} if kind == "regression" else \
        {"id2label": names, "label2id": {name: i for i, name in names.items()}}
    model = auto_class.from_pretrained(asset("tiny-bert"), **more)
    torch.nn.init.normal_(model.classifier.weight, std=std)
    torch.nn.init.constant_(model.classifier.bias, 2.5)
    if std and kind == "classification":  # else one label would win for all texts
        coded = profiles.load("tiny").tokenizer()([row["sentence"] for row in SENTENCES], padding=True, return_tensors="pt")
        with torch.no_grad():
            model.classifier.bias -= model.eval()(**coded).logits.mean(0)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(asset("tiny-bert") / name, folder)
    (folder / "bertcourse.json").write_text(json.dumps({
        "task": kind, "labels": labels, "max_length": 48, "lang": "en", "threshold": None, "columns": {}, "inputs": inputs}))
    return folder


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("teachers")
    return {"classification": fine_tuned(folder / "c", "classification", GRADES, ["sentence"]),
            "regression": fine_tuned(folder / "r", "regression", [], ["sentence1", "sentence2"], std=0),
            "ner": fine_tuned(folder / "n", "ner", ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"], ["tokens"])}


# --- variants -----------------------------------------------------------------------------------------------------

def test_each_row_and_then_its_variants():
    rows = made("--task", "classification", "-n", 6, stdin=json_lines(SENTENCES))
    assert len(rows) == 21 and rows[::7] == SENTENCES and all(row.keys() == {"sentence", "label"} for row in rows)
    for i, row in enumerate(SENTENCES):
        variants = rows[7 * i + 1:7 * i + 7]
        assert len({row["sentence"] for row in variants}) > 2 and {variant["label"] for variant in variants} == {row["label"]}
        for variant in variants:  # what is no word stays, blanks at the ends and Chinese punctuation among it
            assert re.sub(r"\w+", "", variant["sentence"]) == re.sub(r"\w+", "", row["sentence"])
    for variant in rows[8:14]:
        assert len(variant["sentence"]) == len(SENTENCES[1]["sentence"]) and not re.search("[A-Za-z0-9]", variant["sentence"])
    assert made("--task", "sentiment", "-n", 6, "--only-new", stdin=json_lines(SENTENCES)) == rows[1:7] + rows[8:14] + rows[15:]


def test_one_text_of_a_pair_at_a_time():
    row, *variants = made("--task", "pairs", "-n", 8, "-p", 0.9, stdin=json_lines([PAIR]))
    assert row == PAIR
    for v, variant in enumerate(variants):
        changed, same = ("sentence1", "sentence2") if v % 2 == 0 else ("sentence2", "sentence1")
        assert variant[same] == PAIR[same] and variant[changed] != PAIR[changed] and variant["label"] == "yes"


def test_words_keep_their_tags():
    chinese = {name: row[name] for row in examples("ner", 1, lang="zh") for name in ("tokens", "ner_tags")}
    rows = made("--task", "ner", "-n", 5, "-p", 0.8, stdin=json_lines([TAGGED, chinese]))
    assert len(rows) == 12 and rows[0] == TAGGED and rows[6] == chinese
    for variant, row in zip(rows, 6 * [TAGGED] + 6 * [chinese]):
        assert variant["ner_tags"] == row["ner_tags"] and len(variant["tokens"]) == len(row["tokens"])
        assert all(variant["tokens"]) and not any(" " in token for token in variant["tokens"])
    assert all(variant["tokens"] != TAGGED["tokens"] and variant["tokens"][5:] == [",", "U.S."] for variant in rows[1:6])


def test_the_seed_alone_decides():
    rows = [{"sentence": row["sentence"], "label": row["label"]} for lang in ("en", "zh") for row in examples("sentiment", 6, lang=lang)]
    first, *others = (made("--task", "classification", "-n", 3, "--batch-size", n, stdin=json_lines(rows)) for n in (32, 1, 5))
    assert others == [first, first]
    assert made("--task", "classification", "-n", 3, "--seed", 1, stdin=json_lines(rows)) != first


def test_nothing_changes_with_probability_0():
    rows = made("--task", "classification", "-n", 2, "-p", 0, stdin=json_lines(SENTENCES))
    assert rows == [row for row in SENTENCES for _ in range(3)]
    words = [SENTENCES[2]["sentence"].split(), *(row["sentence"].split() for row in
             made("--task", "classification", "-n", 5, "-p", 1, "-k", 1, stdin=json_lines(SENTENCES[2:]))[1:])]
    assert len({*map(tuple, words[1:])}) == 1 and words[0] != words[1], "with -k 1 there is nothing to draw"


def test_texts_without_words():
    assert made("--task", "classification", "-n", 2, "-p", 1, stdin='{"sentence": ""}\n{"sentence": " ?! "}\n') == \
        3 * [{"sentence": ""}] + 3 * [{"sentence": " ?! "}]
    pair = {"sentence1": "", "sentence2": "a dog"}
    assert [row["sentence1"] for row in made("--task", "pairs", "-n", 4, "-p", 1, stdin=json_lines([pair]))] == [""] * 5


# --- words of several pieces --------------------------------------------------------------------------------------

@pytest.mark.parametrize("header", ["", "4 2\n"])
def test_neighbours(tmp_path, header):
    (tmp_path / "v.txt").write_text(f"{header}{ODD} 1 0\ngloops 1 0.1\nmilk 1 0.2\nstone -1 0\n")
    stdin = f"A {ODD}, {ODD.upper()}!\n"
    rows = made("--task", "classification", "-p", 1, "-k", 2, "--vectors", tmp_path / "v.txt", stdin=stdin)
    assert {word for row in rows[1:] for word in re.findall(r"\w+", row["sentence"])[1:]} == {"gloops", "milk"}
    code, out, err = call("--task", "classification", "-p", 1, stdin=stdin * 2)
    assert all(line.count(ODD) == 1 == line.count(ODD.upper()) for line in out.splitlines())
    assert err.count("words of several tokens stay as they are") == 1 and err.splitlines()[-1].startswith("2 rows read, 42 written, ")


@pytest.mark.parametrize("says, content", [
    ("v.txt, line 2: a word and 2 numbers", b"a 1 2\nb 1\n"), ("v.txt, line 1: a word and its numbers", b"a b c\n"),
    ("v.txt is empty", b"4 2\n"), ("v.txt is not UTF-8 text: unpack it", gzip.compress(b"a 1 2\n")),
    ("there is no such file", None)])  # fmt: skip
def test_vectors_that_are_refused(monkeypatch, tmp_path, says, content):
    if content is not None:
        (tmp_path / "v.txt").write_bytes(content)
    in_both_languages(monkeypatch, says, "--task", "classification", "--vectors", tmp_path / "v.txt", stdin="a\n")


# --- labels -------------------------------------------------------------------------------------------------------

def test_labels_are_kept_and_that_is_said():
    code, out, err = call("--task", "classification", "-n", 2, stdin=json_lines(SENTENCES))
    assert code == 0 and err.count("keep the labels of their rows, right or wrong: --teacher") == 1
    assert re.fullmatch(r"3 rows read, 9 written, \d\d\.\d% of the words changed", err.splitlines()[-1])
    assert "--teacher" not in call("--task", "classification", "-n", 2, stdin="a dog\n")[2]


def test_a_teacher_labels_the_variants(teachers, monkeypatch):
    teacher = teachers["classification"]
    rows = made("--task", "classification", "-n", 6, "--teacher", teacher, stdin=json_lines(SENTENCES))
    assert rows[::7] == SENTENCES, "the rows keep what they have"
    new = [row for i, row in enumerate(rows) if i % 7]
    code, said, _ = commands.run("predict", teacher, stdin=json_lines([{"sentence": row["sentence"]} for row in new]))
    assert code == 0
    assert [row["label"] for row in new] == [json.loads(line)["label"] for line in said.splitlines()]
    assert {row["label"] for row in new} == set(GRADES)
    texts = "\n".join(row["sentence"] for row in SENTENCES)
    labelled = made("--task", "classification", "-n", 6, "--teacher", teacher, stdin=texts)
    assert [row["label"] for row in labelled if row in new] and all(row["label"] in GRADES for row in labelled)
    assert [row["sentence"] for row in labelled] == [row["sentence"] for row in rows]


def test_teachers_of_numbers_and_tags(teachers):
    pairs = [{"sentence1": "a dog", "sentence2": "a cat", "label": 1.0}, {"sentence1": "a red house", "sentence2": "tea", "label": 4}]
    rows = made("--task", "similarity", "-n", 2, "--teacher", teachers["regression"], stdin=json_lines(pairs))
    assert [row["label"] for row in rows] == [1.0, 2.5, 2.5, 4.0, 2.5, 2.5]
    rows = made("--task", "ner", "-n", 4, "--teacher", teachers["ner"], stdin="Anna lives in Paris.\n")
    assert rows[0]["tokens"] == ["Anna", "lives", "in", "Paris", "."]
    assert all(len(row["ner_tags"]) == 5 and row["ner_tags"][0][0] in "BO" for row in rows)
    assert len({tuple(row["ner_tags"]) for row in rows}) > 1


def test_teachers_that_are_refused(teachers, monkeypatch, tmp_path):
    shutil.copytree(teachers["regression"], tmp_path / "nan")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "nan")
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    model.save_pretrained(tmp_path / "nan")
    line = json_lines([SENTENCES[0] | {"label": "good"}])
    for says, task, teacher, stdin in [
        ("was fine-tuned for ner, --task is classification", "classification", teachers["ner"], "a dog\n"),
        ("line 1: ", "classification", teachers["classification"], line), ("does not know the label 'good'", "sentiment",
                                                                            teachers["classification"], line),
        ("does not know the label 'B-ORG'", "ner", teachers["ner"], json_lines([{"tokens": ["a"], "ner_tags": ["B-ORG"]}])),
        ("reads sentence1, sentence2", "regression", teachers["regression"], "a dog\n"),
        ("gives nan", "regression", tmp_path / "nan", "a dog\ta cat\n"), ("not fine-tuned", "classification", "tiny", "a dog\n"),
    ]:
        in_both_languages(monkeypatch, says, "--task", task, "--teacher", teacher, "-n", 1, stdin=stdin)


# --- files and pipes ----------------------------------------------------------------------------------------------

def test_what_is_written_is_read_again(tmp_path):
    for task, name, content in [
        ("classification", "in.tsv", "label\treview\nup\tThe film is good.\ndown\tThe tea was cold.\n"),
        ("nli", "in.csv", 'premise,hypothesis,label\n"a dog, a cat",a dog,yes\na bird,a cat,-\na man,a woman,no\n'),
        ("similarity", "in.json", json.dumps([{"sentence1": "a dog", "sentence2": "a cat", "score": i} for i in range(2)])),
        ("regression", "in.jsonl", json_lines([{"id": i, "text": "a dog", "score": i} for i in range(2)])),
        ("ner", "in.conll", "Anna B-PER\nsleeps O\n\nParis S-LOC\n. O\n"), ("ner", "in.txt", "Anna B-PER\nsleeps O\n\nTea O\n"),
    ]:
        (tmp_path / name).write_text(content)
        named = ["--columns", "sentence=review"] if "review" in content else []
        assert call(tmp_path / name, "--task", task, "-n", 2, *named, "--quiet", "--out", tmp_path / "out.jsonl") == (0, "", "")
        before, after = files.read(task, tmp_path / name, dict([named[1].split("=")] if named else [])), files.read(
            task, tmp_path / "out.jsonl")
        assert after.rows[::3] == before.rows and len(after) == 6, name
        assert [row[files.TASKS[task][-1]] for row in after.rows[1::3]] == [row[files.TASKS[task][-1]] for row in before.rows]
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".tsv", ".csv", ".json", ".jsonl", ".conll", ".txt")]


def test_the_function_gives_what_the_command_writes(tmp_path, teachers):
    options = {"task": "classification", "model": "tiny", "n": 2, "quiet": True}
    rows = jobs.augment(SENTENCES, **options)
    assert rows == made("--task", "classification", "-n", 2, stdin=json_lines(SENTENCES))
    assert jobs.augment(SENTENCES, **options, out=tmp_path / "out.jsonl") is None
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
    labelled = jobs.augment([{"sentence": "The film is good."}], teacher=teachers["classification"], only_new=True, **options)
    assert len(labelled) == 2 and all(row["label"] in GRADES for row in labelled)
    for more, says in [({"p": 2}, "-p must be a number from 0 to 1, not 2"), ({"labels": ["a", "b"]}, "--labels are names for the labels of --teacher")]:
        with pytest.raises(UserError, match=says):
            jobs.augment(SENTENCES, **options | more)


def test_files_without_labels(tmp_path):
    for task, name, content in [("classification", "in.tsv", "sentence\nThe film is good.\n"), ("pairs", "in.tsv", "a dog\ta cat\n"),
                                ("ner", "in.conll", "Anna\nsleeps\n"), ("classification", "in.txt", "The film is good.\n"),
                                ("classification", "in.json", '[{"text": "The film is good."}]')]:
        (tmp_path / name).write_text(content)
        rows = made(tmp_path / name, "--task", task, "-n", 2)
        assert len(rows) == 3 and all("label" not in row and "ner_tags" not in row for row in rows), name


def test_lines_as_they_come(tmp_path):
    content = b"\xef\xbb\xbf" + "\r\n\r\n".join(json.dumps({"id": i, "labels": 1.0, "review": "my dog"}) for i in range(3)).encode()
    rows = made("-", "--task", "classification", "-n", 1, "--columns", "sentence=review", stdin=content)
    assert rows[::2] == [{"sentence": "my dog", "label": "1"}] * 3
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content))
    assert made(tmp_path / "in.jsonl.gz", "--task", "sentiment", "-n", 1, "--columns", "sentence=review") == rows
    code, out, err = call("--task", "nli", "-n", 1, stdin=json_lines([PAIR, PAIR | {"label": "-"}, PAIR]))
    assert len(out.splitlines()) == 4 and err.splitlines()[-1].endswith('1 skipped: label "-"')
    assert made("--task", "pairs", "-n", 1, stdin="a dog\ta cat\n")[0] == {"sentence1": "a dog", "sentence2": "a cat"}
    assert made("--task", "ner", "-n", 1, stdin="Send an E-mail\n")[0] == {"tokens": ["Send", "an", "E-mail"]}
    assert made("--task", "regression", "-n", 1, stdin="a dog\n")[0] == {"sentence": "a dog"}


def test_a_batch_is_written_before_the_next_is_read():
    out, seen = io.StringIO(), []

    def lines():
        for _ in range(9):
            seen.append(len(out.getvalue().splitlines()))
            yield b"my dog is here\n"
    assert call("--task", "classification", "-n", 1, "--batch-size", 2, "--quiet", stdin=lines(), out=out)[0] == 0
    assert seen == [0, 0, 4, 4, 8, 8, 12, 12, 16] and len(out.getvalue().splitlines()) == 18


def test_a_reader_that_leaves():
    "In this process; `slow/test_command_processes.py` has a pipe between two."
    with commands.abandoned_pipe() as out:
        assert call("--task", "classification", "-n", 1, "--quiet", stdin=b"my dog is hairy\n", out=out) == (0, "", "")


def test_interrupted(tmp_path):
    def lines():
        yield b"a dog\n"
        yield b"a cat\n"
        assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
        raise KeyboardInterrupt
    assert call("--task", "classification", "--batch-size", 1, "--out", tmp_path / "out", "--quiet", stdin=lines()) == (130, "", "")
    assert not list(tmp_path.iterdir())


def test_long_texts_change_beyond_the_models_places():
    long = {"sentence": "a dog " * 70, "label": "up"}  # 140 pieces
    code, out, err = call("--task", "classification", "-n", 2, stdin=json_lines([SENTENCES[0], long, long, SENTENCES[2]]))
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(rows) == 12 and rows[3] == rows[6] == long
    for row in rows[4:6] + rows[7:9]:
        words = row["sentence"].split()
        assert len(words) == 140 and row["sentence"].endswith(" ")
        assert words[:10] != ["a", "dog"] * 5 and words[-10:] != ["a", "dog"] * 5, "at both ends"
    short = made("--task", "classification", "-n", 2, stdin=json_lines([SENTENCES[0], SENTENCES[1], SENTENCES[1], SENTENCES[2]]))
    assert short[-3:] == rows[-3:], "the rows after it have the same random numbers"
    pair = {"sentence1": "a dog " * 32, "sentence2": "a cat " * 32}
    first, second = made("--task", "pairs", "-n", 2, "--only-new", stdin=json_lines([pair]))
    assert first["sentence1"] != pair["sentence1"] and first["sentence2"] == pair["sentence2"]
    assert second["sentence1"] == pair["sentence1"] and second["sentence2"] != pair["sentence2"]
    for row in made("--task", "ner", "-n", 2, "--only-new", stdin=json_lines([{"tokens": ["dog"] * 130}])):
        assert len(row["tokens"]) == 130 and row["tokens"] != ["dog"] * 130


def test_the_language_is_that_of_the_first_rows(monkeypatch):
    monkeypatch.setattr(profiles, "BASE", dict.fromkeys(("en", "zh"), str(asset("tiny-bert"))))
    chosen, load = [], augmenting.open_augmenter
    monkeypatch.setattr(
        augmenting, "open_augmenter", lambda options, profile, lang, near: chosen.append(lang) or load(options, profile, lang, near))
    options = "--model", "base", "--task", "classification", "-n", 1
    texts = "OK\n" + "我的狗今天很高兴。\n" * 40
    for n in (1, 32):
        assert len(made(*options, "--batch-size", n, stdin=texts)) == 82
    made(*options, stdin="my dog\n")
    made(*options, "--lang", "en", stdin=texts)
    assert chosen == ["zh", "zh", "en", "en"]


# --- what is refused ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("says, task, stdin", [
    ("no column 'sentence'", "classification", '{"tokens": ["a"]}\n'), ("line 2: not valid JSON", "sentiment", '{"text": "a"}\n{"text": \n'),
    ("1 field instead of 2", "pairs", "a dog\n"), ("'sentence2' is not text but 3", "pairs", '{"sentence1": "a", "sentence2": 3}\n'),
    ("line 2: 'label' is not text but [1]", "classification", '{"text": "a", "label": 1}\n{"text": "a", "label": [1]}\n'),
    ("line 3: the label is empty", "classification", '{"text": "a", "label": "b"}\n\n{"text": "a", "label": null}\n'),
    ("'many' is not a number", "regression", '{"text": "a", "label": "many"}\n'),
    ("1 token but 2 tags", "ner", '{"tokens": ["a"], "ner_tags": ["O", "O"]}\n'),
    ("1 is not a tag", "ner", '{"tokens": ["a"], "ner_tags": [1]}\n'),
    ("line 2: sentence, but sentence, label before", "classification", '{"text": "a", "label": "b"}\n{"text": "a"}\n'),
    ("line 2: sentence, label, but sentence1, sentence2, label before", "regression",
     '{"sentence1": "a", "sentence2": "b", "label": 1}\n{"text": "a", "label": 1}\n'),
    ("labels + and -", "nli", json_lines([PAIR | {"label": "+"}, PAIR | {"label": "-"}])),
    ("line 1: a tab in a text", "classification", "a good film\tup\n"), ("line 1: a word and its tag", "ner", "Anna O B-PER\n"),
    ("line 1: not UTF-8", "classification", "é".encode() + b"\xff\n"), ("are places in the text and would move", "qa", "a\n"),
])  # fmt: skip
def test_input_that_does_not_fit(monkeypatch, tmp_path, says, task, stdin):
    """Without --out something may have been written before the line; here nothing has, and with --out nothing stays."""
    in_both_languages(monkeypatch, says, "--task", task, "-n", 1, "--out", tmp_path / "out", stdin=stdin)
    assert not list(tmp_path.iterdir())


def test_columns_that_are_not_there(monkeypatch, tmp_path):
    (tmp_path / "in.tsv").write_text("sentence\tlabel\na\tb\n")
    for file, stdin in [("-", '{"sentence": "a", "label": "b"}\n'), (tmp_path / "in.tsv", b"")]:
        for column, says in [("label=stars", "no column 'stars', only sentence, label"), ("sentence=review", "no column 'review'"),
                             ("stars=label", "columns names 'stars'")]:
            in_both_languages(monkeypatch, says, file, "--task", "classification", "--columns", column, stdin=stdin)


def test_places_that_are_refused(monkeypatch, tmp_path):
    (tmp_path / "in.txt").write_text("a\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "in.tsv.gz").write_bytes(gzip.compress(b"a\tb\tc\td\n"))
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 9)[:-12])
    (tmp_path / "in.tsv").write_text("sentence\tlabel\na\n")
    before = sorted(tmp_path.iterdir())
    for says, *argv in [("there is no such file", tmp_path / "absent.txt"), ("there is no such file", tmp_path / "absent.tsv"),
                        ("it is a folder", tmp_path), ("is the input", tmp_path / "in.txt", "--out", tmp_path / "in.txt"),
                        ("is a folder", tmp_path / "in.txt", "--out", tmp_path), ("is empty", tmp_path / "empty.txt"),
                        ("there is no folder", tmp_path / "in.txt", "--out", tmp_path / "x" / "y"),
                        ("in.tsv.gz, line 1: no known column name", tmp_path / "in.tsv.gz"), ("in.jsonl.gz is damaged", tmp_path / "in.jsonl.gz"),
                        ("in.tsv, line 2: the header has 2 fields", tmp_path / "in.tsv", "--out", tmp_path / "out")]:
        in_both_languages(monkeypatch, says, *argv, "--task", "classification")
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "in.txt").read_text() == "a\n"
    assert made("--task", "classification", stdin="") == []


def test_options_that_are_refused(monkeypatch):
    for option, value in [("-p", "1.5"), ("-p", "nan"), ("-p", "-0.1"), ("-n", "0"), ("-k", "0"), ("--seed", "-1"), ("--batch-size", "0"),
                          ("--task", "poetry"), ("--columns", "x"), ("--lang", "de")]:
        code, out, err = call("--task", "classification", f"{option}={value}" if option[1] == "-" else option + value, stdin="a\n")
        assert code == 2 and not out and len(err.splitlines()) == 1 and option in err, err
    in_both_languages(monkeypatch, "--task must be given")
    in_both_languages(monkeypatch, "-k 900 is more than the 848 whole words of tiny", "--task", "classification", "-k", 900, stdin="a\n")


def test_models_that_are_refused(monkeypatch, teachers, tmp_path):
    encoder = transformers.AutoModel.from_pretrained(asset("tiny-bert"))
    broken = transformers.AutoModelForMaskedLM.from_pretrained(asset("tiny-bert"))
    torch.nn.init.constant_(broken.cls.predictions.bias, float("nan"))
    for name, model in [("plain", encoder), ("nan", broken)]:
        model.save_pretrained(tmp_path / name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(asset("tiny-bert") / file, tmp_path / name)
    letters = {chr(i): n for n, i in enumerate(range(97, 123), 5)} | {"Ġ": 31}
    bytes_ = transformers.RobertaTokenizer(vocab={t: i for i, t in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>"))} | letters, merges=[])
    bytes_.save_pretrained(tmp_path / "bytes")
    shape = dict(vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, max_position_embeddings=34)
    transformers.RobertaForMaskedLM(transformers.RobertaConfig(**shape)).save_pretrained(tmp_path / "bytes")
    for says, model in [("no head for masked words", teachers["classification"]), ("give tiny, base, or the model", tmp_path / "plain"),
                        ("does not cut words into WordPieces", tmp_path / "bytes"), ("gives nan", tmp_path / "nan"),
                        ("there is no profile or folder", "nowhere"), ("no config.json", tmp_path)]:
        in_both_languages(monkeypatch, says, "--task", "classification", "--model", model, stdin="a\n")


def test_help_fits_a_screen(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["augment", "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and len(said.splitlines()) < 34 and max(map(len, said.splitlines())) <= 100
