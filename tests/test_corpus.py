"""The toy world's text: what a notebook cell is the wrong place for.

Annotations are held against the text itself: a determined word must be the only one ever seen in its place, a free
word's fillers must come as often as stated. Every checker is shown a planted fault, so that it can fail.
"""

import json
import subprocess
import sys
import tracemalloc
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from bertcourse import corpus
from bertcourse.corpus import (
    LANGUAGES,
    MAX_LENGTH,
    SPECIAL,
    SPLITS,
    WORLD,
    Document,
    Sentence,
    document,
    documents,
    link,
    load_tokenizer,
    main,
    save_tokenizer,
    split_of,
    texts,
    train_tokenizer,
)

SHA256 = {  # of the first 200 documents of each split, with annotations; a change of the grammar changes them
    "en": "b734005442435ec0871f5a04c5ab7d0dc5ae18db8e8ec1005be6d4a7bf612b3c",
    "zh": "1f84634a6e6e27d5f22c52c783c9340d3a2fef419aa81f146e243e11fc7541b5",
}
FINGERPRINT = """
import hashlib, sys
from bertcourse.corpus import SPLITS, documents
for lang in ("en", "zh"):
    digest = hashlib.sha256()
    for split in SPLITS:
        for doc in documents(200, seed=0, lang=lang, split=split):
            for s, w, word in doc.words():
                fillers = sorted((text, round(p, 9)) for text, p in word.fillers.items())
                known = (word.text, word.pos, word.role, word.entity, word.ref, word.state, word.by, word.clues, fillers)
                digest.update(repr((doc.id, s, w, *known)).encode())
    print(lang, digest.hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_same_bytes_everywhere(hash_seed):
    run = subprocess.run(
        [sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, env={"PYTHONHASHSEED": hash_seed, "PATH": ""}, check=True
    )
    assert dict(line.split() for line in run.stdout.splitlines()) == SHA256


def test_seed_matters():
    assert [d.text for d in documents(5, seed=1)] != [d.text for d in documents(5, seed=2)]


def test_import_is_light():
    names = ("torch", "transformers", "tokenizers", "matplotlib", "numpy")
    heavy = f"import sys, bertcourse.corpus; print([m for m in {names} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_constant_memory():
    """A hundred times the text, no more memory: caches are bounded and nothing is kept."""
    stream = documents(seed=9)
    for _ in range(1500):
        next(stream)  # fill the caches
    tracemalloc.start()
    for _ in range(50):
        next(stream)
    small = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    for _ in range(1500):
        next(stream)
    large = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert large < small + 4e6, f"{small / 1e6:.1f} MB, then {large / 1e6:.1f} MB"


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (dict(lang="fr"), "lang must be 'en' or 'zh', not 'fr'"),
        (dict(split="dev"), "split must be 'train', 'validation' or 'test', not 'dev'"),
        (dict(n=-1), "n must be a whole number from 0, not -1"),
        (dict(n=2.5), "n must be a whole number from 0, not 2.5"),
        (dict(start=-3), "start must be a whole number from 0, not -3"),
    ],
)
@pytest.mark.parametrize("make", [documents, texts])
def test_bad_arguments(make, wrong, sentence):
    with pytest.raises(ValueError) as error:
        make(**wrong)
    assert str(error.value) == sentence


def test_empty_and_from_the_middle():
    assert list(documents(0)) == []
    whole = [d.text for d in documents(30, lang="zh", split="test")]
    assert [d.text for d in documents(10, lang="zh", split="test", start=20)] == whole[20:]


# --- splits


def shared_sentences(by_split):
    """Sentences that occur in more than one split."""
    home = {}
    return {s for split, sentences in by_split.items() for s in sentences if home.setdefault(s, split) != split}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_splits_share_no_sentence(lang, more=1):
    sizes = dict(train=1400 * more, validation=300 * more, test=300 * more)
    by_split = {split: {s for doc in texts(n, seed=5, lang=lang, split=split) for s in doc} for split, n in sizes.items()}
    assert not shared_sentences(by_split)
    planted = dict(by_split, test=by_split["test"] | {next(iter(by_split["train"]))})
    assert len(shared_sentences(planted)) == 1


@pytest.fixture(scope="module")
def by_split():
    sizes = dict(train=6000, validation=300, test=600)
    return {split: list(documents(n, seed=6, split=split)) for split, n in sizes.items()}


def test_test_text_combines_what_was_never_combined(by_split):
    keys = {split: {s.key for doc in docs for s in doc} for split, docs in by_split.items()}
    for split in SPLITS:
        assert {split_of(key) for key in keys[split]} == {split}
    assert not keys["test"] & keys["train"] and not keys["test"] & keys["validation"]
    # the parts are known, only their combination is new
    parts = {split: {part for key in keys[split] for part in key.split("|")} for split in SPLITS}
    assert not parts["test"] - parts["train"]


def test_facts_of_test_text_are_seen_in_training(by_split):
    def facts(docs):
        return {
            (s.plan.vars["P"].item.en, slot.path, s.slots[".".join((slot.name, *slot.path))])
            for doc in docs
            for s in doc
            for slot in s.plan.frame.content
            if slot.name == "P" and slot.path
        }

    test = facts(by_split["test"])
    assert len(test) > 200 and len(test - facts(by_split["train"])) <= 0.01 * len(test)


# --- both languages tell the same story


def test_parallel():
    for split in SPLITS:
        for en, zh in zip(documents(150, seed=3, split=split), documents(150, seed=3, lang="zh", split=split)):
            assert en.id == zh.id and len(en) == len(zh)
            for a, b in zip(en, zh):
                assert (a.frame, a.slots, a.key) == (b.frame, b.slots, b.key)


def test_plain_text_is_the_annotated_text():
    for lang in LANGUAGES:
        for split in SPLITS:
            assert [[s.text for s in doc] for doc in documents(100, 3, lang, split)] == list(texts(100, 3, lang, split))


def test_guides_sentences_are_in_training():
    wanted = {
        "en": {"My dog is hairy.", "A man is playing the guitar.", "A person is playing an instrument."},
        "zh": {"我的狗毛茸茸的。", "一个男人在弹吉他。", "一个人在演奏乐器。"},
    }
    for lang, sentences in wanted.items():
        counts = dict.fromkeys(sentences, 0)
        for doc in texts(8000, seed=0, lang=lang):
            counts.update({s: counts[s] + 1 for s in sentences.intersection(doc)})
            if min(counts.values()) >= 5:
                break
        assert min(counts.values()) >= 5, counts


# --- form


@pytest.mark.parametrize("lang", LANGUAGES)
def test_form(lang):
    tags = set("NOUN PROPN VERB ADJ ADV PRON DET ADP AUX NUM PART CCONJ SCONJ PUNCT INTJ".split())
    for doc in documents(500, seed=8, lang=lang):
        assert 3 <= len(doc) <= 8
        for sentence in doc:
            assert 4 <= len(sentence) <= 21, sentence
            assert [sentence.text[a:b] for a, b in sentence.spans] == [word.text for word in sentence]
            if lang == "en":
                assert sentence.text[0].isupper() or sentence.text[0].isdigit(), sentence
            else:
                assert " " not in sentence.text and sentence.text.endswith("。")
            assert "  " not in sentence.text and " ." not in sentence.text and " ," not in sentence.text
        for s, w, word in doc.words():
            assert word.pos in tags, word
            assert (word.state == "determined") == bool(word.by) == bool(word.clues), (word, doc.text)
            assert (word.state == "free") == (len(word.fillers) > 1)
            for place in word.clues:
                assert place != (s, w) and doc[place[0]][place[1]]


def test_coreference():
    """A name and its pronouns share a reference, and no other person's name does."""
    for doc in documents(400, seed=8):
        names = defaultdict(set)
        for _, _, word in doc.words():
            if word.entity == "PERSON":
                names[word.ref].add(word.text)
        assert all(len(texts) == 1 for texts in names.values())
        for _, _, word in doc.words():
            if word.text.lower() in ("he", "she") and word.ref in WORLD.people:
                assert WORLD.people[word.ref].sub[0] == word.text.lower()


# --- annotations are true


def contradictions(docs):
    """Determined words whose place, with the sentences that hold its clues, was also seen with another word."""
    seen, wrong = {}, []
    for doc in docs:
        for s, w, word in doc.words():
            if word.state != "determined":
                continue
            masked = tuple("[MASK]" if i == w else other.text for i, other in enumerate(doc[s]))
            clues = tuple((a - s, b, doc[a].text if a != s else "") for a, b in word.clues)
            if seen.setdefault((masked, clues), word.text) != word.text:
                wrong.append((masked, clues, word.text))
    return wrong


def change(doc, s, w, **what):
    """A document with one word changed."""
    words = list(doc[s].items)
    words[w] = replace(words[w], **what)
    sentences = list(doc.items)
    sentences[s] = Sentence(tuple(words), doc.lang, doc[s].plan)
    return Document(tuple(sentences), doc.lang, doc.id)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_determined_words_are_determined(lang, n=1500):
    docs = [document(i, 4, lang, None) for i in range(n)]
    assert not contradictions(docs)
    # a free word declared determined is noticed
    free = [(doc, s, w) for doc in docs for s, w, word in doc.words() if word.state == "free" and len(doc[s]) < 9]
    assert contradictions([change(doc, s, w, state="determined", by="world", clues=((s, 0),), fillers={}) for doc, s, w in free])


def facts_are_true(doc):
    """Every fact told of a person is the world's."""
    for sentence in doc:
        for slot in sentence.plan.frame.content:
            if slot.name != "P" or not slot.path:
                continue
            value = sentence.plan.vars["P"].item
            for name in slot.path:
                value = getattr(value, name)
            text = {"en": value[0], "zh": value[1]}[doc.lang] if isinstance(value, tuple) else getattr(value, doc.lang)
            if text.lower() not in sentence.text.lower():
                return False
    return True


def test_facts_are_true():
    for lang in LANGUAGES:
        assert all(facts_are_true(doc) for doc in documents(300, seed=2, lang=lang))
    doc, s, w = next((doc, s, w) for doc in documents(200) for s, w, word in doc.words() if word.by == "world" and word.entity == "PLACE")
    assert not facts_are_true(change(doc, s, w, text="Atlantis"))


def test_carried_words_are_elsewhere():
    def elsewhere(doc):
        return all(
            any(stem(doc[a][b].text) == stem(word.text) for a, b in word.clues) for _, _, word in doc.words() if word.by == "carried"
        )

    def stem(text):
        return text.lower()[:3] if text.isascii() else text

    for lang in LANGUAGES:
        assert all(elsewhere(doc) for doc in documents(500, seed=2, lang=lang))
    doc, s, w = next((doc, s, w) for doc in documents(50) for s, w, word in doc.words() if word.by == "carried")
    assert not elsewhere(change(doc, s, w, text="Zebra"))


def test_agreement_agrees():
    """Articles, measure words and pronouns, looked up independently of the grammar."""
    measure = {"狗": "只", "书": "本", "吉他": "把", "马": "匹", "牛": "头", "面条": "碗", "自行车": "辆", "香蕉": "根"}
    seen = Counter()
    for doc in documents(1500, seed=2, lang="zh"):
        for _, _, word in doc.words():
            for a, b in word.clues if word.by == "agreement" else ():
                noun = doc[a][b].text
                if word.pos == "NOUN" and noun in measure:
                    seen[noun] += 1
                    assert word.text == measure[noun], doc.text
    assert set(seen) == set(measure)
    for doc in documents(1000, seed=2):
        for sentence in doc:
            for word, after in zip(sentence, sentence[1:]):
                if word.text.lower() in ("a", "an"):
                    assert (word.text.lower() == "an") == (after.text[0].lower() in "aeiou"), sentence


def improbable(docs, limit=6.0):
    """Free places whose fillers come more unevenly than stated: chi-square more than `limit` sd above its mean."""
    counts, fillers = defaultdict(Counter), {}
    for doc in docs:
        for s, w, word in doc.words():
            if word.state != "free":
                continue
            assert abs(sum(word.fillers.values()) - 1) < 1e-9 and word.text in word.fillers
            place = (doc[s].frame, w, tuple(word.fillers))
            counts[place][word.text] += 1
            fillers[place] = word.fillers
    bad, tested = [], 0
    for place, count in counts.items():
        n, degrees = count.total(), len(fillers[place]) - 1
        if n * min(fillers[place].values()) < 8:
            continue
        tested += 1
        chi2 = sum((count[text] - n * p) ** 2 / (n * p) for text, p in fillers[place].items())
        if (chi2 - degrees) / (2 * degrees) ** 0.5 > limit:
            bad.append((place, chi2, n))
    assert tested > 60
    return bad


@pytest.mark.parametrize("lang", LANGUAGES)
def test_free_words_follow_their_distribution(lang, n=2000):
    docs = [document(i, 7, lang, None) for i in range(n)]  # every sentence of the grammar: no split, no filter
    bad = improbable(docs)
    assert len(bad) <= 1, bad  # of several hundred places

    def skewed(doc):
        for s, w, word in doc.words():
            if word.state == "free":
                doc = change(doc, s, w, fillers={text: p for text, p in zip(word.fillers, reversed(word.fillers.values()))})
        return doc

    assert len(improbable(map(skewed, docs[:4000]))) > 20


def test_free_words_of_test_text_are_among_their_fillers(n=500):
    """The split's filter chooses among combinations; it never lets in a word that the annotation rules out."""
    for doc in documents(n, seed=7, split="test"):
        for _, _, word in doc.words():
            assert word.state != "free" or word.text in word.fillers


# --- links between passages


def test_link():
    kinds = Counter()
    docs = list(documents(400, seed=1))
    for doc, other in zip(docs, docs[1:]):
        assert link(doc[:2], doc[2:])[0] != "conflict", doc.text
        kinds[link(doc[:2], other[2:])[0]] += 1
    assert kinds["conflict"] > 0.5 * kinds.total()
    assert link(docs[0][:1], docs[0][:1])[0] in ("thing", "person", "nothing")


# --- tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


def knows(tokenizer, text):
    return tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_tokenizer_is_that_of_todays_text(todays_tokenizer):
    fresh = todays_tokenizer
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        assert (fresh / name).read_bytes() == (corpus.ASSETS / name).read_bytes(), (
            f"rebuild {name}: python -m bertcourse.corpus tokenizer {corpus.ASSETS}"
        )


def test_tokenizer_form(tokenizer):
    assert type(tokenizer).__name__.startswith("BertTokenizer") and tokenizer.is_fast and tokenizer.model_max_length == MAX_LENGTH == 128
    assert [tokenizer.convert_tokens_to_ids(t) for t in SPECIAL] == [0, 1, 2, 3, 4]
    assert (tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token) == SPECIAL
    pair = tokenizer("A dog", "一只狗")
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == ["[CLS]", "a", "dog", "[SEP]", "一", "只", "狗", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1] and 1200 <= len(tokenizer) <= 2500
    assert tokenizer.tokenize("[MASK] is hairy") == ["[MASK]", "is", "hairy"]


def test_tokenizer_knows_the_world(tokenizer):
    for text in ("my dog is hairy", "a man is playing the guitar", "apple", "a person is playing an instrument"):
        assert tokenizer.tokenize(text) == text.split()
    for lang in LANGUAGES:
        for split in SPLITS:
            for doc in texts(100, seed=1, lang=lang, split=split):
                text = " ".join(doc)
                assert knows(tokenizer, text), text
                assert len(tokenizer.tokenize(text)) <= MAX_LENGTH - 3
    assert not [name for name in WORLD.people if len(tokenizer.tokenize(name)) > 1]
    for text in ("Antidisestablishmentarianism", "xyz 1984", "我们今天学习预训练"):
        assert knows(tokenizer, text), text
    assert not knows(tokenizer, "☃")


def test_empty_tokenizer_is_noticed(monkeypatch):
    """`BertTokenizer(vocab_file=…)` of transformers 5 builds one that knows nothing, and says nothing."""
    import transformers

    whole = transformers.BertTokenizer
    monkeypatch.setattr(transformers, "BertTokenizer", lambda vocab, **kwargs: whole(**kwargs))
    with pytest.raises(RuntimeError, match="cannot read"):
        train_tokenizer(["a dog and a cat"])


def test_training_gives_the_same_pieces_in_every_process():
    """Ties are broken by id, and ids by the order of a hash map, unless the characters are given in order."""
    code = "import bertcourse.corpus as c; print(c.learn_pieces(c.sample_text(100), 1500))"
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(3)}
    assert len(runs) == 1
    assert runs == {f"{corpus.learn_pieces(corpus.sample_text(100), 1500)}\n"}


def test_size_is_a_limit_and_characters_always_fit():
    assert len(corpus.learn_pieces(corpus.sample_text(100), 1500)) == 1500
    few = corpus.learn_pieces(["a dog"], 10)
    assert {"a", "d", "##o", "##g", *SPECIAL} <= set(few) and "dog" not in few


def test_missing_tokenizer_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer.json in"):
        load_tokenizer(tmp_path)


def test_command_line(tmp_path, capsys):
    assert main(["text", "2", "--lang", "zh", "--split", "test"]) == 0
    assert capsys.readouterr().out.splitlines() == [d.text for d in documents(2, lang="zh", split="test")]
    assert main(["text", "-2"]) == 2
    assert capsys.readouterr().err == "n must be a whole number from 0, not -2\n"
    (tmp_path / "file").write_text("")
    assert main(["tokenizer", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_rebuilding_leaves_other_files_alone(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    save_tokenizer(tmp_path, texts=["a dog and a cat"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["tokenizer_class"] == "BertTokenizer"
