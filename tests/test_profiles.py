"""`bertcourse.profiles`: what a profile is made of, what goes wrong with it, and the hub, played by `stub_hub`."""

import csv
import functools
import inspect
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from httpx import UnsupportedProtocol
from safetensors.torch import load_file, save_file
from stub_hub import Fault, StubHub
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from bertcourse import corpus_tasks, profiles
from bertcourse.assets import asset
from bertcourse.base.messages import UserError
from bertcourse.profiles import FAMILIES, HUB_DATA, TASKS, ProfileError, load

SHIPPED = asset("tiny-bert")
WORDS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
SHAPE = dict(vocab_size=2083, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512,
             max_position_embeddings=128)  # fmt: skip


def put_tokenizer(folder):
    """The course's tokenizer, into a folder."""
    for name in WORDS:
        shutil.copy(SHIPPED / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A checkpoint like the shipped one, with random weights where that is not there yet."""
    folder = tmp_path_factory.mktemp("checkpoints") / "whole"
    if (SHIPPED / "model.safetensors").is_file():
        shutil.copytree(SHIPPED, folder)
        return folder
    torch.manual_seed(0)
    transformers.BertForPreTraining(transformers.BertConfig(**SHAPE)).save_pretrained(folder)
    return put_tokenizer(folder)


@pytest.fixture
def tiny(whole, monkeypatch):
    """The default profile."""
    monkeypatch.setattr(profiles, "asset", lambda name: whole)
    return load("tiny")


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of the checkpoint for a fault to be planted in."""
    return shutil.copytree(whole, tmp_path / "mine")


def sentence(call, *args, **kw):
    """What a mistake is answered with: one sentence in either language, and no other exception shown with it."""
    with pytest.raises(ProfileError) as caught:
        call(*args, **kw)
    return checked(caught.value)


def checked(error):
    """The English sentence, once both have been looked at."""
    assert isinstance(error, UserError) and isinstance(error, ValueError)
    assert error.__suppress_context__ or error.__context__ is None
    for text in (error.en, error.zh):
        assert text and "\n" not in text and len(text) < 330, text
    assert any("\u4e00" <= c <= "\u9fff" for c in error.zh) and error.text("zh") == error.zh and str(error) == error.en
    return error.en


# --- profiles -----------------------------------------------------------------------------------------------------


def test_names(monkeypatch, whole):
    monkeypatch.delenv("BERTCOURSE_PROFILE", raising=False)
    assert load().name == load("tiny").name == "tiny" and load("tiny") == load("tiny")
    assert load("base").languages == ("en", "zh") and load("base").max_length == 512 and hash(load("base"))
    monkeypatch.setenv("BERTCOURSE_PROFILE", "base")
    assert load().name == "base" and load("tiny").name == "tiny"
    monkeypatch.setenv("BERTCOURSE_PROFILE", str(whole))
    assert load().encoder == str(whole) and load(whole) == load() and load(load()) == load()
    assert load().tasks() == (), "a folder brings no data, whatever it is called"


def test_a_folder_called_tiny_is_not_the_profile(whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert load("./tiny").tasks() == () and load("bertcourse:tiny").tasks() != ()


@pytest.mark.parametrize("name", ["tinny", "bert-base-uncased", "./no", "../no", "/no/where", "~/no", "a/b/c", "no/", "C:\\no", "a b/c"])
def test_unknown_names_ask_nobody(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", lambda *a, **k: pytest.fail("asked the hub"))
    monkeypatch.setattr(profiles, "_ask", lambda *a, **k: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    assert sentence(load, name).startswith(f"there is no profile or folder {name}: give tiny, base,")


def test_a_missing_folder_beside_others_is_not_a_hub_name(monkeypatch, tmp_path):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "no profile or folder runs/last" in sentence(load, "runs/last")
    Path("file.bin").touch()
    assert "no profile or folder file.bin" in sentence(load, "file.bin")


def test_tiny(tiny):
    tokenizer = tiny.tokenizer()
    assert tiny.languages == ("en", "zh") and tiny.max_length == tokenizer.model_max_length == 128
    assert len(tokenizer("dog " * 300, truncation=True)["input_ids"]) == 128
    assert tokenizer("my dog").input_ids == tiny.tokenizer("zh")("my dog").input_ids
    assert tiny.model(AutoModelForMaskedLM).newly_initialised == ()
    model = tiny.model(AutoModelForSequenceClassification, lang="zh", num_labels=3)
    assert model.newly_initialised == ("classifier.bias", "classifier.weight") and model.config.num_labels == 3
    assert not model.training and model.dtype == torch.float32
    assert tiny.model(AutoModel, dtype=torch.bfloat16).dtype == torch.bfloat16
    eager = tiny.model(AutoModel, attn_implementation="eager", output_attentions=True)
    assert len(eager(**tokenizer("my dog", return_tensors="pt")).attentions) == tiny.teacher_config.num_hidden_layers
    assert "no 'fr', only en, zh" in sentence(tiny.tokenizer, "fr") == sentence(tiny.dataset, "text", "fr")


def test_teacher_and_student(tiny):
    teacher, student = tiny.teacher_config, tiny.student_config
    assert (teacher.num_hidden_layers, teacher.hidden_size) == (4, 128)
    assert (student.num_hidden_layers, student.hidden_size, student.num_attention_heads) == (2, 40, 4)
    assert student.vocab_size == teacher.vocab_size and student.max_position_embeddings == 128
    teacher.num_labels = 17  # a copy: nobody else sees it
    assert tiny.teacher_config.num_labels != 17
    base = profiles._student(transformers.BertConfig())
    assert (base.num_hidden_layers, base.hidden_size, base.num_attention_heads, base.intermediate_size) == (4, 312, 12, 1200)
    with torch.device("meta"):
        assert AutoModel.from_config(base).num_parameters() == 14_350_248  # TinyBERT-4


def test_toy_text(tiny, monkeypatch):
    whole = inspect.signature(profiles.toy_text).parameters["documents"].default
    assert whole == {"train": 8000, "validation": 500, "test": 500}
    few = {split: n // 10 for split, n in whole.items()}
    monkeypatch.setitem(profiles.TOY_DATA, "text", functools.partial(profiles.toy_text, documents=few))
    zh, en = tiny.dataset("text", "zh"), tiny.dataset("text")
    assert {split: len(rows) for split, rows in zh.items()} == few
    assert en["test"].column_names == list(TASKS["text"])
    row = en["train"][7]
    assert row["text"] == " ".join(row["sentences"]) and len(row["sentences"]) >= 3
    assert zh["test"][0]["text"] == "".join(zh["test"][0]["sentences"])
    assert not set(en["train"]["text"]) & set(en["test"]["text"])
    assert "has no data for 'poetry', only text, sentiment, nli" in sentence(tiny.dataset, "poetry")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_toy_tasks(lang, tiny, monkeypatch):
    sizes = {"train": 9, "validation": 2, "test": 2}  # in full they take a minute
    monkeypatch.setattr(corpus_tasks, "dataset", functools.partial(corpus_tasks.dataset, sizes=sizes))
    extra = {"sentiment": ("gold", "kind"), "nli": ("gold", "kind"), "similarity": ("gold",), "ner": (), "qa": ("kind",)}
    assert tiny.tasks(lang) == ("text", *extra)
    for task, more in extra.items():
        data = tiny.dataset(task, lang)
        assert data.num_rows == sizes and tuple(data["train"].column_names) == (*TASKS[task], *more)


def test_tables(tiny, monkeypatch, tmp_path, whole):
    shown = tiny._repr_mimebundle_()["text/plain"]
    assert "4 | 128 | 4" in shown and str(whole) not in shown and "None" not in shown
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load("base").describe()._repr_mimebundle_()["text/plain"].count("not downloaded yet") == 2
    assert load("base").only("zh").languages == ("zh",) and "chinese" in load("base").only("zh").encoder


def test_import_is_light():
    program = "import sys, bertcourse.profiles as p; p.load(); print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, tmp_path):
    more = {"albert": {"embedding_size": 16}, "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 32, "true_hidden_size": 32}}
    sizes = dict(hidden_dim=64) if family == "distilbert" else dict(intermediate_size=64)
    config = AutoConfig.for_model(
        family, vocab_size=2100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0,
        max_position_embeddings=50, **sizes, **more.get(family, {}),
    )  # fmt: skip
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    profile = load(put_tokenizer(tmp_path))
    assert profile.max_length == (49 if family in ("roberta", "xlm-roberta") else 50) and profile.languages == ("en", "zh")
    inputs = profile.tokenizer()("dog " * 99, truncation=True, return_tensors="pt")
    if family in ("distilbert", "roberta"):
        inputs.pop("token_type_ids")
    for head in (AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoModelForQuestionAnswering):
        model = profile.model(head)
        prefix = "" if head is AutoModel else model.base_model_prefix + "."
        assert all(not name.startswith(prefix) or "pooler" in name for name in model.newly_initialised)
        assert bool(model.newly_initialised) or head is AutoModel
        model(**inputs)
    student = AutoModel.from_config(profile.student_config)
    assert student(**inputs).last_hidden_state.shape[-1] == 8


def test_the_languages_are_those_of_the_tokenizer(copy):
    assert load(copy).languages == ("en", "zh")
    vocabulary = (copy / "vocab.txt").read_text().split("\n")
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join("[unused]" + w if any("\u4e00" <= c for c in w) else w for w in vocabulary))
    assert load(copy).languages == ("en",)


def test_configurations_of_the_first_berts_name_no_family(tmp_path):
    """Google's and Huawei's, TinyBERT's among them: no model_type, and a vocab.txt."""
    copy = tmp_path / "tinybert"
    shutil.copytree(asset("tiny-bert"), copy)
    settings = json.loads((copy / "config.json").read_text())
    for name in ("model_type", "architectures", "transformers_version"):
        settings.pop(name, None)
    (copy / "config.json").write_text(json.dumps(settings | {"pre_trained": "", "training": ""}))
    for file in copy.glob("*token*"):
        file.unlink()
    found = load(copy)
    assert found.teacher_config.model_type == "bert" and found.languages == ("en", "zh")
    labels = {"num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}, "problem_type": "single_label_classification"}
    model = found.model(AutoModelForSequenceClassification, attn_implementation="eager", **labels)
    assert model.newly_initialised == ("classifier.bias", "classifier.weight") and model.config.id2label[2] == "c"
    assert model.config._attn_implementation == "eager" and model.classifier.out_features == 3
    assert found.tokenizer().get_vocab() == load("tiny").tokenizer().get_vocab()


def test_a_name_that_is_also_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BERTCOURSE_PROFILE", raising=False)
    (tmp_path / "tiny").mkdir()
    with pytest.raises(ProfileError, match=r"tiny is both a model of the course and a path here: write bertcourse:tiny or \./tiny"):
        load("tiny")
    assert load().name == load("bertcourse:tiny").name == "tiny"  # without a name nothing is ambiguous
    (tmp_path / "base").symlink_to("nowhere")
    with pytest.raises(ProfileError, match="base is both"):
        load("base")


# --- checkpoints with a fault -------------------------------------------------------------------------------------


def rewrite_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


FAULTS = {
    "no config": (lambda f: (f / "config.json").unlink(), "mine is no checkpoint: it has no config.json"),
    "broken config": (lambda f: (f / "config.json").write_text('{"a":'), "config.json is not valid JSON (Expecting"),
    "a list for config": (lambda f: (f / "config.json").write_text("[1]"), "has model_type None"),
    "no type, and not BERT's keys": (lambda f: (f / "config.json").write_text('{"hidden_size": 128}'), "has model_type None"),
    "gpt2": (lambda f: rewrite_config(f, model_type="gpt2"), "has model_type 'gpt2': give a checkpoint of albert, bert,"),
    "no type": (lambda f: rewrite_config(f, model_type=None), "has model_type None"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff"), "config.json is not valid JSON ('utf-8' codec"),
    "nonsense in config": (lambda f: rewrite_config(f, hidden_size="wide"), "config.json cannot be used (Validation error for field"),
    "heads that do not divide": (lambda f: rewrite_config(f, num_attention_heads=3), "attention heads (3)): fix it"),
    "unknown activation": (lambda f: rewrite_config(f, hidden_act="jelu"), "config.json cannot be used (no 'jelu'): fix it"),
    "no tokenizer": (lambda f: [(f / w).unlink() for w in WORDS], "mine has no tokenizer: put the model's"),
    "only its settings": (lambda f: [(f / w).unlink() for w in WORDS[::2]], "mine has no tokenizer: put the model's"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "the tokenizer in"),
    "empty vocabulary": (lambda f: [(f / "tokenizer.json").unlink(), (f / "vocab.txt").write_text("")], "has 5 tokens"),
    "another's tokenizer": (lambda f: rewrite_config(f, vocab_size=99), "2,083 tokens, the model's vocabulary 99"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has a config.json but no weights"),
    "cut weights": (lambda f: os.truncate(f / "model.safetensors", 99999), "the weights in"),
    "no bytes": (lambda f: os.truncate(f / "model.safetensors", 0), "the weights in"),
    "broken index": (lambda f: [(f / "model.safetensors").unlink(), (f / "model.safetensors.index.json").write_text("{")], "the weights in"),
    "wider config": (lambda f: rewrite_config(f, intermediate_size=64), "of the encoder are missing or of another size"),
    "deeper config": (lambda f: rewrite_config(f, num_hidden_layers=9), "of the encoder are missing or of another size"),
    "a layer lost": (lambda f: rewrite_weights(f, lambda t: [t.pop(n) for n in list(t) if ".layer.2." in n]), "no whole BertModel: 16"),
    "other names": (lambda f: rewrite_weights(f, lambda t: [t.update({"x." + n: t.pop(n)}) for n in list(t)]), "no whole BertModel"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_checkpoint_is_refused_by_name(fault, copy, capfd):
    break_it, expected = FAULTS[fault]
    assert load(copy).model(AutoModel).newly_initialised == ()
    break_it(copy)
    assert expected in sentence(lambda: load(copy).model(AutoModel))
    assert capfd.readouterr() == ("", "")


def test_a_damaged_old_checkpoint(copy):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    assert load(copy).model(AutoModel).newly_initialised == ()
    os.truncate(copy / "pytorch_model.bin", 5000)
    assert "the weights in" in sentence(load(copy).model, AutoModel)
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(print))
    assert "the weights in" in sentence(load(copy).model, AutoModel)


def test_heads(copy, tmp_path):
    profile = load(copy)
    profile.model(AutoModelForSequenceClassification, num_labels=3).save_pretrained(put_tokenizer(tmp_path))
    trained = load(tmp_path)
    assert trained.model(AutoModelForSequenceClassification).newly_initialised == ()
    text = sentence(trained.model, AutoModelForSequenceClassification, num_labels=2)
    assert text.startswith("classifier.bias is (3,) in") and "(2,) here" in text
    fresh = trained.model(AutoModelForSequenceClassification, num_labels=2, ignore_mismatched_sizes=True)
    assert fresh.newly_initialised == ("classifier.bias", "classifier.weight") and fresh.config.num_labels == 2
    assert trained.model(AutoModelForMaskedLM).newly_initialised[0].startswith("cls.predictions")
    assert "no AutoModelForSeq2SeqLM for bert" in sentence(profile.model, AutoModelForSeq2SeqLM)
    assert "no whole DistilBertModel" in sentence(profile.model, transformers.DistilBertModel)
    with pytest.raises(TypeError):
        profile.model(AutoModel, colour="green")  # a slip of the programmer's stays what it is


def test_the_libraries_talk_as_before(tiny):
    logging = transformers.utils.logging
    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    tiny.model(AutoModel)
    assert logging.get_verbosity() == logging.WARNING and logging.is_progress_bar_enabled()


# --- files of one's own -------------------------------------------------------------------------------------------


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


GOOD = [  # task, file, its text, the rows
    ("sentiment", "a.tsv", 'text\tlabel\n"so so\tbad\nNA\tgood\n\nnull\tgood\n',
     [{"sentence": '"so so', "label": 0}, {"sentence": "NA", "label": 1}, {"sentence": "null", "label": 1}]),
    ("sentiment", "a.csv", '\ufeffsentence,id,label\r\n"a, ""b""\nc",1,0\r\nd,2,10\r\ne,3,2\r\n',
     [{"sentence": 'a, "b"\nc', "label": 0}, {"sentence": "d", "label": 2}, {"sentence": "e", "label": 1}]),
    ("nli", "a.jsonl", '{"premise": "甲", "hypothesis": "乙", "label": "no"}\n\n{"premise": "a", "hypothesis": "b", "label": "-"}\n'
     '{"premise": "a", "hypothesis": "b", "label": "yes"}',
     [{"sentence1": "甲", "sentence2": "乙", "label": 0}, {"sentence1": "a", "sentence2": "b", "label": 1}]),
    ("pairs", "a.json", '{"sentence1": "a", "sentence2": "b", "label": true, "x": null}\n{"sentence1": "", "sentence2": "b", "label": 0}',
     [{"sentence1": "a", "sentence2": "b", "label": 1}, {"sentence1": "", "sentence2": "b", "label": 0}]),
    ("classification", "a.tsv", "sentence\tlabel\n-\t-\n-\t+\n", [{"sentence": "-", "label": 1}, {"sentence": "-", "label": 0}]),
    ("similarity", "a.csv", "sentence1,sentence2,score\na,b,2.5\n", [{"sentence1": "a", "sentence2": "b", "label": 2.5}]),
    ("ner", "a.conll", "-DOCSTART- -X- O O\n\nAnna NNP I-NP B-PER\nwept VBD I-VP O\n\n\nOslo NNP I-NP B-LOC",
     [{"tokens": ["Anna", "wept"], "ner_tags": [2, 0]}, {"tokens": ["Oslo"], "ner_tags": [1]}]),
    ("ner", "a.txt", "a\u2028b\tO\n\t\n弹 吉他\tB-X\r\n", [{"tokens": ["a\u2028b"], "ner_tags": [0]}, {"tokens": ["弹 吉他"], "ner_tags": [1]}]),
    ("qa", "a.json", json.dumps({"data": [{"paragraphs": [{"context": "my dog", "qas": [
        {"id": 7, "question": "who?", "answers": [{"text": "dog", "answer_start": 3}]},
        {"id": "8", "question": "what?", "answers": [], "is_impossible": True}]}]}]}),
     [{"id": "7", "context": "my dog", "question": "who?", "answers": {"text": ["dog"], "answer_start": [3]}},
      {"id": "8", "context": "my dog", "question": "what?", "answers": {"text": [], "answer_start": []}}]),
    ("text", "a.jsonl", '{"text": "A. B.", "sentences": ["A.", "B."]}\n', [{"text": "A. B.", "sentences": ["A.", "B."]}]),
]  # fmt: skip


@pytest.mark.parametrize("task, name, text, rows", GOOD, ids=[f"{task}-{name}" for task, name, *_ in GOOD])
def test_own_files(task, name, text, rows, tiny, tmp_path):
    data = tiny.dataset(task, files={"train": write(tmp_path, name, text)})["train"]
    assert data.to_list() == rows and tuple(data.column_names) == TASKS[task]
    if "label" in rows[0] and task != "similarity":
        assert data.features["label"].names == sorted(data.features["label"].names, key=lambda n: (len(n), n))


def squad(**change):
    qa = {"id": "q1", "question": "who?", "answers": [{"text": "dog", "answer_start": 3}]} | change
    return json.dumps({"data": [{"paragraphs": [{"context": "my dog", "qas": [qa]}]}]})


BAD = [  # task, file, its text, what is said
    ("sentiment", "a.tsv", "sentence\tlabel\na\t1\nb\n", "a.tsv, line 3: the header has 2 fields, this row 1"),
    ("sentiment", "a.tsv", "sentence\tlabel\n\na\tb\tc\n", "a.tsv, line 3: the header has 2 fields, this row 3"),
    ("sentiment", "a.csv", "sentence,label\n\"a\nb\",1\nc\n", "a.csv, line 4: the header has 2 fields, this row 1"),
    ("sentiment", "a.csv", 'sentence,label\n"a" b,1\n', "a.csv, line 2: "),
    ("sentiment", "a.csv", 'sentence,label\n"a,1\n', "a.csv, line 2: not CSV (unexpected end of data)"),
    ("sentiment", "a.tsv", "opinion\tlabel\na\t1\n", "a.tsv, line 1: no column 'sentence', only opinion, label"),
    ("sentiment", "a.tsv", "sentence\tlabel\n", "a.tsv has no rows"),
    ("sentiment", "a.tsv", "", "a.tsv has no rows"),
    ("sentiment", "a.xlsx", "PK\3\4", "a.xlsx is a zip archive or an Excel workbook: save it as CSV"),
    ("sentiment", "a.jsonl", '{"sentence": "a", "label": 1}\n{"sentence":\n', "a.jsonl, line 2: not valid JSON"),
    ("sentiment", "a.jsonl", '["a", 1]\n', "a.jsonl, line 1: not a JSON object"),
    ("sentiment", "a.jsonl", '{"sentence": "a", "label": null}\n', "a.jsonl, line 1: the label is empty"),
    ("sentiment", "a.jsonl", '{"sentence": 5, "label": 1}\n', "a.jsonl, line 1: 'sentence' is not text"),
    ("similarity", "a.csv", "sentence1,sentence2,label\na,b,3\na,b,high\n", "a.csv, line 3: 'high' is not a number"),
    ("ner", "a.conll", "a O\nb B-X\nc\n", "a.conll, line 3: no tag such as O or B-PER after 'c'"),
    ("ner", "a.conll", "a B-X\nb person\n", "a.conll, line 2: no tag such as O or B-PER after 'b'"),
    ("ner", "a.conll", "\n\n", "a.conll has no rows"),
    ("qa", "a.json", squad(answers=[{"text": "cat", "answer_start": 3}]), "a.json has no rows (1 skipped: no certain place for the answer)"),
    ("qa", "a.json", squad(answers=[{"text": "dog"}]), "a.json, question q1: no 'answer_start' that is a number"),
    ("qa", "a.json", squad(answers=[{"text": "dog", "answer_start": "3"}]), "a.json, question q1: no 'answer_start' that is a number"),
    ("qa", "a.json", squad(question=3), "a.json, question q1: no 'question' that is text"),
    ("qa", "a.json", '{"data": [\n{]}', "a.json, line 2: not valid JSON"),
    ("qa", "a.json", "[1]", "a.json: no 'data' that is a list"),
    ("text", "a.jsonl", '{"text": "A."}\n', "a.jsonl, line 1: no column 'sentences', only text"),
]  # fmt: skip


@pytest.mark.parametrize("task, name, text, expected", BAD, ids=[f"{t}-{n}-{i}" for i, (t, n, *_) in enumerate(BAD)])
def test_a_fault_in_a_file_is_named_by_line(task, name, text, expected, tiny, tmp_path):
    assert expected in sentence(tiny.dataset, task, files={"train": write(tmp_path, name, text)})


def test_faults_of_several_files(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.tsv", "sentence\tlabel\na\tyes\nb\tno\n")
    write(tmp_path, "b.tsv", "sentence\tlabel\na\tyes\nb\tmaybe\n")
    write(tmp_path, "latin.tsv", "sentence\tlabel\na\tyes\ncafé\tyes\n", "latin-1")

    def said(**files):
        return sentence(tiny.dataset, "sentiment", files=files)

    assert said(train="a.tsv", test="b.tsv") == "b.tsv, line 3: train has no label 'maybe', only no, yes: correct it, or train with it"
    assert said(train="latin.tsv") == "latin.tsv: every label is 'yes': give at least two classes to tell apart"
    Path("folder.tsv").mkdir()
    assert said(train="no.tsv").startswith("no.tsv cannot be read: ") and said(train="folder.tsv").startswith("folder.tsv cannot")
    assert said(dev="a.tsv") == "files has a key 'dev': use train, validation or test" and "files is empty" in said()
    assert "no data for 'poetry', only text, sentiment" in sentence(tiny.dataset, "poetry", files={"train": "a.tsv"})


def test_a_long_field_is_no_reason_to_crash(tiny, tmp_path):
    long = "x" * (csv.field_size_limit() + 1)
    path = write(tmp_path, "a.tsv", f"sentence\tlabel\n{long}\t1\nb\t0\n")
    assert tiny.dataset("sentiment", files={"train": path})["train"]["sentence"][:] == [long, "b"]
    path = write(tmp_path, "a.csv", f"sentence,label\n{long},1\nb,0\n")
    assert tiny.dataset("sentiment", files={"train": path})["train"]["sentence"][:] == [long, "b"]
    assert csv.field_size_limit() == len(long) - 1  # the limit of others is not touched


def test_columns_of_own_files(tiny, tmp_path):
    path = write(tmp_path, "a.tsv", "opinion\tstars\na\t1\nb\t5\n")
    data = tiny.dataset("sentiment", files={"train": path}, columns={"sentence": "opinion", "label": "stars"})["train"]
    assert data.to_list() == [{"sentence": "a", "label": 0}, {"sentence": "b", "label": 1}]
    assert "no column 'star', only opinion, stars" in sentence(tiny.dataset, "sentiment", files={"train": path}, columns={"label": "star"})


DATA = os.environ.get("BERTCOURSE_DATA")


@pytest.mark.skipif(not DATA, reason="BERTCOURSE_DATA names no folder with real data")
def test_real_files(tiny):
    def read(task, **files):
        return tiny.dataset(task, files={split: Path(DATA, path) for split, path in files.items()})

    sst2 = read("sentiment", train="sst2/train.tsv", validation="sst2/dev.tsv")
    assert (len(sst2["train"]), len(sst2["validation"])) == (67349, 872) and sum(sst2["validation"]["label"]) == 444
    assert None not in sst2["train"]["sentence"]
    wnut = read("ner", train="wnut17/train.conll", validation="wnut17/dev.conll", test="wnut17/test.conll")
    assert {split: len(rows) for split, rows in wnut.items()} == {"train": 3394, "validation": 1009, "test": 1287}
    names = wnut["train"].features["ner_tags"].feature.names
    assert names[0] == "O" and len(names) == 13
    qa = read("qa", train="xquad/xquad.en.json", validation="xquad/xquad.zh.json")
    assert len(qa["train"]) == len(qa["validation"]) == 1190
    nli = read("nli", train="ocnli/train.10k.json", validation="ocnli/dev.json")
    assert (len(nli["train"]), len(nli["validation"])) == (9985, 2950)
    assert nli["train"].features["label"].names == ["contradiction", "entailment", "neutral"]
    assert "test.json, line 1: no column 'label'" in sentence(read, "nli", train="ocnli/test.json")


CHECKPOINT = os.environ.get("BERTCOURSE_CHECKPOINT")


@pytest.mark.skipif(not CHECKPOINT, reason="BERTCOURSE_CHECKPOINT names no folder with a real uncased BERT checkpoint")
def test_a_real_checkpoint():
    profile = load(CHECKPOINT)
    assert "en" in profile.languages and profile.max_length == 512
    assert profile.model(AutoModel).newly_initialised in ((), ("pooler.dense.bias", "pooler.dense.weight"))
    assert profile.model(AutoModelForSequenceClassification).newly_initialised == ("classifier.bias", "classifier.weight")
    assert profile.student_config.vocab_size == len(profile.tokenizer()) == 30522


# --- the hub ------------------------------------------------------------------------------------------------------


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


CARD = """---
configs:
- config_name: sst2
  data_files: [{split: train, path: sst2/train-*}, {split: validation, path: sst2/validation-*}, {split: test, path: sst2/test-*}]
dataset_info:
- config_name: sst2
  features:
  - {name: sentence, dtype: string}
  - {name: label, dtype: {class_label: {names: {'0': negative, '1': positive}}}}
  - {name: idx, dtype: int32}
---
"""


def sst2(n, label=None):
    numbers = list(range(n))
    labels = [i % 2 if label is None else label for i in numbers]
    return parquet(sentence=[f"film {i}" for i in numbers], label=labels, idx=pa.array(numbers, pa.int32()))


def repositories(whole):
    """Small repositories, laid out as the real ones are."""
    model = {path.name: path.read_bytes() for path in whole.iterdir()}
    old = {name: data for name, data in model.items() if name != "model.safetensors"}
    buffer = io.BytesIO()
    torch.save(load_file(whole / "model.safetensors"), buffer)
    tags = parquet(tokens=[["Anna", "wept"]] * 30, ner_tags=[[1, 0]] * 30)
    reviews, pairs = parquet(text=["好", "坏"] * 5, label=[1, 0] * 5), parquet(sentence1=["a"] * 9, sentence2=["b"] * 9, score=[3] * 9)
    return {
        "models/ann/bert": model,
        "models/ann/cut": model,
        "models/ann/once": model,
        "models/ann/old": old | {"pytorch_model.bin": buffer.getvalue()},
        "models/ann/empty": {"README.md": b"# nothing"},
        "models/ann/gpt": {"config.json": b'{"model_type": "gpt2"}'},
        "models/ann/mute": {"config.json": model["config.json"], "model.safetensors": model["model.safetensors"]},
        "models/" + profiles.BASE["zh"]: model,
        "datasets/nyu-mll/glue": {
            "README.md": CARD.encode(), "sst2/train-00000-of-00001.parquet": sst2(45),
            "sst2/validation-00000-of-00001.parquet": sst2(8), "sst2/test-00000-of-00001.parquet": sst2(6, label=-1)},
        "datasets/eriktks/conll2003": {"README.md": b"", "conll2003.py": b"raise SystemExit"},
        "datasets/eriktks/conll2003@refs/convert/parquet": {
            f"conll2003/{split}/0000.parquet": tags for split in ("train", "validation", "test")},
        "datasets/lansinuote/ChnSentiCorp": {
            f"data/{split}-00000-of-00001-02f2.parquet": reviews for split in ("train", "validation", "test")},
        "datasets/C-MTEB/STSB": {f"data/{split}-0.parquet": pairs for split in ("train", "validation", "test")},
        "datasets/levow/msra_ner@refs/convert/parquet": {f"msra_ner/{split}/0000.parquet": tags for split in ("train", "test")},
        "datasets/rajpurkar/squad": {"plain_text/train-0.parquet": parquet(id=["1"], text=["a"]), "plain_text/validation-0.parquet": parquet(id=["1"], text=["a"])},
    }  # fmt: skip


LOOP = """
import json, sys
from transformers import AutoModel, AutoModelForSequenceClassification as Classifier
from bertcourse.profiles import ProfileError, load
def rows(data): return {split: len(part) for split, part in data.items()}
for line in sys.stdin:
    try: answer = {"value": eval(line)}
    except ProfileError as error: answer = {"en": error.en, "zh": error.zh}
    except BaseException as error: answer = {"crash": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
"""


class User:
    """A process with an environment of its own, since HF_ENDPOINT and HF_HUB_OFFLINE are read at import."""

    def __init__(self, env, log):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOOP], env=env, cwd=log.parent, text=True, encoding="utf-8",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w", encoding="utf-8"),
        )  # fmt: skip

    def ask(self, expression):
        """The value of an expression in that process, or the sentence of its `ProfileError`."""
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process died:\n{self.log.read_text()}"
        answer = json.loads(line)
        assert "crash" not in answer, f"{expression}: {answer['crash']}"
        return answer["value"] if "value" in answer else checked(ProfileError(answer["en"], answer["zh"]))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        log = self.log.read_text(encoding="utf-8")
        assert "Traceback" not in log and "LOAD REPORT" not in log and "Retrying" not in log


@pytest.fixture(scope="module")
def hub(whole):
    with StubHub(repositories(whole)) as hub:
        yield hub


@pytest.fixture(scope="module")
def users(hub, tmp_path_factory):
    """Makes users of a cache, by name and environment; equal ones are one process."""
    folder, made = tmp_path_factory.mktemp("users"), {}

    def user(home, **env):
        key = "-".join((home, *env))
        if key not in made:
            quick = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
            made[key] = User(hub.environment(folder / home, **quick, **env), folder / f"{key}.log")
        return made[key]

    yield user
    for one in made.values():
        one.close()


@pytest.fixture(scope="module")
def stranded(tmp_path_factory):
    """A user with an empty cache, and a hub that cannot be reached."""
    folder = tmp_path_factory.mktemp("stranded")
    with StubHub({}) as closed:
        env = closed.environment(folder, PYTHONPATH=str(Path(__file__).parents[1]))
    user = User(env, folder / "log")
    yield user, closed
    user.close()


MODEL = "load('ann/bert').model(AutoModel).newly_initialised"
SENTIMENT = "rows(load('base').dataset('sentiment'))"
REVIEWS = "rows(load('base').dataset('sentiment', 'zh'))"
NER = "rows(load('base').dataset('ner'))"
DOWNLOADED = {MODEL: [], SENTIMENT: {"train": 41, "validation": 4, "test": 8}, REVIEWS: dict.fromkeys(profiles.corpus.SPLITS, 10),
              NER: dict.fromkeys(profiles.corpus.SPLITS, 30)}  # fmt: skip


@pytest.fixture(scope="module")
def online(users):
    """A user who has downloaded a model and data."""
    user = users("online")
    assert {call: user.ask(call) for call in DOWNLOADED} == DOWNLOADED
    return user


def test_the_hub_is_asked_once(hub, online):
    assert online.ask("[load('ann/once').name, load('ann/once').languages]") == ["ann/once", ["en", "zh"]]
    assert not any("once" in r and "safetensors" in r for r in hub.requests), "the weights are fetched when they are needed"
    once = MODEL.replace("bert", "once")
    assert online.ask(once) == [] and online.ask("load('ann/once').student_config.hidden_size") == 40
    before = hub.requests.copy()
    assert online.ask(once) == [] and hub.requests == before
    commits = {request.split("/resolve/")[1].split("/")[0] for request in before if "ann/once/resolve" in request}
    assert commits == {"main", hub.snapshots["models/ann/once", "main"].commit}, "all files are of one commit"
    assert online.ask("load('ann/old').model(Classifier).newly_initialised") == ["classifier.bias", "classifier.weight"]
    assert online.ask("load('base').tokenizer('zh')('狗')['input_ids'][0]") == 2


def test_data_from_the_hub(online):
    data = "load('base').dataset('sentiment')"
    assert online.ask(f"{data}['validation']['sentence'][:]") == [f"film {i}" for i in range(41, 45)]
    assert online.ask(f"{data}['train'].column_names") == ["sentence", "label"]
    assert online.ask(f"{data}['test'].features['label'].names") == ["negative", "positive"]
    assert online.ask("rows(load('base').dataset('ner', 'zh'))") == {"train": 27, "validation": 3, "test": 30}
    reviews = "load('base').only('zh').dataset('sentiment')['test']"
    assert online.ask(f"{reviews}.features['label'].names[{reviews}['label'][0]]") == "positive"
    assert online.ask("load('base').dataset('qa')").startswith("rajpurkar/squad has no ")
    assert online.ask("load('base').dataset('text')").startswith("profile base has no data for 'text', only sentiment, nli")


def test_the_second_time_needs_no_network(hub, online, users):
    for user in (online, users("online", HF_HUB_OFFLINE="1")):
        with hub.faulty(Fault(status=503)):
            before = hub.requests.copy()
            assert {call: user.ask(call) for call in DOWNLOADED} == DOWNLOADED
            assert hub.requests == before


@pytest.mark.parametrize("call, name", [(MODEL, "ann/bert"), ("load('base').model(AutoModel)", "google-bert/bert-base-uncased"),
                                        (SENTIMENT, "nyu-mll/glue")])  # fmt: skip
def test_offline_with_an_empty_cache(call, name, stranded):
    "Told so at run time; `test_the_second_time_needs_no_network` sets the variable for a process."
    user, _ = stranded
    offline = "__import__('huggingface_hub').constants.__dict__.update(HF_HUB_OFFLINE={})"
    user.ask(offline.format(True))
    said = user.ask(call)
    user.ask(offline.format(False))
    assert said == f"{name} is not cached, and HF_HUB_OFFLINE is set: unset it, or give a folder"


REFUSALS = [
    (Fault(status=404, code="RepoNotFound"), "has no public {name}: check the spelling"),
    (Fault(status=401), "has no public {name}: check the spelling"),
    (Fault(status=401, code="GatedRepo"), "{name} is gated: ask for access"),
    (Fault(status=403, code="GatedRepo"), "{name} is gated: ask for access"),
    (Fault(status=500), "{name} is not cached and cannot be had from {hub} (it answers with status 500): check the network"),
    (Fault(status=429), "(it answers with status 429)"),
    (Fault(delay=4), "(no answer in time)"),
]
CUT = MODEL.replace("bert", "cut")
SIMILARITY = "load('base').dataset('similarity', 'zh')['train'][0]"
ROW = {"sentence1": "a", "sentence2": "b", "label": 3.0}


@pytest.mark.parametrize("fault, expected", REFUSALS, ids=[f"{f.status or 'slow'}{f.code}" for f, _ in REFUSALS])
def test_a_hub_that_refuses(fault, expected, hub, online):
    for call, name in ((MODEL.replace("bert", "late"), "ann/late"), ("load('base').dataset('nli', 'zh')", "clue/clue")):
        with hub.faulty(fault):
            before = len(hub.requests)
            assert expected.format(name=name, hub=hub.url) in online.ask(call)
            assert len(hub.requests) == before + 1, "one question is enough"


@pytest.mark.parametrize("call, path, value", [(CUT, r"model\.safetensors", []), (SIMILARITY, r"parquet", ROW)])
def test_a_download_that_breaks_off_leaves_nothing_behind(call, path, value, hub, online, users):
    offline = users("online", HF_HUB_OFFLINE="1")
    with hub.faulty(Fault(path, cut=500)):
        assert "(the connection broke off)" in online.ask(call)
    assert "is not cached, and HF_HUB_OFFLINE is set" in offline.ask(call)
    assert online.ask(call) == value and offline.ask(call) == value


def test_repositories_that_are_no_use(online):
    assert "ann/empty on the hub is no checkpoint" in online.ask("load('ann/empty')")
    assert "model_type 'gpt2'" in online.ask("load('ann/gpt')")
    assert "has no tokenizer" in online.ask("load('ann/mute')")
    assert "has no public ann/nobody" in online.ask("load('ann/nobody')")


def test_no_hub_at_all(stranded):
    user, closed = stranded
    for call, name in ((MODEL, "ann/bert"), (SENTIMENT, "nyu-mll/glue")):
        assert user.ask(call).startswith(f"{name} is not cached and cannot be had from {closed.url} (no connection): check")


def test_an_address_that_is_none(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    error = UnsupportedProtocol("Request URL is missing an 'http://' or 'https://' protocol.")
    assert "(Request URL is missing an 'http://' or" in checked(profiles._hub_error("ann/bert", error))


def test_the_default_profile_needs_no_network(whole, tmp_path):
    program = f"""
import socket
def blocked(*args, **kw): raise AssertionError("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = blocked
from pathlib import Path
from transformers import AutoModelForMaskedLM
from bertcourse import profiles
if not Path(profiles.asset("tiny-bert"), "model.safetensors").is_file(): profiles.asset = lambda name: Path({str(whole)!r})
profiles.TOY_DATA["text"] = lambda lang: profiles.toy_text(lang, dict.fromkeys(profiles.corpus.SPLITS, 9))
tiny = profiles.load()
model, tokenizer = tiny.model(AutoModelForMaskedLM), tiny.tokenizer()
assert model(**tokenizer("my dog", return_tensors="pt")).logits.shape[-1] == len(tokenizer)
assert tiny.student_config and len(tiny.dataset("text")) == 3 and tiny.describe()
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and k != "BERTCOURSE_PROFILE"}
    env |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not any(path.is_file() for path in tmp_path.rglob("*")), "nothing is written to the hub's cache either"


def test_every_task_of_the_hub_is_a_task():
    assert {task for task, _ in HUB_DATA} <= set(TASKS) and {lang for _, lang in HUB_DATA} == {"en", "zh"}
    for (task, _), source in HUB_DATA.items():
        assert set(source.columns.values()) <= set(TASKS[task]) and source.test != source.validation
