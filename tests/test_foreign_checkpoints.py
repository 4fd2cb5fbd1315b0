"""Checkpoints that others have fine-tuned, laid out as they were published, with tiny random weights: their labels are understood."""

import json
import re
from functools import partial

import checkpoints
import commands
import pytest
from commands import run
from datasets import Dataset

from bertcourse import deployment, files
from bertcourse.base.errors import UserError
from bertcourse.jobs import benchmarking
from bertcourse.jobs.exporting import are_right
from bertcourse.models import labels
from bertcourse.models.checkpoint import open_checkpoint
from bertcourse.models.exported import ExportedModel
from bertcourse.tasks import Tagging, bio_tags, in_scheme, spans
from bertcourse.tinybert import teacher_labels

CONLL = ("O", "B-MISC", "I-MISC", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
UPOS = ("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X")
PENN = ("-LRB-", "-RRB-", "``", "''", ",", ".", ":", "$", "CC", "DT", "IN", "JJ", "NN", "NNS", "PRP$", "VB", "WP$")
PUBLISHED = {  # name → family, labels, what the words of a text may be called
    "dslim/bert-base-NER": ("bert", CONLL, "entities"),
    "elastic/distilbert-base-cased-finetuned-conll03-english": ("distilbert", CONLL, "entities"),
    "FacebookAI/xlm-roberta-large-finetuned-conll03-english":
        ("xlm-roberta", ("B-LOC", "B-MISC", "B-ORG", "I-LOC", "I-MISC", "I-ORG", "I-PER", "O"), "entities"),
    "Davlan/xlm-roberta-base-ner-hrl": ("xlm-roberta", ("O", "B-DATE", "I-DATE", "B-PER", "I-PER"), "entities"),
    "Jean-Baptiste/roberta-large-ner-english": ("roberta", ("O", "LOC", "PER", "MISC", "ORG"), "entities"),
    "monologg/koelectra-base-v3-naver-ner": ("electra", ("O", "PER-B", "PER-I", "FLD-B", "FLD-I", "AFW-B", "AFW-I"), "entities"),
    "ckiplab/bert-base-chinese-ner": ("bert", ("O", "B-GPE", "B-PERSON", "E-GPE", "E-PERSON", "I-GPE", "I-PERSON", "S-GPE", "S-PERSON"), "entities"),
    "uer/roberta-base-finetuned-cluener2020-chinese":
        ("bert", ("O", "B-address", "I-address", "B-name", "I-name", "S-address", "S-name", "[PAD]"), "entities"),
    "BILOU, as spaCy and AllenNLP": ("deberta", ("O", "B-PER", "I-PER", "L-PER", "U-PER"), "entities"),
    "vblagoje/bert-english-uncased-finetuned-pos": ("bert", UPOS, "labels"),
    "Penn Treebank": ("roberta", PENN, "labels"),
    "ckiplab/bert-base-chinese-ws": ("bert", ("B", "I"), "labels"),
    "oliverguhr/fullstop-punctuation-multilang-large": ("xlm-roberta", ("0", ".", ",", "?", "-", ":"), "labels"),
    "by transformers' Trainer": ("modernbert", ("LABEL_0", "LABEL_1", "LABEL_2"), "labels"),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A checkpoint by its name."
    made, base = {}, tmp_path_factory.mktemp("published")

    def get(name):
        if name not in made:
            family, names, _ = PUBLISHED[name]
            made[name] = checkpoints.checkpoint(base / str(len(made)), family, "ner", names)
            if family in ("bert", "electra", "distilbert"):  # as these were published
                (made[name] / "tokenizer_config.json").write_text('{"do_lower_case": false, "max_len": 512, "init_inputs": []}')
                (made[name] / "special_tokens_map.json").write_text(json.dumps(checkpoints.NAMES))
                (made[name] / "added_tokens.json").write_text("{}")
        return made[name]

    return get


@pytest.fixture
def traced(monkeypatch):
    "Export by the exporter that traces, which is fast; the slow tests take today's."
    monkeypatch.setattr(deployment, "export", partial(deployment.export, legacy=True, opset=17))


@pytest.mark.parametrize("name", PUBLISHED)
def test_tags_are_bio_or_the_labels_themselves(folder, tmp_path, name):
    family, names, kind = PUBLISHED[name]
    text = tmp_path / "texts.txt"
    text.write_text("Anna Bell lives in New York .\n我的狗在家里 \u200b Zoë\n" + "Anna " * 100 + "\n", encoding="utf-8")
    code, out, err = run("predict", folder(name), text)
    assert code == 0 and not err
    for line in out.splitlines():
        row = json.loads(line)
        if kind == "labels":
            assert set(row["tags"]) <= set(names) and [span["label"] for span in row["spans"]] == row["tags"]
            assert [span["text"] for span in row["spans"]] == row["words"]
            continue
        types = {tag[2:] for tag in bio_tags(names).values()} - {""}
        assert all(tag == "O" or tag[:2] in ("B-", "I-") and tag[2:] in types for tag in row["tags"])
        assert {span["label"] for span in row["spans"]} <= types
        assert len(row["spans"]) == sum(tag.startswith("B-") for tag in row["tags"]), "valid BIO: every entity has its B-"


@pytest.mark.parametrize("name", ["ckiplab/bert-base-chinese-ner", "Jean-Baptiste/roberta-large-ner-english", "Penn Treebank"])
def test_they_are_exported_and_answer_as_before(folder, traced, tmp_path, name):
    _, names, _ = PUBLISHED[name]
    code, _, err = run("export", folder(name), "--out", tmp_path / "out", "--quiet")
    assert code == 0, err
    assert json.loads((tmp_path / "out/bertcourse.json").read_text())["labels"] == list(names)
    before, after = (run("predict", at, stdin="Anna Bell lives in New York .\n") for at in (folder(name), tmp_path / "out"))
    assert before[::2] == after[::2] == (0, "")
    assert without_probabilities(before[1]) == without_probabilities(after[1])
    # The last printed digit of a probability may be rounded up or down: the two differ by the rounding of float32.
    assert probabilities(before[1]) == pytest.approx(probabilities(after[1]), abs=2e-4)


PROBABILITY = re.compile(r'(?<="probability": )[\d.e-]+')


def without_probabilities(line):
    return PROBABILITY.sub("", line)


def probabilities(line):
    return [float(found) for found in PROBABILITY.findall(line)]


def test_a_service_tells_the_label_of_every_word(folder, traced, tmp_path):
    name = "vblagoje/bert-english-uncased-finetuned-pos"
    assert run("export", folder(name), "--out", tmp_path / "out", "--quiet")[0] == 0
    text = "Anna Bell  lives in Paris."
    answer, = ExportedModel(tmp_path / "out").answer([{"text": text}])
    told = json.loads(run("predict", folder(name), stdin=text + "\n")[1])
    assert without_probabilities(json.dumps(answer)) == without_probabilities(json.dumps(told))
    assert [span["label"] for span in answer["spans"]] == told["tags"] and answer["words"] == ["Anna", "Bell", "lives", "in", "Paris", "."]
    assert [text[span["start"]:span["end"]] for span in answer["spans"]] == ["Anna", "Bell", "lives", "in", "Paris", "."]
    assert all(0 < span["probability"] <= 1 for span in answer["spans"])


# --- labelled rows ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("names", [names for _, names, kind in PUBLISHED.values() if kind == "entities"], ids=lambda names: " ".join(names)[:30])
def test_tags_of_a_file_in_the_scheme_of_a_model(names):
    meaning = bio_tags(names)
    kind = next(tag[2:] for tag in meaning.values() if tag != "O")
    for tags in (["O", f"B-{kind}", "O"], [f"B-{kind}", f"I-{kind}"], [f"B-{kind}", f"I-{kind}", f"I-{kind}", "O", f"B-{kind}"]):
        there = in_scheme(tags, names)
        assert set(there) <= set(names)
        assert spans([meaning[tag] for tag in there]) == spans(tags)
    assert in_scheme(["B-strange"], names) == ["B-strange"], "left for whoever refuses it"


def test_schemes_by_hand():
    assert in_scheme(["B-X", "I-X", "I-X", "B-X"], ("O", "B-X", "I-X", "E-X", "S-X")) == ["B-X", "I-X", "E-X", "S-X"]
    assert in_scheme(["B-X", "I-X", "B-X"], ("O", "B-X", "I-X", "L-X", "U-X")) == ["B-X", "L-X", "U-X"]
    assert in_scheme(["B-X", "I-X", "O"], ("O", "X")) == ["X", "X", "O"]
    assert in_scheme(["B-X", "I-X"], ("O", "X-B", "X-I")) == ["X-B", "X-I"]
    assert in_scheme(["NOUN", "B-X"], ("NOUN", "VERB")) == ["NOUN", "B-X"], "no entities, nothing to write otherwise"


ROWS = "Anna B-PERSON\nBell I-PERSON\nlives O\nin O\nParis B-GPE\n\nmy O\ndog O\n\n"


def test_rows_are_scored_by_entities_whatever_the_scheme(folder, traced, tmp_path):
    (tmp_path / "dev.conll").write_text(ROWS * 3)
    source = folder("ckiplab/bert-base-chinese-ner")
    code, out, err = run("export", source, "--out", tmp_path / "out", "--dev", tmp_path / "dev.conll", "--json")
    assert code == 0, err
    assert "6 entities (GPE: 3, PERSON: 3)" in run("export", source, "--out", tmp_path / "again", "--dev", tmp_path / "dev.conll")[2]
    dev = json.loads(out)["dev"]
    assert dev["rows"] == 6 and dev["agree"] == 1 and dev["became_wrong"] == dev["became_right"] == 0
    task = Tagging(open_checkpoint(str(source)).task.tokenizer, PUBLISHED["ckiplab/bert-base-chinese-ner"][1])
    tags = in_scheme(["B-PERSON", "I-PERSON", "O", "O", "B-GPE"], task.labels)
    rows = Dataset.from_dict({"ner_tags": [[task.labels.index(tag) for tag in tags]]})
    assert are_right(task, rows, [{"tags": ["B-PERSON", "I-PERSON", "O", "O", "B-GPE"]}]) == [True]


SHORT = ROWS.replace("PERSON", "PER").replace("GPE", "LOC")


@pytest.mark.parametrize("name, text, tags", [
    ("ckiplab/bert-base-chinese-ner", ROWS, ["B-PERSON", "E-PERSON", "O", "O", "S-GPE"]),
    ("dslim/bert-base-NER", SHORT, ["B-PER", "I-PER", "O", "O", "B-LOC"]),
    ("Jean-Baptiste/roberta-large-ner-english", SHORT, ["PER", "PER", "O", "O", "LOC"]),
])  # fmt: skip
def test_rows_get_the_labels_that_the_model_would_give(folder, tmp_path, name, text, tags):
    predictor, file = open_checkpoint(str(folder(name))), tmp_path / "dev.conll"
    file.write_text(text)
    read = files.read("ner", file)
    rows, = labels.match_labels(predictor, {"dev": read}, name, None).values()
    assert rows.rows[0]["ner_tags"] == tags and rows.understood == read.understood
    assert files.as_dataset("ner", {"dev": rows}, predictor.task.labels)


def test_a_kind_of_entity_that_the_model_does_not_know_is_named_by_its_line(folder, tmp_path):
    (tmp_path / "dev.conll").write_text(ROWS)
    code, _, err = run("export", folder("monologg/koelectra-base-v3-naver-ner"), "--out", tmp_path / "out", "--dev", tmp_path / "dev.conll")
    assert code == 2 and "dev.conll, line 1: the model has no label 'B-PERSON'" in err


def test_letters_without_a_kind_are_entities():
    assert bio_tags(("O", "B", "I")) == {"O": "O", "B": "B-ENTITY", "I": "I-ENTITY"}
    assert in_scheme(["B-ENTITY", "I-ENTITY"], ("O", "B", "I", "E")) == ["B", "E"]
    assert bio_tags(("B", "I")) is None, "where a word begins, as word segmentation has it"


POS = "# text = The dog barks .\n1\tThe\tthe\tDET\n2\tdog\tdog\tNOUN\n3\tbarks\tbark\tVERB\n4\t.\t.\tPUNCT\n\n"


def test_a_file_of_parts_of_speech_trains_and_scores(tmp_path):
    train, dev, out = tmp_path / "train.conllu", tmp_path / "dev.txt", tmp_path / "model"
    train.write_text(POS * 20)
    dev.write_text("The DET\ndog NOUN\nbarks VERB\n. PUNCT\n\n" * 3)
    code, _, err = run("finetune", "--task", "ner", "--model", "bertcourse:tiny", "--train", train, "--dev", dev, "--out", out,
                       "--steps", "30", "--lr", "3e-3", "--json")
    assert code == 0 and "a label for each word, no entities" in err, err
    code, said, err = run("predict", out, dev, "--labelled")
    first = json.loads(said.splitlines()[0])
    assert first["words"] == ["The", "dog", "barks", "."] and first["tags"] == ["DET", "NOUN", "VERB", "PUNCT"]
    assert [(span["text"], span["label"], span["start"], span["end"]) for span in first["spans"]][1] == ("dog", "NOUN", 1, 2)
    assert "3 rows: accuracy 100.0%, macro_f1 100.0%" in err
    code, _, err = run("export", out, "--out", tmp_path / "exported", "--dev", dev)
    assert code == 0 and "accuracy 100.0% → 100.0%" in err, err
    entities = tmp_path / "entities.conll"
    entities.write_text(ROWS)
    code, _, err = run("export", out, "--out", tmp_path / "again", "--dev", entities)
    assert code == 2 and "the model has no label 'B-PERSON', only DET, NOUN, PUNCT, VERB" in err


@pytest.mark.parametrize("head, labels, found", [
    ("The DET\ndog NOUN\n\nMy DET\ncat NOUN\n", ("DET", "NOUN"), "conll"),
    ("The DET\ndog NOUN\nbarks VERB\n\n" * 4, (), "conll"),
    ("The DET\ndog NOUN\n\n", (), None),
    ("I agree .\nWhy not ?\nNot me !\n\n" * 9, (), None),
    ("stop !\nwhy ?\nso .\n" * 9, (), None),
    ("1\tThe\tthe\tDET\tDT\t_\t2\tdet\t_\t_\n2\tdog\tdog\tNOUN\tNN\t_\t0\troot\t_\t_\n", (), "conll"),
])
def test_files_of_words_and_labels_are_told_from_texts(head, labels, found):
    assert files.table_format("ner", head, labels=labels) == found


def test_words_with_one_label_each_are_scored_by_words(folder):
    task = open_checkpoint(str(folder("vblagoje/bert-english-uncased-finetuned-pos"))).task
    rows = [{"ner_tags": [UPOS.index(tag) for tag in ("NOUN", "VERB", "NOUN", "ADJ")]}]
    scores = task.score([{"tags": ["NOUN", "VERB", "VERB", "ADJ"]}], rows)
    assert task.better == ("accuracy", "max") and scores["accuracy"] == 0.75 and 0 < scores["macro_f1"] < 1 and "f1" not in scores


def test_a_teacher_with_another_scheme_labels_rows(folder):
    predictor = open_checkpoint(str(folder("Jean-Baptiste/roberta-large-ner-english")))
    row, = teacher_labels(predictor.task, predictor.model, [{"tokens": ["Anna", "Bell", "lives", "in", "Paris"]}])
    assert predictor.task.truth([row])[0] and len(row["ner_tags"]) == 5


# --- labels without names -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def unnamed(tmp_path_factory):
    "A classifier as transformers' Trainer leaves it, and files."
    base = tmp_path_factory.mktemp("unnamed")
    rows = [("the film is very good", "good"), ("the film is not good at all", "bad")] * 6
    files = {"names": rows, "numbers": [(text, str(int(label == "good"))) for text, label in rows], "three": [*rows, ("a film", "other")]}
    for name, of in files.items():
        (base / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in of))
    checkpoints.checkpoint(base / "model", "bert", "classification")
    return base


def labels_of(folder) -> list[str]:
    return json.loads((folder / "bertcourse.json").read_text())["labels"]


@pytest.mark.parametrize("file, options, expected", [
    ("names", (), ["bad", "good"]), ("numbers", (), ["0", "1"]), ("names", ("--labels", "good,bad"), ["good", "bad"]),
    ("names", ("--labels", '["good", "bad"]'), ["good", "bad"]),
])  # fmt: skip
def test_labels_without_names_are_taken_in_order(unnamed, traced, tmp_path, file, options, expected):
    code, _, err = run("export", unnamed / "model", "--out", tmp_path / "out", "--dev", unnamed / f"{file}.tsv", *options)
    assert code == 0, err
    assert labels_of(tmp_path / "out") == expected
    assert ("taken in order as " + ", ".join(expected) in err) == (not options)
    assert json.loads((tmp_path / "out/config.json").read_text())["id2label"] == dict(zip("01", expected))
    if options:
        accuracy = json.loads(run("export", unnamed / "model", "--out", tmp_path / "x", "--dev", unnamed / "names.tsv", "--json")[1])["dev"]
        other = json.loads(run("export", unnamed / "model", "--out", tmp_path / "y", "--dev", unnamed / "names.tsv", *options, "--json")[1])["dev"]
        assert accuracy["before"]["accuracy"] == pytest.approx(1 - other["before"]["accuracy"])


@pytest.mark.parametrize("options, says", [
    (("--dev", "three.tsv"), "has 2 labels without names, three.tsv 3 (bad, good, other): give the names of all"),
    (("--labels", "a,b,c"), "--labels has 3 names, model has 2 labels (LABEL_0, LABEL_1)"),
    (("--labels", "a"), "each name once"), (("--labels", "a,a"), "each name once"), (("--labels", '["a", 1]'), "each name once"),
])  # fmt: skip
def test_what_nobody_can_know_is_refused(unnamed, tmp_path, options, says, monkeypatch):
    options = [unnamed / word if word.endswith(".tsv") else word for word in options]
    call = commands.Training("export")
    if "each name once" in says:
        assert says in call.call(unnamed / "model", "--out", tmp_path / "out", *options)[2]
    else:
        call.in_both_languages(monkeypatch, says, unnamed / "model", "--out", tmp_path / "out", *options, left=tmp_path / "out")


def test_names_of_the_model_that_the_file_does_not_have(unnamed, tmp_path, monkeypatch):
    model = checkpoints.checkpoint(tmp_path / "model", "bert", "classification", ("NEG", "POS"))
    commands.Training("export").in_both_languages(
        monkeypatch, "has the labels NEG, POS, numbers.tsv 0, 1: if they mean the same, give the file's with --labels",
        model, "--out", tmp_path / "out", "--dev", unnamed / "numbers.tsv", left=tmp_path / "out")


def test_predict_names_the_labels(unnamed, traced, tmp_path):
    assert run("export", unnamed / "model", "--out", tmp_path / "out", "--quiet")[0] == 0
    for folder in (unnamed / "model", tmp_path / "out"):
        plain, named = (json.loads(run("predict", folder, *more, stdin="a good film\n")[1]) for more in ((), ("--labels", "bad,good")))
        assert plain["label"].startswith("LABEL_") and named["label"] == ("bad", "good")[int(plain["label"][-1])]


def test_distill_takes_the_names_of_the_file(unnamed, tmp_path):
    options = ("--teacher", unnamed / "model", "--student", '{"num_hidden_layers": 1}', "--train", unnamed / "names.tsv", "--method", "kd",
               "--steps", 1)  # fmt: skip
    code, _, err = run("distill", *options, "--out", tmp_path / "out")
    assert code == 0 and "labels without names (LABEL_0 …): taken in order as bad, good" in err, err
    assert labels_of(tmp_path / "out") == ["bad", "good"]
    code, _, err = run("distill", *options, "--out", tmp_path / "other", "--labels", "good,bad")
    assert code == 0 and labels_of(tmp_path / "other") == ["good", "bad"]


def test_bench_gives_all_models_the_same_names(unnamed):
    class Tell:
        said = []

        def info(self, en, zh):
            self.said.append(en)

    found = [benchmarking.Entry(name, "pytorch", open_checkpoint(str(unnamed / "model")), 1.0, None) for name in ("first", "second")]
    labels.rename(found[1].predictor, ["bad", "good"], "second")
    benchmarking.share_names(found, Tell())
    assert found[0].predictor.task.labels == ("bad", "good") and "first has labels without names" in Tell.said[0]
    assert found[0].predictor.model.config.label2id == {"bad": 0, "good": 1}


def test_labels_of_a_task_without_labels(unnamed, tmp_path):
    model = checkpoints.checkpoint(tmp_path / "model", "bert", "qa")
    with pytest.raises(UserError, match="has no labels: leave it out"):
        open_checkpoint(str(model), ["a", "b"])


def test_order_of_names_is_that_of_finetune():
    assert labels.in_order({"10", "9", "b", "O", "-1", "a"}) == ["O", "-1", "9", "10", "a", "b"]
    assert labels.are_unnamed(("LABEL_0", "LABEL_1")) and not labels.are_unnamed(("LABEL_1", "LABEL_0")) and not labels.are_unnamed(())
