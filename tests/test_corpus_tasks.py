"""The toy world's tasks: same rows everywhere, nothing leaks between splits, and every label follows from the text."""

import itertools
import re
import subprocess
import sys
from collections import Counter

import pytest

from bertcourse import corpus_tasks
from bertcourse.corpus import LANGUAGES, SPLITS, WORLD, load_tokenizer
from bertcourse.corpus_tasks import TOY_TASKS, dataset, examples

TASKS = [*TOY_TASKS]


def rows(task, n, **kw):
    return list(examples(task, n, **kw))


def words(row):
    "Everything that can be read of a row."
    return tuple(str(row[name]) for name in ("sentence", "sentence1", "sentence2", "tokens", "context", "question") if name in row)


SAME = """
import hashlib
from bertcourse.corpus_tasks import TOY_TASKS, examples
digest = hashlib.sha256()
for task in TOY_TASKS:
    for lang in ("en", "zh"): digest.update(repr(list(examples(task, 30, seed=3, lang=lang, split="test"))).encode())
print(digest.hexdigest())
"""


def test_same_rows_everywhere():
    runs = [subprocess.run([sys.executable, "-c", SAME], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": s, "PATH": ""})
            for s in ("0", "4711")]  # fmt: skip
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) == 65


@pytest.mark.parametrize("task", TASKS)
def test_rows_do_not_depend_on_those_before(task):
    assert rows(task, 3, start=4) == rows(task, 7)[4:]
    assert rows(task, 4) != rows(task, 4, seed=1)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("task", TASKS)
def test_no_row_in_two_splits(task, lang):
    seen = {split: {words(row) for row in rows(task, 800 if split == "train" else 300, lang=lang, split=split)} for split in SPLITS}
    for a, b in itertools.combinations(SPLITS, 2):
        assert not seen[a] & seen[b]


def test_a_name_belongs_to_a_kind_in_one_split_only():
    for letter in corpus_tasks._BEARERS:
        names = [{thing.en for thing in corpus_tasks._bearers(letter, split)} for split in SPLITS]
        assert all(len(group) > 2 for group in names)
        assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]


def test_names_of_the_test_set_are_never_so_labelled_in_training():
    def borne(split):
        found = set()
        for row in rows("ner", 1500, split=split):
            found |= {(token, tag) for token, tag in zip(row["tokens"], row["ner_tags"]) if tag in ("B-PER", "B-ORG")}
        return found

    train, test = borne("train"), borne("test")
    assert len(test) > 10 and not {pair for pair in train & test if pair[0] != "New"}


@pytest.mark.parametrize("task, share", [("sentiment", 0.05), ("polarity", 0.05), ("nli", 0.03)])
def test_noise_is_as_stated(task, share):
    found = rows(task, 4000)
    noisy = sum(row["label"] != row["gold"] for row in found)
    bound = 4 * (4000 * share * (1 - share)) ** 0.5
    assert abs(noisy - 4000 * share) < bound
    assert TOY_TASKS[task].noise == share
    assert len(set(Counter(row["gold"] for row in found).values())) <= 2  # balanced, but for a remainder


def test_both_languages_say_the_same():
    for task in ("sentiment", "nli", "similarity", "qa"):
        for en, zh in zip(rows(task, 60, lang="en"), rows(task, 60, lang="zh")):
            same = [name for name in ("label", "gold", "kind") if name in en]
            assert [en[name] for name in same] == [zh[name] for name in same]
            people = {p.en for p in WORLD.people.values() if re.search(rf"\b{p.en}\b", " ".join(words(en)))}
            if task == "qa":
                assert bool(en["answers"]["text"]) == bool(zh["answers"]["text"])
            assert all(WORLD.people[name].zh in " ".join(words(zh)) for name in people - {"Will", "May", "Summer"} - set(vars(WORLD)["films"]))


NLI = [  # premise, hypothesis, label: what a reader would say
    ((1, "man", "guitar", "park"), (1, None, None, None), 0), ((1, None, None, None), (1, "man", "guitar", None), 1),
    ((3, "man", "guitar", None), (2, "man", "guitar", None), 0), ((2, "man", "guitar", None), (3, "man", "guitar", None), 1),
    ((1, "man", "guitar", None), (0, None, None, None), 2), ((0, None, None, None), (1, "man", "guitar", "park"), 2),
    ((0, "man", "guitar", None), (0, None, None, None), 1), ((0, None, None, None), (0, "man", "guitar", None), 0),
    ((0, "man", "guitar", None), (1, None, None, None), 1), ((1, "man", "guitar", "park"), (1, "man", "guitar", "zoo"), 1),
    ((1, "man", "guitar", None), (1, "woman", "guitar", None), 1), ((0, "man", "guitar", "park"), (0, "man", "guitar", None), 1),
]  # fmt: skip


@pytest.mark.parametrize("premise, hypothesis, label", NLI)
def test_natural_logic(premise, hypothesis, label):
    def statement(number, noun, act, place):
        nouns = {thing.en: thing for thing in corpus_tasks._NOUNS["player"][1]}
        find = {thing.en: thing for letter in ("G", "L") for thing in corpus_tasks.POOLS[letter].items}
        return corpus_tasks._Statement(
            nouns.get(noun, corpus_tasks._PERSON), find.get(act, corpus_tasks._INSTRUMENT), find.get(place), number
        )

    assert corpus_tasks._entails(statement(*premise), statement(*hypothesis)) == label


@pytest.mark.parametrize("p, h, label", [
    ((True, "guitar"), (True, None), 0), ((True, "guitar"), (False, None), 2), ((False, None), (False, "guitar"), 0),
    ((False, "guitar"), (False, None), 1), ((False, "guitar"), (True, "guitar"), 2), ((True, None), (False, "guitar"), 1),
    ((True, "guitar"), (False, "piano"), 1),
])  # fmt: skip
def test_negation_of_a_definite_subject(p, h, label):
    man = corpus_tasks._NOUNS["player"][1][0]
    acts = {thing.en: thing for thing in corpus_tasks.POOLS["G"].items}

    def statement(holds, act):
        return corpus_tasks._Statement(man, acts.get(act, corpus_tasks._INSTRUMENT), None, 1, True, holds)

    assert corpus_tasks._entails(statement(*p), statement(*h)) == label


@pytest.mark.parametrize("lang", LANGUAGES)
def test_answers_are_where_they_are_said_to_be(lang):
    kinds = Counter()
    for row in rows("qa", 600, lang=lang):
        kinds[row["kind"]] += 1
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        assert bool(texts) == (row["kind"] in ("what", "who"))
        for text, start in zip(texts, starts):
            assert text and row["context"][start : start + len(text)] == text
            assert row["context"].count(text) >= 1
    assert set(kinds) == {"what", "who", "untold", "other"} and 0.6 < (kinds["what"] + kinds["who"]) / 600 < 0.85


@pytest.mark.parametrize("lang", LANGUAGES)
def test_everything_fits_the_tokenizer(lang):
    tokenizer = load_tokenizer()
    for task in ("sentiment", "nli", "similarity", "qa"):
        for row in rows(task, 150, lang=lang):
            texts = [row[name] for name in ("sentence", "sentence1", "sentence2", "question", "context") if name in row]
            ids = tokenizer(*texts)["input_ids"]
            assert len(ids) <= tokenizer.model_max_length and tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("lang", LANGUAGES)
def test_bio_is_valid_and_names_have_tags(lang):
    for row in rows("ner", 300, lang=lang):
        assert len(row["tokens"]) == len(row["ner_tags"])
        for before, tag in zip(["O", *row["ner_tags"]], row["ner_tags"]):
            assert not tag.startswith("I-") or before[2:] == tag[2:]
    assert {tag for row in rows("ner", 300, lang=lang) for tag in row["ner_tags"]} >= {"B-PER", "B-LOC", "B-ORG", "B-DATE", "I-DATE"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_probing_rows(lang):
    found = rows("probing", 300, lang=lang)
    assert {row["agreement"] for row in found} == {-1, 0, 1} and max(depth for row in found for depth in row["depth"]) >= 1
    for row in found:
        assert len({len(row[name]) for name in ("tokens", "pos", "roles", "depth")}) == 1


def test_a_word_that_does_not_agree_is_another_word():
    from random import Random

    from bertcourse.corpus import documents

    for lang in LANGUAGES:
        sentences = [s for doc in documents(150, lang=lang) for s in doc]
        for seed, sentence in enumerate(sentences):
            wrong = corpus_tasks._disagree(Random(seed), sentence)
            if wrong is not None:
                assert sum(a != w.text for a, w in zip(wrong, sentence)) == 1


DEPTHS = {
    "en": ["Although1 the1 beginning1 of1 Storm1 was1 good1 , he did not enjoy this film .",
           "The dog that1 Anna1 saw1 in1 the1 park1 was running ."],
    "zh": ["安娜1 在1 公园1 看见1 的 那 只 狗 在 睡觉 。"],
}  # fmt: skip


@pytest.mark.parametrize("lang", LANGUAGES)
def test_depths(lang):
    from bertcourse.corpus import documents

    skeletons = {re.sub(r"\d", "", line) for line in DEPTHS[lang]}
    first = {line.split()[0].rstrip("1") for line in skeletons}
    assert first
    found = Counter()
    for doc in documents(1500, lang=lang):
        for sentence in doc:
            depths = corpus_tasks._depths(sentence)
            text = " ".join(word.text for word in sentence)
            if lang == "en" and re.fullmatch(r"Although the \w+ of \w+ was \w+ , .*", text):
                comma = [word.text for word in sentence].index(",")
                assert depths == [1] * comma + [0] * (len(depths) - comma)
                found["although"] += 1
            if re.fullmatch(r"The \w+ that \w+ saw \w+ the \w+ (was|were) \w+ \.", text):
                assert depths[2:8] == [1] * 6 and depths[:2] == [0, 0] and set(depths[8:]) == {0}
                found["relative"] += 1
            if lang == "zh" and re.fullmatch(r"\w+ 在 \w+ 看见 的 那 \w+ \w+ 在 \w+ 。", text):
                assert depths[:4] == [1] * 4 and set(depths[4:]) == {0}
                found["的"] += 1
    assert found


def test_dataset_has_standard_features():
    made = dataset("sentiment", "zh", {"train": 10, "test": 5})
    assert made["train"].features["label"].names[0] == "very negative" and len(made["test"]) == 5
    assert dataset("similarity", sizes={"train": 3})["train"].features["label"].dtype == "float32"
    assert dataset("qa", sizes={"train": 3})["train"].column_names == ["id", "context", "question", "answers", "kind"]
    assert dataset("ner", sizes={"train": 3})["train"].features["ner_tags"].feature.names[:2] == ["O", "B-PER"]


def test_a_task_that_is_too_easy_is_noticed():
    """Planted: reviews whose grade stands in the text must come out as solved by a bag of words."""
    made = dataset("polarity", sizes={"train": 600, "test": 300})
    given = {split: part.map(lambda row: {"sentence": f"{row['sentence']} {('bad', 'good')[row['label']]}ness"}) for split, part in made.items()}
    honest, planted = (corpus_tasks.difficulty("polarity", data, "en") for data in (made, given))
    assert honest["bag of words"] < honest["ceiling"] - 0.05 < planted["bag of words"]
