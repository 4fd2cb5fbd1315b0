"""The four tasks: encoding, decoding and scoring, each against an independent account of what is right."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertcourse import bert, profiles
from bertcourse.corpus import load_tokenizer
from bertcourse.corpus_tasks import dataset, examples
from bertcourse.tasks import (
    Answering,
    Classification,
    Regression,
    Tagging,
    _log_mass,
    answer_scores,
    best_span,
    plot_span_scores,
    repair,
    span_f1,
    spans,
    task_of,
)

settings.register_profile("busy", deadline=None)  # these machines are shared
settings.load_profile("busy")
SEEDS = st.integers(0, 10**6)
BIO = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def tiny():
    return profiles.load("tiny")


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return tiny.tokenizer()


# --- entities


@given(BIO)
def test_entities_are_those_of_seqeval(tags):
    from seqeval.metrics.sequence_labeling import get_entities

    assert spans(tags) == [(label, begin, end + 1) for label, begin, end in get_entities(tags)]
    assert spans(repair(tags)) == spans(tags)
    for before, tag in zip(["O", *repair(tags)], repair(tags)):
        assert not tag.startswith("I-") or before[2:] == tag[2:]


@given(st.lists(BIO, min_size=1, max_size=5), SEEDS)
def test_f1_is_that_of_seqeval(truth, seed):
    from seqeval.metrics import f1_score, precision_score, recall_score

    rng = random.Random(seed)
    guess = [[rng.choice(["O", "B-X", "I-X", "B-Y", tag, tag, tag]) for tag in tags] for tags in truth]
    ours = span_f1(truth, guess)
    theirs = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    for name, score in theirs.items():
        assert ours[name] == pytest.approx(score(truth, guess, zero_division=0), abs=1e-9)


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="2 tags and 3 guesses"):
        span_f1([["O", "O"]], [["O", "O", "O"]])


# --- answers


def test_scores_of_a_span_are_drawn_over_its_tokens():
    html = plot_span_scores(["[CLS]", "tom", "fifty"], [0, 1, 5], torch.tensor([0.0, 1.0, 6.0]), ("甲", "A")).html()
    assert all(word in html for word in ("[CLS]", "tom", "fifty", "start", "end", "甲"))


@given(st.integers(1, 14), st.integers(1, 6), SEEDS)
def test_best_span_is_that_of_all_pairs(n, longest, seed):
    rng = random.Random(seed)
    start, end = np.array([rng.gauss(0, 1) for _ in range(n)]), np.array([rng.gauss(0, 1) for _ in range(n)])
    allowed = np.array([rng.random() < 0.7 for _ in range(n)])
    pairs = [(start[i] + end[j], i, j) for i in range(n) for j in range(i, min(n, i + longest)) if allowed[i] and allowed[j]]
    if not pairs:
        with pytest.raises(ValueError, match="no piece of the passage"):
            best_span(start, end, allowed, longest)
        return
    i, j, score = best_span(start, end, allowed, longest)
    assert (score, i, j) == max(pairs)


@given(st.integers(1, 9), SEEDS)
def test_mass_of_all_spans(n, seed):
    rng = random.Random(seed)
    start, end = np.array([rng.gauss(0, 3) for _ in range(n)]), np.array([rng.gauss(0, 3) for _ in range(n)])
    allowed = np.ones(n, bool)
    slow = math.log(sum(math.exp(start[i] + end[j]) for i in range(n) for j in range(i, n)))
    assert _log_mass(start, end, allowed) == pytest.approx(slow)


@pytest.mark.parametrize("guess, truths, exact, f1", [
    ("The Eiffel Tower", ["eiffel tower."], 1, 1), ("a cat", ["cat", "dog"], 1, 1), ("cat", [], 0, 0), ("", [], 1, 1), ("", ["x"], 0, 0),
    ("old town", ["the old town of Paris"], 0, 2 * 2 / (2 + 4)), ("don't", ["dont"], 1, 1),
    ("“cat”", ["cat"], 0, 0),  # only ASCII punctuation is stripped
    ("20–30", ["20-30"], 0, 0), ("a–b", ["–b"], 1, 1),  # an article ends at any word boundary
    ("在 paris", ["在paris"], 0, 0),  # Chinese characters are not cut in English text
    ("the", ["the"], 1, 1), ("", ["the", "."], 1, 1), ("x", ["the"], 0, 0),  # what normalises to nothing is no answer
    ("cat", ["the", "cat"], 1, 1), ("$5", ["5"], 1, 1), ("U.S.", ["us"], 1, 1),
])  # fmt: skip
def test_answer_scores_of_squad_2(guess, truths, exact, f1):
    assert answer_scores(guess, truths) == (exact, pytest.approx(f1))


@pytest.mark.parametrize("guess, truths, exact, f1", [
    ("The Eiffel Tower", ["eiffel tower."], 1, 1), ("the", ["the"], 1, 0), ("", ["."], 1, 0), ("cat dog", ["dog"], 0, 2 / 3),
])  # fmt: skip
def test_answer_scores_of_squad_1(guess, truths, exact, f1):
    assert answer_scores(guess, truths, "squad1.1") == (exact, pytest.approx(f1)), "what normalises to nothing shares no token"


@pytest.mark.parametrize("guess, truths, exact, f1", [
    ("三天", ["三天前"], 0, 4 / 5), ("三 天前", ["三天前"], 0, 1), ("《雨天》", ["雨天"], 1, 1), ("前三天", ["三天前"], 0, 2 * 2 / 6),
    ("甲乙丙丁", ["甲丙乙丁"], 0, 2 * 1 / 8),  # four characters in common, but never two in a row
    ("甲乙x丙丁", ["甲乙y丙丁"], 0, 2 * 2 / 10), ("BERT模型", ["bert模型"], 1, 1), ("3.5%", ["3.5 %"], 0, 1),
    ("1990-2000年", ["19902000年"], 1, 1), ("雨,天", ["雨天"], 0, 2 * 1 / 5),  # an ASCII comma is not in the list
    ("", ["雨天"], 0, 0), ("丁", ["甲", "丁"], 1, 1), ("", [], 1, 1), ("甲", [], 0, 0),
])  # fmt: skip
def test_answer_scores_of_cmrc(guess, truths, exact, f1):
    assert answer_scores(guess, truths, "cmrc2018") == (exact, pytest.approx(f1))


def test_rules_are_those_of_the_data():
    tokenizer = load_tokenizer()
    assert Answering(tokenizer, lang="en").rules([["a"], ["b"]]) == "squad1.1"
    assert Answering(tokenizer, lang="en").rules([["a"], []]) == "squad2.0" and Answering(tokenizer, lang="zh").rules([["a"]]) == "cmrc2018"
    with pytest.raises(ValueError, match="no rules 'squad'"):
        answer_scores("a", ["a"], "squad")


@pytest.mark.parametrize("surer", [-0.5, 0.0, 0.5])  # the first window is the surest, or the last
def test_a_certain_answer_in_two_windows_is_certain(surer):
    "Overlapping windows show the same span twice; it is one answer."
    tokenizer = load_tokenizer()
    task = Answering(tokenizer, max_length=32)
    context = "the cat sleeps . " * 8 + "Tom lives in London . " + "the dog eats . " * 8
    rows = [{"question": "Where does Tom live?", "context": context}]
    encoded = task.encode(rows, labelled=False)
    begin = context.index("London")
    found, windows = [], 0
    for row in encoded:
        start, end = np.full(len(row["offsets"]), -20.0), np.full(len(row["offsets"]), -20.0)
        for i, at in enumerate(row["offsets"]):
            if at and at[0] == begin:
                start[i] = end[i] = 20.0 + surer * windows
                windows += 1
        found.append({"start_logits": start, "end_logits": end})
    [answer] = task.decode(found, rows, encoded)
    assert windows >= 2 and answer["answer"] == "London" and answer["probability"] > 0.999


def perfect(task, encoded, rows):
    "Logits of a model that knows the answers."
    found = []
    for row in encoded:
        n = len(row["input_ids"])
        start, end = np.full(n, -9.0), np.full(n, -9.0)
        start[row["start_positions"]] = end[row["end_positions"]] = 9
        if row["start_positions"] == 0 and rows[row["example"]]["answers"]["text"]:
            start[0] = end[0] = -8  # another window has it
        found.append({"start_logits": start, "end_logits": end})
    return found


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("max_length", [128, 64, 40])
def test_right_logits_give_the_right_answers(tokenizer, lang, max_length):
    rows = list(examples("qa", 150, lang=lang))
    task = Answering(tokenizer, max_length=max_length, lang=lang)
    encoded = task.encode(rows)
    assert max(len(row["input_ids"]) for row in encoded) <= max_length
    said = task.decode(perfect(task, encoded, rows), rows, encoded)
    assert task.score(said, rows)["exact"] == 1
    for row, p in zip(rows, said):
        assert p["answer"] == (row["context"][p["start"] : p["end"]] if p["answer"] else "") and 0 < p["probability"] <= 1


def test_a_question_longer_than_the_window_is_cut(tokenizer):
    row = {"question": "where " * 400, "context": "Anna lives in Paris.", "answers": {"text": ["Paris"], "answer_start": [14]}}
    task = Answering(tokenizer, max_length=48)
    encoded = task.encode([row])
    assert all(len(r["input_ids"]) <= 48 for r in encoded) and any(r["start_positions"] for r in encoded)
    assert task.score(task.decode(perfect(task, encoded, [row]), [row], encoded), [row])["exact"] == 1


def test_an_empty_passage_has_no_answer(tokenizer, tiny):
    task = Answering(tokenizer)
    model = task.model(tiny.model)
    said = task.predict(model, [{"question": "Where ?", "context": ""}, {"question": "Who ?", "context": "Tom saw Anna."}])
    assert said[0]["answer"] == "" and said[0]["start"] is None


def test_threshold_decides_between_answer_and_none(tokenizer, tiny):
    data = dataset("qa", sizes={"train": 8, "validation": 60})["validation"]
    task = Answering(tokenizer)
    torch.manual_seed(0)
    model = task.model(tiny.model)
    chosen = task.tune_threshold(model, data)
    best = task.score(task.predict(model, data), data)["f1"]
    for other in (chosen - 5, chosen + 5, 0.0, -math.inf, math.inf):
        task.threshold = other
        assert task.score(task.predict(model, data), data)["f1"] <= best + 1e-9
    task.threshold = math.inf
    assert all(p["answer"] == "" for p in task.predict(model, data))


# --- tagging


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("max_length", [128, 14, 9])
def test_every_word_gets_the_tag_of_its_first_piece(tokenizer, lang, max_length):
    data = dataset("ner", lang, {"train": 120})["train"]
    task = Tagging(tokenizer, tuple(data.features["ner_tags"].feature.names), max_length)
    encoded = task.encode(data)
    found = []
    for row in encoded:
        logits = np.zeros((len(row["input_ids"]), len(task.labels)))
        for at, label in enumerate(row["labels"]):
            if label >= 0:
                logits[at, label] = 9
        found.append({"logits": logits})
    said = task.decode(found, data, encoded)
    assert task.score(said, data)["f1"] == 1 and task.score(said, data)["accuracy"] == 1
    for row in encoded:
        assert len(row["input_ids"]) == len(row["labels"]) <= max_length


def test_words_without_pieces_and_of_many(tokenizer):
    task = Tagging(tokenizer, ("O", "B-X", "I-X"))
    rows = [{"tokens": ["Annabelle", "\u200b", "met", "Tom"], "ner_tags": [1, 0, 0, 1]}]
    encoded = task.encode(rows)
    assert sorted(w for w in encoded[0]["words"] if w >= 0) == [0, 2, 3]
    said = task.decode([{"logits": np.eye(3)[[max(0, y) for y in encoded[0]["labels"]]] * 9}], rows, encoded)
    assert said[0]["tags"] == ["B-X", "O", "O", "B-X"]


# --- classification and all


@pytest.mark.parametrize("name", ["sentiment", "nli", "similarity", "ner", "qa"])
def test_of_no_rows_there_are_no_predictions(tiny, tokenizer, name):
    data = dataset(name, "en", {"train": 4})["train"]
    task = task_of(name, data, tokenizer)
    model = task.model(tiny.model)
    assert task.predict(model, []) == task.predict(model, data.select([])) == []


def test_predictions_keep_their_order(tokenizer, tiny):
    rows = list(examples("sentiment", 90))
    task = Classification(tokenizer, ("a", "b", "c", "d", "e"))
    torch.manual_seed(1)
    model = task.model(tiny.model)
    together = task.predict(model, rows, batch_size=17)
    assert model.training is False
    for i in random.Random(0).sample(range(90), 8):
        alone = task.predict(model, [rows[i]])[0]
        assert alone["label"] == together[i]["label"] and alone["probability"] == pytest.approx(together[i]["probability"], abs=1e-5)
        assert sum(alone["scores"].values()) == pytest.approx(1)


def test_scores_of_known_predictions(tokenizer):
    task = Classification(tokenizer, ("no", "yes"))
    rows = [{"sentence": "x", "label": y} for y in (0, 0, 1, 1)]
    said = [{"label": name} for name in ("no", "yes", "yes", "yes")]
    score = task.score(said, rows)
    assert score["accuracy"] == 0.75 and score["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2) and score["mcc"] == pytest.approx(3**-0.5)
    assert score["f1"] == pytest.approx(4 / 5), "of the second class, as GLUE has it"
    assert "f1" not in Classification(tokenizer, ("a", "b", "c")).score([{"label": "a"}] * 2, [{"label": 0}, {"label": 1}])
    numbers = Regression(tokenizer)
    rows = [{"sentence1": "x", "sentence2": "y", "label": y} for y in (0.0, 1.0, 2.0)]
    assert numbers.score([{"score": s} for s in (1, 3, 5)], rows)["pearson"] == pytest.approx(1)
    assert math.isnan(numbers.score([{"score": 1.0}] * 3, rows)["pearson"])


@pytest.mark.parametrize("name", ["sentiment", "nli", "similarity", "ner", "qa"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_each_task_learns(tiny, tokenizer, name, lang):
    """A few steps on a few examples: the loss falls, and the saved configuration knows the labels."""
    from bertcourse.training import fit

    data = dataset(name, lang, {"train": 64})["train"]
    task = task_of(name, data, tokenizer, lang=lang)
    torch.manual_seed(0)
    model = task.model(tiny.model)
    history = fit(model, task.encode(data), steps=24, lr=1e-3, batch_size=16, collate=task.collate, log_every=6, progress=False)
    losses = history.column("loss")[1]
    assert losses[-1] < 0.8 * losses[0]
    if task.labels:
        assert model.config.id2label == dict(enumerate(task.labels))
    assert set(task.metrics(data)(model)) == set(task.score(task.predict(model, data), data))


def test_heads_fit_any_width():
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=50, hidden_size=24, num_attention_heads=3, num_hidden_layers=1, intermediate_size=8)
    ids = torch.randint(0, 50, (2, 7))
    for head, shape in ((bert.SequenceClassifier(BertModel(config), 4), (2, 4)), (bert.TokenClassifier(BertModel(config), 4), (2, 7, 4)),
                        (bert.SpanPredictor(BertModel(config)), (2, 7))):  # fmt: skip
        loss, logits, *_ = head(ids)
        assert loss is None and logits.shape == shape


def test_a_tokenizer_without_a_limit_has_that_of_bert(tiny):
    """transformers says 10³⁰ for it, which overflows where a text is cut."""
    tokenizer = tiny.tokenizer()
    data = dataset("sentiment", "en", {"train": 4})["train"]
    assert task_of("sentiment", data, tokenizer).max_length == tokenizer.model_max_length
    tokenizer.model_max_length = int(1e30)
    task = task_of("sentiment", data, tokenizer)
    assert task.max_length == 512 and task_of("sentiment", data, tokenizer, max_length=16).max_length == 16
    assert len(task.encode([{"sentence": "a " * 900, "label": 0}])[0]["input_ids"]) == 512


def test_unknown_task_is_one_sentence(tiny, tokenizer):
    with pytest.raises(ValueError, match="no task 'poetry': give one of sentiment"):
        task_of("poetry", None, tokenizer)
