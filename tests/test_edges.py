"""Answers and words at whose edges the tokenizer drops something: blanks, invisible characters, combining marks."""

import unicodedata

import numpy as np
import pytest

from bertcourse.base.marks import MARKS
from bertcourse.base.text import HAN, compose, is_chinese
from bertcourse.corpus import load_tokenizer
from bertcourse.models.answers import cut
from bertcourse.tasks import UNPLACED, Answering, Tagging, bio_tags

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
# Blanks and what nobody sees: no-break space, ideographic space, zero-width space and joiner, variation selector, mark of direction, soft hyphen, line end.
UNSEEN = [" ", "\u00a0", "\u3000", "\u200b", "\u200d", "\ufe0f", "\u200e", "\u00ad", "\n", "\ufeff", "\ufffd"]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


# --- question answering -------------------------------------------------------------------------------------------

def positions(tokenizer, context: str, answer: str, start: int, longest: int = 64):
    "The pieces of each window at which the answer is said to be."
    task = Answering(tokenizer, max_length=longest)
    rows = [{"question": "Where does Tom live?", "context": context, "answers": {"text": [answer], "answer_start": [start]}}]
    return [(row, row["start_positions"], row["end_positions"]) for row in task.encode(rows)]


@pytest.mark.parametrize("unseen", UNSEEN, ids=[f"U+{ord(c):04X}" for c in UNSEEN])
@pytest.mark.parametrize("before, after", [(1, 0), (0, 1), (1, 1), (2, 2)])
def test_an_answer_with_something_unseen_at_its_edge_is_the_same_answer(tokenizer, unseen, before, after):
    plain = "Tom lives in London with Anna."
    [(row, a, b)] = positions(tokenizer, plain, "London", 13)
    assert a == b > 0 and plain[slice(*row["offsets"][a])] == "London"
    context = plain[:13] + unseen * before + "London" + unseen * after + plain[19:]
    [(edged, c, d)] = positions(tokenizer, context, unseen * before + "London" + unseen * after, 13)
    assert c == d and context[edged["offsets"][c][0]:edged["offsets"][d][1]] == "London", "trained as another answer, or as none"


def test_an_answer_of_several_words_keeps_its_ends(tokenizer):
    context = "We saw the old town of Paris ."
    [(row, a, b)] = positions(tokenizer, context, " old town of ", 10)
    assert context[row["offsets"][a][0]:row["offsets"][b][1]] == "old town of"


def test_an_answer_without_any_piece_is_not_trained_as_no_answer(tokenizer):
    [(_, a, b)] = positions(tokenizer, "Tom \u200b lives here.", "\u200b", 4)
    assert (a, b) == (UNPLACED, UNPLACED)
    task = Answering(tokenizer, max_length=64)
    rows = [{"question": "Who?", "context": "Tom lives here.", "answers": {"text": [], "answer_start": []}}]
    assert task.encode(rows)[0]["start_positions"] == 0, "no answer is no answer"


def test_the_loss_ignores_what_has_no_place(tokenizer):
    import torch
    import transformers

    config = transformers.BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    torch.manual_seed(0)
    model = transformers.BertForQuestionAnswering(config).eval()
    ids, at = torch.randint(5, 90, (2, 12)), torch.tensor([3, UNPLACED])
    both = model(ids, start_positions=at, end_positions=at).loss
    one = model(ids[:1], start_positions=at[:1], end_positions=at[:1]).loss
    torch.testing.assert_close(both, one)


def test_a_window_that_cuts_the_answer_does_not_hold_it(tokenizer):
    context = "the dog sleeps . " * 12 + "the cat likes the old town of London very much . " + "the dog eats fish . " * 12
    start = context.index("old town of London")
    held = 0
    for row, a, b in positions(tokenizer, context, " old town of London ", start - 1, longest=40):
        if (a, b) != (0, 0):
            held += 1
            assert context[row["offsets"][a][0]:row["offsets"][b][1]] == "old town of London"
    assert held


# --- named entities -----------------------------------------------------------------------------------------------

def tagged(tokenizer, tokens, tags, longest=64):
    "The tag of each piece, by its text."
    task = Tagging(tokenizer, LABELS, max_length=longest)
    rows = [{"tokens": tokens, "ner_tags": [LABELS.index(tag) for tag in tags]}]
    return [[(tokenizer.convert_ids_to_tokens(i), label) for i, label in zip(row["input_ids"], row["labels"])] for row in task.encode(rows)]


@pytest.mark.parametrize("unseen", UNSEEN, ids=[f"U+{ord(c):04X}" for c in UNSEEN])
def test_a_word_whose_first_character_is_dropped_keeps_its_tag(tokenizer, unseen):
    plain, = tagged(tokenizer, ["Tom", "likes", "Paris"], ["B-PER", "O", "B-LOC"])
    edged, = tagged(tokenizer, [f"{unseen}Tom", f"{unseen}likes", f"{unseen}Paris"], ["B-PER", "O", "B-LOC"])
    assert edged == plain and [label for _, label in plain].count(-100) < len(plain)


class Fixed:
    "A model that says what it is told, piece by piece."

    def __init__(self, said):
        self.said = said

    def outputs_of(self, rows, batch_size):
        made = []
        for row in rows:
            logits = np.full((len(row["input_ids"]), len(LABELS)), -9.0)
            for at, word in enumerate(row["words"]):
                logits[at, LABELS.index(self.said.get(word, "O"))] = 9.0
            made.append({"logits": logits})
        return made


@pytest.mark.parametrize("tags, expected", [
    ({0: "B-PER", 2: "I-PER"}, ["B-PER", "I-PER", "I-PER", "O"]),  # word 1 has no pieces
    ({0: "B-PER", 2: "B-PER"}, ["B-PER", "O", "B-PER", "O"]),
    ({0: "B-PER"}, ["B-PER", "O", "O", "O"]),
    ({2: "I-PER"}, ["O", "O", "B-PER", "O"]),
    ({0: "B-PER", 2: "I-LOC"}, ["B-PER", "O", "B-LOC", "O"]),
])  # fmt: skip
def test_a_word_without_pieces_does_not_split_an_entity(tokenizer, tags, expected):
    task = Tagging(tokenizer, LABELS, max_length=64)
    rows = [{"tokens": ["Anna", "\u200b", "Bell", "sleeps"]}]
    [found] = task.predict(Fixed(tags), rows)
    assert found["tags"] == expected
    if expected[:3] == ["B-PER", "I-PER", "I-PER"]:
        assert [(span["start"], span["end"]) for span in found["spans"]] == [(0, 3)]


def test_every_word_is_tagged_once_in_windows_that_begin_anywhere(tokenizer):
    tokens = ["Annabelle", "met", "\u200eChristopher", "in", "Constantinople", "."] * 6
    tags = ["B-PER", "O", "B-PER", "O", "B-LOC", "O"] * 6
    task = Tagging(tokenizer, LABELS, max_length=14)
    rows = [{"tokens": tokens, "ner_tags": [LABELS.index(tag) for tag in tags]}]
    encoded = task.encode(rows)
    assert len(encoded) > 3
    for row in encoded:
        words = [word for word in row["words"] if word >= 0]
        assert len(words) == len(set(words))
        for word, label in zip(row["words"], row["labels"]):
            assert label == (rows[0]["ner_tags"][word] if word >= 0 else -100)
    assert {word for row in encoded for word in row["words"]} - {-1} == set(range(len(tokens)))
    whole, = Tagging(tokenizer, LABELS, max_length=512).encode(rows)
    firsts = {word: whole["input_ids"][at] for at, word in enumerate(whole["words"]) if word >= 0}
    assert all(row["input_ids"][at] == firsts[word] for row in encoded for at, word in enumerate(row["words"]) if word >= 0)


# --- combining marks and Chinese characters -----------------------------------------------------------------------

def test_composed_and_decomposed_text_is_cut_alike():
    text = "Zoë visited São Paulo with José Müller and Renée."
    nfc, nfd = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert cut(nfc)["tokens"] == cut(nfd)["tokens"] == ["Zoë", "visited", "São", "Paulo", "with", "José", "Müller", "and", "Renée", "."]
    made = cut(nfd)
    assert [compose(nfd[a:b]) for a, b in made["offsets"]] == made["tokens"], "places are those in the text as it came"


@pytest.mark.parametrize("text, tokens", [
    ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
    ("ที่นี่", ["ที่นี่"]),
    ("می‌خواهم", ["می‌خواهم"]),  # a zero-width non-joiner inside a word
    ("tea ❤️!", ["tea", "❤️", "!"]),
    ("state-of-the-art U.S. 3.5", ["state-of-the-art", "U.S", ".", "3.5"]),
    ("我在𠮷野家", ["我", "在", "𠮷", "野", "家"]),
    ("东京タワー", ["东", "京", "タ", "ワ", "ー"]),
])  # fmt: skip
def test_words_of_other_scripts_stay_whole(text, tokens):
    assert cut(text)["tokens"] == tokens


def test_ner_training_text_is_composed(tokenizer):
    nfc, nfd = (unicodedata.normalize(form, "Renée") for form in ("NFC", "NFD"))
    assert tagged(tokenizer, [nfc, "sleeps"], ["B-PER", "O"]) == tagged(tokenizer, [nfd, "sleeps"], ["B-PER", "O"])


def test_a_chinese_character_is_one_in_every_plane():
    import re

    for char in "一龥㐀𠀀𪜀𰀀豈":
        assert is_chinese(char) and re.fullmatch(f"[{HAN}]", char), hex(ord(char))
    for char in "a。、「あ한ー·":
        assert not is_chinese(char) and not re.fullmatch(f"[{HAN}]", char), char
    assert re.fullmatch(f"[{MARKS}]+", "\u0301\u0e31\u094d\ufe0f\U000e0100") and not re.search(f"[{MARKS}]", "aé中 .")


# --- labels of other people's checkpoints -------------------------------------------------------------------------

@pytest.mark.parametrize("labels, meaning", [
    (("O", "B-PER", "I-PER"), ["O", "B-PER", "I-PER"]),
    (("O", "PER", "LOC"), ["O", "I-PER", "I-LOC"]),
    (("O", "PER-B", "PER-I"), ["O", "B-PER", "I-PER"]),
    (("O", "B-X", "I-X", "E-X", "S-X"), ["O", "B-X", "I-X", "I-X", "B-X"]),
    (("O", "B-X", "I-X", "L-X", "U-X"), ["O", "B-X", "I-X", "I-X", "B-X"]),
    (("[PAD]", "[CLS]", "[SEP]", "X", "O", "B_PER", "I_PER"), ["O", "O", "O", "O", "O", "B-PER", "I-PER"]),
    (("O", "B-date-of-birth", "I-date-of-birth"), ["O", "B-date-of-birth", "I-date-of-birth"]),
    (("NOUN", "VERB", "ADJ"), None),
    (("LABEL_0", "LABEL_1"), None),
])  # fmt: skip
def test_what_labels_mean(labels, meaning):
    found = bio_tags(labels)
    assert found == (None if meaning is None else dict(zip(labels, meaning, strict=True)))


def predict_with(tokenizer, labels, said):
    "What is predicted when a model gives each word this label."

    class Model:
        def outputs_of(self, rows, batch_size):
            made = []
            for row in rows:
                logits = np.full((len(row["input_ids"]), len(labels)), -9.0)
                for at, word in enumerate(row["words"]):
                    if word >= 0:
                        logits[at, labels.index(said[word])] = 9.0
                made.append({"logits": logits})
            return made

    rows = [{"tokens": ["Anna", "Bell", "saw", "Paris"][:len(said)]}]
    return Tagging(tokenizer, labels, max_length=32).predict(Model(), rows)[0]


@pytest.mark.parametrize("labels, said, spans", [
    (("O", "PER", "LOC"), ["PER", "PER", "O", "LOC"], [("PER", 0, 2), ("LOC", 3, 4)]),
    (("O", "PER-B", "PER-I"), ["PER-B", "PER-I", "O", "PER-B"], [("PER", 0, 2), ("PER", 3, 4)]),
    (("O", "B-X", "I-X", "E-X", "S-X"), ["B-X", "E-X", "O", "S-X"], [("X", 0, 2), ("X", 3, 4)]),
    (("O", "B-X", "I-X", "L-X", "U-X"), ["U-X", "U-X", "O", "O"], [("X", 0, 1), ("X", 1, 2)]),
])  # fmt: skip
def test_entities_of_other_schemes(tokenizer, labels, said, spans):
    found = predict_with(tokenizer, labels, said)
    assert [(span["label"], span["start"], span["end"]) for span in found["spans"]] == spans
    assert set(tag[:2] for tag in found["tags"]) <= {"O", "B-", "I-"}


def test_parts_of_speech_are_one_label_a_word(tokenizer):
    found = predict_with(tokenizer, ("NOUN", "VERB"), ["NOUN", "NOUN", "VERB", "NOUN"])
    assert found.pop("probabilities") == pytest.approx([1.0] * 4, abs=1e-6)
    assert found == {"tags": ["NOUN", "NOUN", "VERB", "NOUN"], "spans": []}
