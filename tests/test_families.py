"""Every family of models in every task, with tiny random weights: read, cut, answered, and cut alike by the service.

`slow/test_families.py` trains, distils, exports and serves all of them.
"""

import json
import shutil
from types import SimpleNamespace

import checkpoints
import commands
import numpy as np
import pytest
import torch
from checkpoints import FAMILIES

from bertcourse import profiles, training
from bertcourse.base.errors import UserError
from bertcourse.distillation import check_scores
from bertcourse.jobs.setup import choose_precision
from bertcourse.jobs.student import check_method, configuration, settings_of_family
from bertcourse.models.checkpoint import open_checkpoint
from bertcourse.models.exported import ExportedModel
from bertcourse.models.tokenizer import Tokenizer
from bertcourse.tasks import TASK_TYPES, Answering, Tagging, TaskError, for_words

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
BYTE_LEVEL = ("roberta", "deberta", "modernbert")  # a blank belongs to the word behind it
ROWS = {
    "classification": [{"sentence": "the film is very good"}, {"sentence": "我的狗在家里 Zoë"}],
    "pairs": [{"sentence1": "a man plays the guitar", "sentence2": "somebody makes music"}],
    "regression": [{"sentence": "the film is very good"}],
    "ner": [{"tokens": ["Anna", "Bell", "lives", "in", "New", "York", "."]}, {"tokens": ["Peter"] * 80}],
    "qa": [{"question": "Where does Anna live?", "context": "Anna Bell  lives in Paris with Peter, " * 8}],
}  # fmt: skip
KINDS = {"classification": ("classification", ("bad", "good")), "pairs": ("classification", ("no", "yes")), "regression": ("regression", ()),
         "ner": ("ner", TAGS), "qa": ("qa", ())}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def surroundings():
    with commands.surroundings():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A checkpoint of a family, with the head of a task, or without one."
    made, base = {}, tmp_path_factory.mktemp("families")

    def get(family, kind="", labels=()):
        key = "-".join([family, kind or "bare", *labels[:2]])
        if key not in made:
            made[key] = checkpoints.checkpoint(base / key, family, kind, labels)
        return made[key]

    return get


@pytest.mark.parametrize("task", ROWS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_in_every_task(folder, tmp_path, family, task):
    kind, labels = KINDS[task]
    predictor = open_checkpoint(str(folder(family, kind, labels)))
    rows = ROWS[task]
    if task == "qa":
        predictor.task.threshold = -np.inf  # random weights may find that there is no answer
    said = predictor.task.predict(predictor.model, rows)
    assert predictor.kind == kind and len(said) == len(rows)
    if task in ("classification", "pairs"):
        assert {label for one in said for label in one["scores"]} == set(labels)
    elif task == "regression":
        assert all(np.isfinite(one["score"]) for one in said)
    elif task == "ner":
        assert [len(one["tags"]) for one in said] == [len(row["tokens"]) for row in rows]
        assert {tag for one in said for tag in one["tags"]} <= set(TAGS)
    else:
        assert said[0]["answer"] == rows[0]["context"][said[0]["start"]:said[0]["end"]] == said[0]["answer"].strip() != ""
    predictor.task.tokenizer.save_pretrained(tmp_path)  # as `bertcourse export` does
    served = TASK_TYPES[kind](Tokenizer(tmp_path), labels, predictor.task.max_length)
    kept = ("input_ids", "words", "offsets", "example")
    assert [[row.get(name) for name in kept] for row in served.encode(rows, labelled=False)] == \
        [[row.get(name) for name in kept] for row in predictor.task.encode(rows, labelled=False)]


# --- words --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_words_of_a_list_are_cut_as_in_a_text(folder, tmp_path, family):
    tokenizer = profiles.load(str(folder(family))).tokenizer()
    in_text = tokenizer.tokenize(" Anna Bell lives in Paris")
    lost = tokenizer(["Anna", "Bell", "lives", "in", "Paris"], is_split_into_words=True, add_special_tokens=False).tokens()
    assert in_text[0] == "ĠAnna" and not any("Ġ" in piece for piece in lost), "what transformers does"
    task = Tagging(tokenizer, TAGS)
    row, = task.encode([{"tokens": ["Anna", "Bell", "lives", "in", "Paris"]}], labelled=False)
    assert tokenizer.convert_ids_to_tokens(row["input_ids"])[1:-1] == in_text
    assert [word for word in row["words"] if word >= 0] == [0, 1, 2, 3, 4]
    assert tokenizer.tokenize("Anna Bell")[0] == "Anna", "the tokenizer that was given stays as it was"
    task.tokenizer.save_pretrained(tmp_path)
    shutil.copy(folder(family) / "config.json", tmp_path)
    again = profiles.load(str(tmp_path)).tokenizer()
    assert again(["Anna", "Bell"], is_split_into_words=True)["input_ids"] == task.tokenizer(["Anna", "Bell"], is_split_into_words=True)["input_ids"]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in BYTE_LEVEL])
def test_other_tokenizers_need_no_change(folder, family):
    tokenizer = profiles.load(str(folder(family))).tokenizer()
    assert for_words(tokenizer) is tokenizer


def test_a_tokenizer_that_marks_words_too_late_is_refused(folder):
    from tokenizers import Regex, pre_tokenizers
    tokenizer = profiles.load(str(folder("modernbert"))).tokenizer()
    split = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    with pytest.raises(TaskError, match="for ner give another model"):
        Tagging(tokenizer, TAGS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("longest", [9, 16, 64])
def test_every_word_is_tagged_once(folder, family, longest):
    tokenizer = profiles.load(str(folder(family))).tokenizer()
    words = ["Anna", "Bell", "lives", "in", "Donaudampfschifffahrt", "我", "Zoë", ".", "Paris"]
    task = Tagging(tokenizer, TAGS, longest)
    encoded = task.encode([{"tokens": words, "ner_tags": [k % 5 for k in range(len(words))]}])
    found = [{"logits": np.eye(5)[[max(label, 0) for label in row["labels"]]] * 9} for row in encoded]
    assert {word for row in encoded for word in row["words"] if word >= 0} == set(range(len(words)))
    pieces = {}
    for row in encoded:  # a word that two windows share begins at the same piece in both
        for at, word in enumerate(row["words"]):
            if word >= 0:
                assert pieces.setdefault(word, row["input_ids"][at]) == row["input_ids"][at]
    tags = task.decode(found, [{"tokens": words}], encoded)[0]["tags"]
    assert [tag[2:] for tag in tags] == [TAGS[k % 5][2:] for k in range(len(words))]


# --- answers ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("longest", [28, 40, 64])
@pytest.mark.parametrize("answer", ["Peter", "Paris", "Anna Bell", "in\u3000Rome", "我的狗"])
def test_an_answer_begins_and_ends_where_it_stands(folder, family, longest, answer):
    context = "Anna Bell  lives in Paris with Peter,\nbut not in\u3000Rome\u00a0; 我的狗 is here."
    row = {"question": "Who?", "context": context, "answers": {"text": [answer], "answer_start": [context.index(answer)]}}
    task = Answering(profiles.load(str(folder(family))).tokenizer(), max_length=longest)
    encoded = task.encode([row])
    for part in encoded:
        for at in part["offsets"]:
            assert at is None or context[at[0]:at[1]] == context[at[0]:at[1]].strip()
    found = []
    for part in encoded:
        n = len(part["input_ids"])
        found.append({name: np.eye(n)[part[f"{name.split('_')[0]}_positions"]] * 20.0 for name in ("start_logits", "end_logits")})
    assert any(part["start_positions"] for part in encoded), "no window holds all of it"
    said, = task.decode(found, [row], encoded)
    assert (said["answer"], said["start"]) == (answer, context.index(answer))


@pytest.mark.parametrize("family", ["roberta", "deberta", "deberta-v2", "modernbert"])
def test_a_blank_is_no_answer(folder, family):
    "Two blanks give a piece of their own."
    row = {"question": "Who?", "context": "Anna  Peter"}
    task = Answering(profiles.load(str(folder(family))).tokenizer(), max_length=64)
    part, = task.encode([row], labelled=False)
    blanks = [k for k, at in enumerate(part["offsets"]) if at and at[0] == at[1]]
    if not blanks:
        assert family == "deberta-v2", "it makes one of several blanks"
        return
    logits = np.zeros(len(part["input_ids"]))
    logits[0], logits[blanks] = -5.0, 9.0  # neither no answer nor a word
    said, = task.decode([{"start_logits": logits, "end_logits": logits}], [row], [part])
    assert said["answer"].strip() == said["answer"] != ""


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_a_question_of_few_characters_and_many_bytes_is_too_long(folder, tmp_path, family):
    open_checkpoint(str(folder(family, "qa"))).task.tokenizer.save_pretrained(tmp_path)
    task = Answering(Tokenizer(tmp_path), max_length=32)
    about = SimpleNamespace(task="qa", max_length=32)
    service = SimpleNamespace(tokenizer=task.tokenizer, task=task, about=about)
    assert ExportedModel.too_long(service, {"question": "你们都好吗？谢谢", "context": "Anna"}, [])
    assert not ExportedModel.too_long(service, {"question": "Who?", "context": "Anna"}, [])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("longest", [8, 9, 12])
def test_a_long_question_leaves_room_for_the_passage(folder, family, longest):
    task = Answering(profiles.load(str(folder(family))).tokenizer(), max_length=longest)
    rows = [{"question": "Where does Anna live? " * 20, "context": "Anna Bell lives in Paris with Peter."}]
    encoded = task.encode(rows, labelled=False)
    covered = {k for part in encoded for at in part["offsets"] if at for k in range(*at)}
    assert covered == {k for k, char in enumerate(rows[0]["context"]) if char != " "}
    assert all(len(part["input_ids"]) <= longest for part in encoded)


# --- segments, sizes, what is refused -----------------------------------------------------------------------------

def test_albert_is_told_which_text_is_which(folder):
    predictor = open_checkpoint(str(folder("albert", "classification", ("no", "yes"))))
    row, = predictor.task.encode(ROWS["pairs"], labelled=False)
    assert set(row["token_type_ids"]) == {0, 1}


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_positions_before_the_first_are_not_counted(folder, family):
    assert profiles.load(str(folder(family))).max_length == checkpoints.POSITIONS


def test_a_sentencepiece_file_alone_is_refused_by_name(folder, tmp_path, monkeypatch):
    source = folder("deberta-v2")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(source / name, tmp_path)
    (tmp_path / "spm.model").write_bytes(b"\x0a\x0b")
    monkeypatch.setattr(profiles, "find_spec", lambda name: None)
    with pytest.raises(profiles.ProfileError, match=r"has no tokenizer.json, and its spm.model takes a package to read"):
        profiles.load(str(tmp_path))


class SlowTokenizer:
    is_fast, model_max_length = False, 64


@pytest.mark.parametrize("task", [Tagging, Answering])
def test_a_tokenizer_that_knows_no_places_is_refused(task):
    with pytest.raises(TaskError, match="SlowTokenizer does not tell where its pieces stand") as refusal:
        task(SlowTokenizer(), ())
    assert "请用带 tokenizer.json 的模型" in refusal.value.zh


# --- students -----------------------------------------------------------------------------------------------------

def test_students_of_new_families():
    deberta, modernbert = (checkpoints.configuration(family, 60) for family in ("deberta-v2", "modernbert"))
    assert settings_of_family(deberta, "bert")["type_vocab_size"] == 2, "it takes segments, and has none itself"
    assert settings_of_family(checkpoints.configuration("xlm-roberta", 60), "bert")["max_position_embeddings"] == checkpoints.POSITIONS
    small = configuration({"num_hidden_layers": 1}, modernbert)
    assert small.num_hidden_layers == 1 and small.layer_types == modernbert.layer_types[:1]
    assert len(configuration({"num_hidden_layers": 5}, modernbert).layer_types) == 5
    assert not hasattr(configuration({"num_hidden_layers": 1}, checkpoints.configuration("bert", 60)), "layer_types")


@pytest.mark.parametrize("method, instead", [("tinybert", "take --method kd"), ("general", "give another teacher")])
def test_scores_that_nobody_sees_are_not_compared(method, instead):
    bert, deberta = (checkpoints.configuration(family, 60) for family in ("bert", "deberta"))
    for student, teacher in ((bert, deberta), (deberta, bert)):
        with pytest.raises(UserError, match=f"compares attention scores, which deberta does not show: {instead}"):
            check_method(method, "uniform", student, teacher)
        with pytest.raises(ValueError, match="the attention scores of deberta cannot be compared"):
            check_scores(student, teacher)
    check_scores(bert, checkpoints.configuration("modernbert", 60))


def test_deberta_does_not_compute_in_bf16():
    deberta, newer = (checkpoints.configuration(family, 60) for family in ("deberta", "deberta-v2"))
    assert choose_precision("auto", deberta) == choose_precision("no", deberta) == "no"
    assert choose_precision("bf16", newer) == "bf16"
    with pytest.raises(UserError, match="deberta cannot compute in it"):
        choose_precision("bf16", newer, deberta)


@pytest.mark.parametrize("computes, expected", [(True, "bf16"), (False, "no")])
def test_a_processor_s_precision_is_that_of_fit(monkeypatch, computes, expected):
    monkeypatch.setattr(training, "computes_in_bf16", lambda: computes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bert = checkpoints.configuration("bert", 60)
    assert choose_precision("auto", bert) == training.fastest_precision("cpu") == expected and choose_precision("no", bert) == "no"


def test_other_families_are_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(profiles.ProfileError, match="model_type 'gpt2': give a checkpoint of albert, bert, deberta, deberta-v2"):
        profiles.load(str(tmp_path))
