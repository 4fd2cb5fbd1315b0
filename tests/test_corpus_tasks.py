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
def test_no_row_in_two_splits(task, lang, train=250, other=100):
    sizes = dict.fromkeys(SPLITS, other) | {"train": train}
    seen = {split: {words(row) for row in rows(task, n, lang=lang, split=split)} for split, n in sizes.items()}
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


@pytest.mark.parametrize("lang, animals", [("en", {"cow", "cows", "rabbit", "rabbits", "flute", "trumpet", "girl", "girls"}), ("zh", set("牛 兔子 笛子 小号 女孩".split()))])
def test_what_the_test_set_of_nli_asks_about_is_new(lang, animals):
    def said(row):
        text = row["sentence1"] + row["sentence2"]
        return {word for word in animals if (word in text if lang == "zh" else re.search(rf"\b{word}\b", text.lower()))}

    logic = [row for row in rows("nli", 600, lang=lang, split="test") if row["kind"] in ("player", "creature", "the")]
    assert len(logic) > 300 and sum(bool(said(row)) for row in logic) > 0.9 * len(logic)  # both may say animal or instrument
    for split in ("train", "validation"):
        assert not any(said(row) for row in rows("nli", 1500, lang=lang, split=split))


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
        nouns = {thing.en: thing for thing in corpus_tasks._PEOPLE_SORTS}
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
    man = corpus_tasks._PEOPLE_SORTS[0]
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
    assert {row["agreement"] for row in found} == {-1, 0, 1}
    for row in found:
        assert len({len(row[name]) for name in ("tokens", "pos", "roles")}) == 1


def test_a_word_that_does_not_agree_is_another_word():
    from random import Random

    from bertcourse.corpus import documents

    for lang in LANGUAGES:
        sentences = [s for doc in documents(150, lang=lang) for s in doc]
        for seed, sentence in enumerate(sentences):
            wrong = corpus_tasks._disagree(Random(seed), sentence)
            if wrong is not None:
                assert sum(a != w.text for a, w in zip(wrong, sentence)) == 1


ANALYSED = {  # by hand: skeletons, with W for a name or `the`/`那 只` and a noun
    "en": {r"W \w+ (that )?W was \w+ \.": "W0 v0 t1 W1 was1 v1 .0",
           r"W (?:saw|liked|loved) W that (?:saw|liked|loved) W \.": "W0 v0 W0 that1 v1 W1 .0",
           r"W (?:saw|liked|loved) W (that )?W (?:saw|liked|loved) \.": "W0 v0 W0 t1 W1 v1 .0",
           r"Although W was \w+ , W was \w+ \.": "Although1 W1 was1 v1 ,0 W0 was0 v0 .0",
           r"W was \w+ , because W was \w+ \.": "W0 was0 v0 ,0 because1 W1 was1 v1 .0"},
    "zh": {r"W (?:觉得|说|知道|发现) W 在 \w+ 。": "W0 v0 W1 在1 v1 。0",
           r"W (?:看见|喜欢|喜爱) W (?:看见|喜欢|喜爱) 的 W 。": "W0 v0 W1 v1 的1 W0 。0",
           r"虽然 W 在 \w+ ， 但是 W 在 \w+ 。": "虽然1 W1 在1 v1 ，0 但是0 W0 在0 v0 。0",
           r"W 在 \w+ ， 因为 W 在 \w+ 。": "W0 在0 v0 ，0 因为1 W1 在1 v1 。0"},
}  # fmt: skip


def skeleton(row, lang):
    "The sentence and its depths with every noun phrase as one W, which must have one depth."
    from bertcourse.corpus import POOLS

    nouns = {vars(thing)[lang] for pool in ("A", "O") for thing in POOLS[pool].items}
    people = {vars(person)[lang] for person in WORLD.people.values()}
    tokens, depths, i = [], [], 0
    while i < len(row["tokens"]):
        word, depth = row["tokens"][i], row["depth"][i]
        span = next((n for n in (2, 3) if word.lower() in ("the", "那") and row["tokens"][i + n - 1] in nouns), 1)
        assert len(set(row["depth"][i : i + span])) == 1, row
        tokens.append("W" if span > 1 or word in people else word)
        depths.append(depth)
        i += span
    return tokens, depths


@pytest.mark.parametrize("lang", LANGUAGES)
def test_depths(lang):
    found = Counter()
    for row in rows("depth", 3000, lang=lang):
        tokens, depths = skeleton(row, lang)
        for pattern, analysis in ANALYSED[lang].items():
            if match := re.fullmatch(pattern, " ".join(tokens)):
                expected = [int(word[-1]) for word in analysis.split() if word != "t1" or match[1]]
                assert depths == expected, row
                found[pattern] += 1
        assert depths[-1] == 0 and max(depths) <= 3
    assert set(found) == set(ANALYSED[lang])


def test_depths_are_the_same_in_both_languages():
    to_en = {person.zh: person.en for person in WORLD.people.values()}
    for en, zh in zip(rows("depth", 500, lang="en"), rows("depth", 500, lang="zh")):
        assert sorted((w, d) for w, d in zip(en["tokens"], en["depth"]) if w in to_en.values()) == \
            sorted((to_en[w], d) for w, d in zip(zh["tokens"], zh["depth"]) if w in to_en)  # fmt: skip


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
