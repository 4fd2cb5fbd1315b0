"""`bertcourse.files`: data files as publishers write them, what was understood of them, and what is said where they are wrong."""

import csv
import gzip
import io
import itertools
import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertcourse.base.messages import UserError
from bertcourse.conll import from_iob1, is_iob1
from bertcourse.files import SPLITS, TASKS, FileError, as_dataset, dataset, read, read_all, stream


def put(folder, name, text, encoding="utf-8"):
    """A file; `text` may be bytes."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def checked(error):
    """The English sentence of an error, once both have been looked at."""
    assert isinstance(error, UserError) and isinstance(error, ValueError)
    assert error.__suppress_context__ or error.__context__ is None
    for text in (error.en, error.zh):
        assert text and "\n" not in text and len(text) < 400, text
    assert any("\u4e00" <= c <= "\u9fff" for c in error.zh) and str(error) == error.en
    return error.en


def said(call, *args, **kw):
    """What a mistake is answered with."""
    with pytest.raises(FileError) as caught:
        call(*args, **kw)
    return checked(caught.value)


def lines(*rows):
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def squad(*qas, context="my dog, my cat", **top):
    """A SQuAD file with one paragraph."""
    whole = [{"id": f"q{i}", "question": "who?"} | qa for i, qa in enumerate(qas, 1)]
    return json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": whole}]}]} | top)


def answer(text, start):
    return {"answers": [{"text": text, "answer_start": start}]}


def pair(a, b, label=None):
    return {"sentence1": a, "sentence2": b} | ({} if label is None else {"label": label})


def one(a, label=None):
    return {"sentence": a} | ({} if label is None else {"label": label})


# --- what is read -------------------------------------------------------------------------------------------------

GOOD = {  # task, file, its text, rows, where they stand, what is said after the file's name
    "literal quotes": ("sentiment", "a.tsv", 'text\tlabel\n"so so\tbad\n""\tgood\nNA\tgood\n\nnull\tbad\n',
                       [one('"so so', "bad"), one('""', "good"), one("NA", "good"), one("null", "bad")], [2, 3, 4, 6],
                       "4 rows, TSV with header, sentence (text) + label, 2 labels (bad: 2, good: 2)"),
    "quoting": ("sentiment", "a.csv", '\ufeffsentence,id,label\r\n"a, ""b""\nc",1,0\r\n\r\nd,2,10\r\ne,3,2\r\n',
                [one('a, "b"\nc', "0"), one("d", "10"), one("e", "2")], [2, 5, 6],
                "3 rows, CSV with header, sentence + label, 3 labels (0: 1, 2: 1, 10: 1)"),
    "semicolons": ("sentiment", "a.csv", 'Sentence;Label\n"a;b";1\n1,5;0\n', [one("a;b", "1"), one("1,5", "0")], [2, 3],
                   "2 rows, CSV (;) with header, sentence (Sentence) + label (Label), 2 labels (0: 1, 1: 1)"),
    "tabs in a .csv": ("sentiment", "a.csv", "sentence\tlabel\na, b\t1\n", [one("a, b", "1")], [2],
                       "1 row, CSV (tab) with header, sentence + label, 1 label (1: 1)"),
    "an old Mac": ("sentiment", "a.tsv", "sentence\tlabel\ra\t1\r\rb\t0\r", [one("a", "1"), one("b", "0")], [2, 4], None),
    "an old Mac's CSV": ("sentiment", "a.csv", 'sentence,label\r"a\rb",1\rb,0', [one("a\rb", "1"), one("b", "0")], [2, 4], None),
    "a carriage return in a text": ("sentiment", "a.tsv", "sentence\tlabel\r\na\rb\t1\r\n", [one("a\rb", "1")], [2], None),
    "other line separators": ("sentiment", "a.tsv", "sentence\tlabel\na\u2028b\x85c\x0bd\x1ce\t1\n", [one("a\u2028b\x85c\x0bd\x1ce", "1")], [2],
                              None),
    "text as it is, labels stripped": ("sentiment", "a.tsv", "sentence\tlabel\n a \t 1 \n", [one(" a ", "1")], [2], None),
    "no header": ("sentiment", "a.tsv", "fine\t1\nbad\t0\n", [one("fine", "1"), one("bad", "0")], [1, 2],
                  "2 rows, TSV without header, sentence + label, 2 labels (0: 1, 1: 1)"),
    "no header, label first": ("sentiment", "a.tsv", "1\tfine\n0\tbad\n1\tgreat\n", [one("fine", "1"), one("bad", "0"), one("great", "1")],
                               [1, 2, 3], "3 rows, TSV without header, label + sentence, 2 labels (0: 1, 1: 2)"),
    "no header, pairs": ("pairs", "a.csv", "a,b,0\nc,d,1\n", [pair("a", "b", "0"), pair("c", "d", "1")], [1, 2],
                         "2 rows, CSV without header, sentence1 + sentence2 + label, 2 labels (0: 1, 1: 1)"),
    "no header, pairs, label first": ("pairs", "a.tsv", "0\ta\tb\n1\tc\td\n0\te\tf\n",
                                      [pair("a", "b", "0"), pair("c", "d", "1"), pair("e", "f", "0")], [1, 2, 3], None),
    "no header, numbers first": ("similarity", "a.tsv", "0.5\ta\tb\n3\tc\td\n2\te\tf\n",
                                 [pair("a", "b", 0.5), pair("c", "d", 3.0), pair("e", "f", 2.0)], [1, 2, 3],
                                 "3 rows, TSV without header, label + sentence1 + sentence2, label from 0.5 to 3, mean 1.833"),
    "both columns repeat: label last": ("sentiment", "a.tsv", "a\t1\na\t0\n", [one("a", "1"), one("a", "0")], [1, 2], None),
    "no agreement": ("nli", "a.jsonl", lines({"premise": "甲", "hypothesis": "乙", "gold_label": "no"}) + "\n"
                     + lines({"premise": "a", "hypothesis": "b", "gold_label": "-"}, {"premise": "c", "hypothesis": "d", "gold_label": "yes"}),
                     [pair("甲", "乙", "no"), pair("c", "d", "yes")], [1, 4],
                     '2 rows, JSON lines, sentence1 (premise) + sentence2 (hypothesis) + label (gold_label), 2 labels (no: 1, yes: 1), '
                     '1 skipped: label "-"'),
    "nobody agrees on a pair": ("pairs", "a.jsonl", lines(pair("a", "b", "-"), pair("c", "d", "yes"), pair("c", "d", "no")),
                                [pair("c", "d", "yes"), pair("c", "d", "no")], [2, 3],
                                '2 rows, JSON lines, sentence1 + sentence2 + label, 2 labels (no: 1, yes: 1), 1 skipped: label "-"'),
    "a minus is a label elsewhere": ("classification", "a.tsv", "sentence\tlabel\n-\t-\n", [one("-", "-")], [2], None),
    "labels of JSON": ("classification", "a.json", lines(one("a", 1), one("b", 1.0), one("c", True), one("d", -1), one("e", 0.5)),
                       [one("a", "1"), one("b", "1"), one("c", "true"), one("d", "-1"), one("e", "0.5")], [1, 2, 3, 4, 5], None),
    "an array": ("pairs", "a.json", '[\n {"sentence1": "a", "sentence2": "b", "label": 1}, {"sentence1": "c", "sentence2": "d", "label": 0}]',
                 [pair("a", "b", "1"), pair("c", "d", "0")], [1, 2],
                 "2 rows, JSON array, sentence1 + sentence2 + label, 2 labels (0: 1, 1: 1)"),
    "objects that differ": ("sentiment", "a.jsonl", '{"text": "a", "label": 1}\n{"label": 0, "x": [], "sentence": "b"}\n',
                            [one("a", "1"), one("b", "0")], [1, 2], None),
    "an empty text": ("pairs", "a.tsv", "sentence1\tsentence2\tlabel\n\tb\t1\n", [pair("", "b", "1")], [2], None),
    "one sentence and a number": ("regression", "a.csv", "text,score\na,1e1\nb,-2\n", [one("a", 10.0), one("b", -2.0)], [2, 3],
                                  "2 rows, CSV with header, sentence (text) + label (score), label from -2 to 10, mean 4"),
    "two sentences and a number": ("regression", "a.jsonl", lines(pair("a", "b", 1)), [pair("a", "b", 1.0)], [1], None),
    "a number first": ("regression", "a.tsv", "4\ta\n2\tb\n", [one("a", 4.0), one("b", 2.0)], [1, 2], None),
    "columns and -DOCSTART-": ("ner", "a.conll", "-DOCSTART- -X- O O\n\nAnna NNP I-NP B-PER\nwept VBD I-VP O\n\n\nOslo NNP I-NP B-LOC",
                               [{"tokens": ["Anna", "wept"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["Oslo"], "ner_tags": ["B-LOC"]}], [3, 7],
                               "2 sentences, CoNLL, 3 tokens, 2 entities (LOC: 1, PER: 1)"),
    "breaks of tabs and blanks": ("ner", "a.txt", "a\tO\n\t\nb\tB-X\r\n \t \nc\tI-X\n\u3000\nd\tO\t\n",
                                  [{"tokens": [t], "ner_tags": [g]} for t, g in zip("abcd", ("O", "B-X", "I-X", "O"))], [1, 3, 5, 7],
                                  "4 sentences, CoNLL, 4 tokens, 2 entities (X: 2)"),
    "odd tokens": ("ner", "a.tsv", "a\u2028b\tO\n弹 吉他\tB-X\n\u3000\tO\n \tO\n#\tO\n-\tO\n\xa0\tO\n\"\tO\n",
                   [{"tokens": ["a\u2028b", "弹 吉他", "\u3000", " ", "#", "-", "\xa0", '"'], "ner_tags": ["O", "B-X", *"OOOOOO"]}], [1], None),
    "a token that is a full-width blank": ("ner", "a.txt", "\u3000 O\nb B-X\n", [{"tokens": ["\u3000", "b"], "ner_tags": ["O", "B-X"]}], [1], None),
    "remarks": ("ner", "a.conll", "# id f9 domain=en\n# O\nx _ _ B-X\n\n# id g3 domain=en\ny _ _ O\n",
                [{"tokens": ["#", "x"], "ner_tags": ["O", "B-X"]}, {"tokens": ["y"], "ner_tags": ["O"]}], [2, 6], None),
    "numbered, CoNLL-2003 as NeuroNLP2 has it": (
        "ner", "a.txt", "1 ANNA NNP I-NP B-PER\n2 sleeps VBZ I-VP O\n\n1 London NNP I-NP B-LOC\n",
        [{"tokens": ["ANNA", "sleeps"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["London"], "ner_tags": ["B-LOC"]}], [1, 4],
        "2 sentences, CoNLL, tokens in column 2, tags in the last (--columns changes it), 3 tokens, 2 entities (LOC: 1, PER: 1)"),
    "counted from 0": ("ner", "a.txt", "0 ANNA NNP B-PER\n1 sleeps VBZ O\n\n0 London NNP B-LOC\n",
                       [{"tokens": ["ANNA", "sleeps"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["London"], "ner_tags": ["B-LOC"]}], [1, 4], None),
    "counted through": ("ner", "a.txt", "1 ANNA B-PER\n2 sleeps O\n\n3 London B-LOC\n",
                        [{"tokens": ["ANNA", "sleeps"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["London"], "ner_tags": ["B-LOC"]}], [1, 4], None),
    "numbers that are tokens": ("ner", "a.txt", "1984 CD B-MISC\nis VBZ O\n\n1985 CD O\n",
                                [{"tokens": ["1984", "is"], "ner_tags": ["B-MISC", "O"]}, {"tokens": ["1985"], "ner_tags": ["O"]}], [1, 4], None),
    "GermEval: the outer level": (
        "ner", "a.tsv", "#\thttp://example.org/a [2009-10-17]\n1\tAnna\tB-PER\tO\n2\tlebt\tO\tO\n\n#\thttp://b [x]\n1\tUni\tB-ORG\tO\n2\tBerlin\tI-ORG\tB-LOC\n",
        [{"tokens": ["Anna", "lebt"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["Uni", "Berlin"], "ner_tags": ["B-ORG", "I-ORG"]}], [2, 6],
        "2 sentences, CoNLL, tokens in column 2, tags in column 3 (--columns changes it), 4 tokens, 2 entities (ORG: 1, PER: 1)"),
    "Universal NER": (
        "ner", "a.conll", "# sent_id = x-1\n# text = Anna O lives\n1-2\tAnnas\t_\t_\t_\n1\tAnna\tB-PER\t-\t-\n2\tlives\tO\t-\t-\n",
        [{"tokens": ["Anna", "lives"], "ner_tags": ["B-PER", "O"]}], [4],
        "1 sentence, CoNLL, tokens in column 2, tags in column 3 (--columns changes it), 2 tokens, 1 entity (PER: 1)"),
    "MultiCoNER": ("ner", "a.conll", "# id 0a1b-22\tdomain=en\nmy _ _ O\nlondon _ _ B-LOC\n\n\n# id 0a1b-23\tdomain=en\nanna _ _ B-PER\n",
                   [{"tokens": ["my", "london"], "ner_tags": ["O", "B-LOC"]}, {"tokens": ["anna"], "ner_tags": ["B-PER"]}], [2, 7],
                   "2 sentences, CoNLL, 3 tokens, 2 entities (LOC: 1, PER: 1)"),
    "PAN-X": ("ner", "a.tsv", "en:Anna\tB-PER\nen::\tO\n\nen:Oslo\tB-LOC\n",
              [{"tokens": ["Anna", ":"], "ner_tags": ["B-PER", "O"]}, {"tokens": ["Oslo"], "ner_tags": ["B-LOC"]}], [1, 4],
              "2 sentences, CoNLL, the language before each token (en:) left out, 3 tokens, 2 entities (LOC: 1, PER: 1)"),
    "Weibo": ("ner", "a.txt", "我0\tO\n是0\tO\n张0\tB-PER.NAM\n三1\tI-PER.NAM\n",
              [{"tokens": [*"我是张三"], "ner_tags": ["O", "O", "B-PER.NAM", "I-PER.NAM"]}], [1],
              "1 sentence, CoNLL, the digit behind each character (its place in the word) left out, 4 tokens, 1 entity (PER.NAM: 1)"),
    "tokens that are numbers": ("ner", "a.txt", "1 O\n2 O\n\n1 B-X\n", [{"tokens": ["1", "2"], "ner_tags": ["O", "O"]},
                                                                     {"tokens": ["1"], "ner_tags": ["B-X"]}], [1, 4], None),
    "numbers that do not count": ("ner", "a.txt", "3 x O\n2 y O\n\n1 z B-X\n", [{"tokens": ["3", "2"], "ner_tags": ["O", "O"]},
                                                                              {"tokens": ["1"], "ner_tags": ["B-X"]}], [1, 4], None),
    "BMES": ("ner", "a.bio", "高 B-NAME\n小 M-NAME\n勇 E-NAME\n， O\n男 S-SEX\n",
             [{"tokens": [*"高小勇，男"], "ner_tags": ["B-NAME", "I-NAME", "I-NAME", "O", "B-SEX"]}], [1],
             "1 sentence, CoNLL, 5 tokens, 2 entities (NAME: 1, SEX: 1)"),
    "BILOU": ("ner", "a.conll", "a B-X\nb I-X\nc L-X\nd U-Y-Z\n", [{"tokens": [*"abcd"], "ner_tags": ["B-X", "I-X", "I-X", "B-Y-Z"]}], [1], None),
    "IOB1": ("ner", "a.conll", "a I-X\nb B-X\nc I-Y\nd O\ne I-Y\n", [{"tokens": [*"abcde"], "ner_tags": ["B-X", "B-X", "B-Y", "O", "B-Y"]}], [1],
             "1 sentence, CoNLL, IOB1: an I- that begins an entity is read as B-, 5 tokens, 4 entities (X: 2, Y: 2)"),
    "bare kinds beside O": ("ner", "a.conll", "a O\nb PER\nc PER\nd LOC\ne O\n\nf PER\ng O\nh O\n",
                            [{"tokens": [*"abcde"], "ner_tags": ["O", "B-PER", "I-PER", "B-LOC", "O"]}, {"tokens": [*"fgh"], "ner_tags": ["B-PER", "O", "O"]}],
                            [1, 7], "2 sentences, CoNLL, no B- or I-: neighbours with the same label are one entity, 8 tokens, 3 entities (LOC: 1, PER: 2)"),
    "letters without a kind": ("ner", "a.conll", "a O\nb B\nc I\nd O\n", [{"tokens": [*"abcd"], "ner_tags": ["O", "B-ENTITY", "I-ENTITY", "O"]}],
                               [1], "1 sentence, CoNLL, tags without a kind: called ENTITY, 4 tokens, 1 entity (ENTITY: 1)"),
    "the letter at the end": ("ner", "a.conll", "a PER-B\nb PER-I\nc O\nd LOC-S\n", [{"tokens": [*"abcd"], "ner_tags": ["B-PER", "I-PER", "O", "B-LOC"]}],
                              [1], "1 sentence, CoNLL, the letter of each tag stands at its end, 4 tokens, 2 entities (LOC: 1, PER: 1)"),
    "parts of speech": ("ner", "a.txt", "# #\nThe DT\ndog NN\nbarks VBZ\n", [{"tokens": ["#", "The", "dog", "barks"], "ner_tags": ["#", "DT", "NN", "VBZ"]}],
                        [1], "1 sentence, CoNLL, a label for each word, no entities, 4 tokens, 4 labels (#: 1, DT: 1, NN: 1, VBZ: 1)"),
    "lower-case ones, and one called O": ("ner", "a.txt", "我 r\n爱 v\n北京 ns\n\n你 r\n爱 v\n她 O\n北京 ns\n我 r\n", [
        {"tokens": ["我", "爱", "北京"], "ner_tags": ["r", "v", "ns"]},
        {"tokens": ["你", "爱", "她", "北京", "我"], "ner_tags": ["r", "v", "O", "ns", "r"]}], [1, 5], None),
    "CoNLL-U": ("ner", "a.conllu", "# text = Dogs don't\n1\tDogs\tdog\tNOUN\tNNS\t_\t0\troot\t_\t_\n2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n"
                "2\tdo\tdo\tAUX\tVBP\t_\t1\taux\t_\t_\n3\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t_\tSpaceAfter=No\n",
                [{"tokens": ["Dogs", "do", "n't"], "ner_tags": ["NOUN", "AUX", "PART"]}], [2],
                "1 sentence, CoNLL, tokens in column 2, tags in column 4 (--columns changes it), a label for each word, no entities, 3 tokens, "
                "3 labels (AUX: 1, NOUN: 1, PART: 1)"),
    "parts of speech in JSON": ("ner", "a.json", lines({"words": ["Anna", "wept"], "tags": ["PROPN", "VERB"]}),
                                [{"tokens": ["Anna", "wept"], "ner_tags": ["PROPN", "VERB"]}], [1], None),
    "NER in JSON": ("ner", "a.json", lines({"words": ["Anna", "wept"], "tags": ["B-PER", "O"]}), [{"tokens": ["Anna", "wept"], "ner_tags": ["B-PER", "O"]}],
                    [1], "1 sentence, JSON lines, tokens (words) + ner_tags (tags), 2 tokens, 1 entity (PER: 1)"),
    "a text and its tags": ("ner", "a.jsonl", lines({"text": "我爱", "labels": ["O", "S-X"]}), [{"tokens": ["我", "爱"], "ner_tags": ["O", "B-X"]}], [1], None),
    "SQuAD 1.1": ("qa", "a.json", squad(answer("dog", 3), {"id": 7} | answer("cat", 11)),
                  [{"id": "q1", "context": "my dog, my cat", "question": "who?", "answers": {"text": ["dog"], "answer_start": [3]}},
                   {"id": "7", "context": "my dog, my cat", "question": "who?", "answers": {"text": ["cat"], "answer_start": [11]}}], ["q1", "7"],
                  "2 questions, SQuAD JSON, 1 context, 0 unanswerable, 0 answers moved, 0 skipped"),
    "SQuAD 2.0": ("qa", "a.json", squad(
        {"is_impossible": True, "answers": [], "plausible_answers": [{"text": "dog", "answer_start": 3}]}, {"is_impossible": False} | answer("dog", 3),
        {"is_impossible": True} | answer("dog", 3), {"is_impossible": True}, answer("", -1), {"answers": []}),
                  [{"id": f"q{i}", "context": "my dog, my cat", "question": "who?",
                    "answers": {"text": ["dog"], "answer_start": [3]} if i == 2 else {"text": [], "answer_start": []}} for i in range(1, 7)],
                  [f"q{i}" for i in range(1, 7)], "6 questions, SQuAD JSON, 1 context, 5 unanswerable, 0 answers moved, 0 skipped"),
    "answers elsewhere": ("qa", "a.json", squad(answer("dog", 4), answer("my", 1), answer("cow", 0), answer("cat", -1), answer("my", 8)),
                          [{"id": i, "context": "my dog, my cat", "question": "who?", "answers": {"text": [t], "answer_start": [s]}}
                           for i, t, s in (("q1", "dog", 3), ("q4", "cat", 11), ("q5", "my", 8))], ["q1", "q4", "q5"],
                          "3 questions, SQuAD JSON, 1 context, 0 unanswerable, 2 answers moved, 2 skipped: no certain place for the answer"),
    "several answers, no id": ("qa", "a.json", json.dumps({"data": [{"paragraphs": [{"context": "aaa b", "qas": [{"question": "?", "answers": [
        {"text": "b", "answer_start": 4}, {"text": "aaa", "answer_start": 0}]}]}]}]}),
                               [{"id": "1.1.1", "context": "aaa b", "question": "?", "answers": {"text": ["b", "aaa"], "answer_start": [4, 0]}}],
                               ["1.1.1"], None),
    "an alternative without a place": (
        "qa", "a.json", squad({"answers": [{"text": "cow", "answer_start": 0}, {"text": "cat", "answer_start": 11}]}, answer("cow", 0)),
        [{"id": "q1", "context": "my dog, my cat", "question": "who?", "answers": {"text": ["cat", "cow"], "answer_start": [11, -1]}}], ["q1"],
        "1 question, SQuAD JSON, 1 context, 0 unanswerable, 0 answers moved, 1 alternative answer without a certain place, for scoring only, "
        "1 skipped: no certain place for the answer"),
    "twice, one over the other": ("qa", "a.json", squad(answer("aa", 3), answer("b", 3), context="aaab"),
                                  [{"id": "q2", "context": "aaab", "question": "who?", "answers": {"text": ["b"], "answer_start": [3]}}], ["q2"], None),
    "characters beyond 16 bits": ("qa", "a.json", squad(answer("狗", 4), context="\U0001f436我的狗"),
                                  [{"id": "q1", "context": "\U0001f436我的狗", "question": "who?", "answers": {"text": ["狗"], "answer_start": [3]}}], ["q1"],
                                  "1 question, SQuAD JSON, 1 context, 0 unanswerable, 1 answer moved, 0 skipped"),
    "questions in JSON lines": ("qa", "a.jsonl", lines({"question": "?", "context": "a b", "answers": {"text": ["b"], "answer_start": [2]}},
                                                       {"id": "x", "question": "?", "context": "a b", "answers": []}),
                                [{"id": "1", "context": "a b", "question": "?", "answers": {"text": ["b"], "answer_start": [2]}},
                                 {"id": "x", "context": "a b", "question": "?", "answers": {"text": [], "answer_start": []}}], [1, 2], None),
    "questions in JSON lines, called .json": ("qa", "a.json", '{"question": "?", "context": "a", "answers": [], "id": null}\n' * 2,
                                              [{"id": i, "context": "a", "question": "?", "answers": {"text": [], "answer_start": []}} for i in "12"], [1, 2],
                                              "2 questions, JSON lines, question + context + answers, 1 context, 2 unanswerable, 0 answers moved, 0 skipped"),
    "questions in an array": ("qa", "a.json", '[{"question": "?", "context": "a", "answers": []}]',
                              [{"id": "1", "context": "a", "question": "?", "answers": {"text": [], "answer_start": []}}], [1], None),
    "no ids": ("qa", "a.json", squad(answer("dog", 3) | {"id": None}, answer("cat", 11) | {"id": None}),
               [{"id": f"1.1.{i}", "context": "my dog, my cat", "question": "who?", "answers": {"text": [t], "answer_start": [s]}}
                for i, t, s in ((1, "dog", 3), (2, "cat", 11))], ["1.1.1", "1.1.2"], None),
    "names that would not fit on a line": ("sentiment", "a.csv", 'text,label,"no\nte"\na,"x\ny",\nb,' + "z" * 99 + ",\n",
                                           [one("a", "x\ny"), one("b", "z" * 99)], [3, 5],
                                           f"2 rows, CSV with header, sentence (text) + label, 2 labels (x\\ny: 1, {'z' * 29}…: 1)"),
    "documents": ("text", "a.jsonl", lines({"text": "A. B.", "sentences": ["A.", "B."]}), [{"text": "A. B.", "sentences": ["A.", "B."]}], [1],
                  "1 document, JSON lines, text + sentences, 2 sentences"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_what_is_read(case, tmp_path):
    task, name, text, rows, places, understood = GOOD[case]
    found = read(task, put(tmp_path, name, text))
    assert found.rows == rows and found.places == places and len(found) == len(rows)
    line = found.understood
    assert str(line) == line.en == repr(found) and line.en.startswith(f"{name}: ") and line.zh.startswith(f"{name}：")
    assert "\n" not in line.en + line.zh and any("\u4e00" <= c <= "\u9fff" for c in line.zh)
    if understood:
        assert line.en == f"{name}: {understood}"


def test_the_same_in_chinese(tmp_path):
    nli = read("nli", put(tmp_path, "dev.json", lines(pair("a", "b", "yes"), pair("a", "b", "-"), pair("c", "d", "no"))))
    assert nli.understood.zh == "dev.json：2 行，JSON，一行一个对象，sentence1 + sentence2 + label，2 类（no：1，yes：1），跳过 1 个：标签为“-”"
    qa = read("qa", put(tmp_path, "dev.json", squad(answer("dog", 4), answer("my", 1))))
    assert qa.understood.zh == ("dev.json：1 个问题，SQuAD JSON，1 篇原文，无答案的 0 个，改正了 1 个答案的位置，跳过 1 个：答案位置不明")
    assert qa.skipped == {"no certain place for the answer": 1} and qa.moved == 1
    many = read("classification", put(tmp_path, "m.tsv", "sentence\tlabel\n" + "".join(f"s\t{i}\n" for i in range(20, 0, -1))))
    assert many.understood.en.endswith("20 labels (1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, …)")


PUBLISHED = {  # task, file, its first lines, columns of the first row
    "SST-2, test": ("sentiment", "test.tsv", "index\tsentence\n0\tuneasy mishmash .\n", False, one("uneasy mishmash .")),
    "MRPC": ("pairs", "dev.tsv", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t1\t2\tHe said .\tShe said .\r\n", True,
             pair("He said .", "She said .", "1")),
    "QQP": ("pairs", "dev.tsv", 'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tWhy "so?\tWhy?\t0\n', True, pair('Why "so?', "Why?", "0")),
    "QNLI": ("pairs", "dev.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n", True, pair("Who?", "He.", "entailment")),
    "STS-B": ("similarity", "dev.tsv", "index\tgenre\tsource1\tsentence1\tsentence2\tscore\n0\tx\tnone\tA man.\tA cat.\t0.400\n", True,
              pair("A man.", "A cat.", 0.4)),
    "MNLI": ("nli", "dev.tsv", "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label\n0\t1\ta\tb\tneutral\tentailment\n", True,
             pair("a", "b", "entailment")),
    "SNLI": ("nli", "dev.jsonl", lines({"annotator_labels": ["neutral"], "gold_label": "neutral", "sentence1": "a", "sentence2": "b", "pairID": "1"}),
             True, pair("a", "b", "neutral")),
    "ChnSentiCorp": ("sentiment", "dev.tsv", "label\ttext_a\n1\t房间不错\n", True, one("房间不错", "1")),
    "weibo_senti_100k": ("sentiment", "all.csv", 'label,review\n0,"太, 过分了"\n', True, one("太, 过分了", "0")),
    "LCQMC": ("pairs", "dev.tsv", "text_a\ttext_b\tlabel\n开初婚证明\t初婚证明\t1\n", True, pair("开初婚证明", "初婚证明", "1")),
    "AFQMC, test": ("pairs", "test.json", lines({"id": 0, "sentence1": "花呗", "sentence2": "借呗"}), False, pair("花呗", "借呗")),
    "TNEWS": ("classification", "dev.json", lines({"label": "102", "label_desc": "news", "sentence": "江疏影", "keywords": ""}), True,
              one("江疏影", "102")),
    "a Hub's JSON lines": ("classification", "dev.jsonl", lines({"label": 3, "text": "card", "label_text": "x"}), True, one("card", "3")),
}  # fmt: skip


@pytest.mark.parametrize("case", PUBLISHED)
def test_headers_of_published_data(case, tmp_path):
    task, name, text, labelled, row = PUBLISHED[case]
    assert read(task, put(tmp_path, name, text), labelled=labelled).rows == [row]


def test_columns(tmp_path):
    path = put(tmp_path, "a.tsv", "opinion\tstars\ttext\na\t1\tx\nb\t5\ty\n")
    assert read("sentiment", path, {"sentence": "opinion", "label": "stars"}).rows == [one("a", "1"), one("b", "5")]
    assert read("sentiment", path, {"label": "stars"}).rows == [one("x", "1"), one("y", "5")]
    assert read("sentiment", path, {"sentence": "opinion", "label": "gone"}, labelled=False).rows == [one("a"), one("b")]
    found = read("regression", path, {"sentence": "opinion", "label": "stars"})
    assert found.understood.en == "a.tsv: 2 rows, TSV with header, sentence (opinion) + label (stars), label from 1 to 5, mean 3"
    path = put(tmp_path, "a.jsonl", lines({"o": "a", "s": 1, "i": "x"}))
    assert read("sentiment", path, {"sentence": "o", "label": "s", "id": "i"}).rows == [one("a", "1")]
    path = put(tmp_path, "q.jsonl", lines({"q": "?", "c": "a", "a": [], "i": 3}))
    assert read("qa", path, {"question": "q", "context": "c", "answers": "a", "id": "i"}).rows[0]["id"] == "3"


UNLABELLED = {
    "one column": ("sentiment", "a.tsv", "fine\nso so\n", [one("fine"), one("so so")]),
    "a label that is not wanted": ("sentiment", "a.tsv", "sentence\tlabel\nfine\t?\n", [one("fine")]),
    "a label by position": ("sentiment", "a.tsv", "fine\t1\nso so\t0\n", [one("fine"), one("so so")]),
    "a pair": ("pairs", "a.csv", "a,b\nc,d\n", [pair("a", "b"), pair("c", "d")]),
    "a pair for a number": ("regression", "a.tsv", "a\tb\n", [pair("a", "b")]),
    "one for a number": ("regression", "a.jsonl", lines({"text": "a"}), [one("a")]),
    "tokens": ("ner", "a.txt", "Anna\nwept\n\nOslo\n", [{"tokens": ["Anna", "wept"]}, {"tokens": ["Oslo"]}]),
    "tokens with tags": ("ner", "a.conll", "Anna B-PER\nwept O\n", [{"tokens": ["Anna", "wept"]}]),
    "questions": ("qa", "a.json", squad({}), [{"id": "q1", "context": "my dog, my cat", "question": "who?"}]),
    "no agreement": ("nli", "a.jsonl", lines(pair("a", "b", "-")), [pair("a", "b")]),
}  # fmt: skip


@pytest.mark.parametrize("case", UNLABELLED)
def test_without_labels(case, tmp_path):
    task, name, text, rows = UNLABELLED[case]
    found = read(task, put(tmp_path, name, text), labelled=False)
    assert found.rows == rows and "label" not in found.understood.en and "moved" not in found.understood.en


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name, comma", [("a.tsv", "\t"), ("a.csv", ",")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding, name, comma, end, tmp_path):
    text = "".join(comma.join(row) + end for row in (("sentence", "label"), ("好\u2028吗", "1"), (), ("\U0001f436", "0")))
    found = read("sentiment", put(tmp_path, name, text, encoding))
    assert found.rows == [one("好\u2028吗", "1"), one("\U0001f436", "0")] and found.places == [2, 4]


def test_big_endian(tmp_path):
    assert read("sentiment", put(tmp_path, "a.tsv", "\ufeffgood\t1\n", "utf-16-be")).rows == [one("good", "1")]
    assert read("sentiment", put(tmp_path, "a.tsv", "\ufeffgood\t1\n", "utf-32-be")).rows == [one("good", "1")]


# --- as their publishers write them -------------------------------------------------------------------------------

ENTITY = [{"tokens": ["口", "罩"], "ner_tags": ["B-X", "I-X"]}]
FOUND_OUT = {  # task, file, its text, first row, what the summary has to say
    "Weibo": ("ner", "weiboNER_2nd_conll.train", "口0\tB-X\n罩1\tI-X\n", ENTITY[0], "CoNLL, read as conll (by content; --format changes it), the digit behind"),
    "no ending": ("ner", "eng", "口 B-X\n罩 I-X\n", ENTITY[0], "read as conll (by content; --format"),
    "SICK, classes": ("pairs", "SICK.txt", "pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score\n1\ta\tb\tNEUTRAL\t4.5\n",
                      pair("a", "b", "NEUTRAL"), "read as tsv (by content"),
    "SICK, numbers": ("similarity", "SICK_train.txt", "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n1\ta\tb\t4.5\tNEUTRAL\n",
                      pair("a", "b", 4.5), "label (relatedness_score)"),
    "MRPC": ("pairs", "msr_paraphrase_train.txt", '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\t"a" said\tb "c\n',
             pair('"a" said', 'b "c', "1"), "label (Quality) + sentence1 (#1 String) + sentence2 (#2 String)"),
    "QQP": ("pairs", "train.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t0\n", pair("a", "b", "0"), "(is_duplicate)"),
    "STS-B": ("similarity", "train.tsv", "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n0\tx\tx\tx\t1\tn\tn\ta\tb\t5.000\n",
              pair("a", "b", 5.0), "label (score)"),
    "MNLI": ("nli", "dev_matched.tsv", "index\tpromptID\tsentence1\tsentence2\tlabel1\tlabel2\tgold_label\n0\t1\ta\tb\tneutral\tx\tentailment\n",
             pair("a", "b", "entailment"), "label (gold_label)"),
    "QNLI": ("pairs", "dev.tsv", "index\tquestion\tsentence\tlabel\n0\ta\tb\tentailment\n", pair("a", "b", "entailment"), "sentence2 (sentence)"),
    "SST-2": ("sentiment", "dev.tsv", "sentence\tlabel\na\t1\n", one("a", "1"), "sentence + label"),
    "CoLA": ("classification", "in_domain_train.tsv", "gj04\t1\t\tOur friends.\ngj04\t0\t*\tThe more.\n", one("Our friends.", "1"), "label + sentence"),
    "SNLI": ("nli", "snli.jsonl", lines({"gold_label": "neutral", "sentence1": "a", "sentence2": "b", "annotator_labels": []}), pair("a", "b", "neutral"), "(gold_label)"),
    "XNLI's training set": ("nli", "multinli.train.zh.tsv", "premise\thypo\tlabel\na\tb\tneutral\n", pair("a", "b", "neutral"), "sentence2 (hypo)"),
    "LCQMC": ("pairs", "dev.tsv", "text_a\ttext_b\tlabel\na\tb\t1\n", pair("a", "b", "1"), "sentence1 (text_a)"),
    "ChnSentiCorp": ("sentiment", "train.tsv", "label\ttext_a\n1\ta\n", one("a", "1"), "sentence (text_a)"),
    "ChnSentiCorp, hotels": ("sentiment", "ChnSentiCorp_htl_all.csv", 'label,review\n1,"a, b"\n', one("a, b", "1"), "sentence (review)"),
    "IMDb": ("sentiment", "IMDB Dataset.csv", "review,sentiment\na,positive\n", one("a", "positive"), "label (sentiment)"),
    "TNEWS": ("classification", "train.json", lines({"label": "108", "label_desc": "news_edu", "sentence": "a", "keywords": ""}), one("a", "108"), "sentence"),
    "CSL": ("pairs", "train.json", lines({"id": 1, "abst": "a", "keyword": ["b", "c"], "label": "1"}), pair("a", "b、c", "1"), "sentence2 (keyword)"),
    "a .txt with commas": ("sentiment", "a.txt", "label,text\n1,a\n", one("a", "1"), "CSV with header"),
    "JSON lines called .txt": ("sentiment", "a.txt", lines(one("a", 1)), one("a", "1"), "read as json (by content"),
    "Excel's separator": ("sentiment", "a.csv", "sep=;\nsentence;label\na, b;1\n", one("a, b", "1"), "CSV (;) with header"),
    "another separator": ("sentiment", "a.csv", "sep=|\r\nsentence|label\r\na|1\r\n", one("a", "1"), "CSV (|) with header"),
    "a long field": ("sentiment", "a.csv", f'sentence,label\n"{"a" * 200_000}",1\n', one("a" * 200_000, "1"), "1 row"),
    "GB18030": ("sentiment", "a.csv", "sentence,label\n这部电影很好看,1\n服务太差了,0\n".encode("gb18030"), one("这部电影很好看", "1"),
                "decoded as GB18030 (guessed; --encoding changes it)"),
    "Latin-1": ("sentiment", "a.tsv", "sentence\tlabel\nZoë a été là\t1\n".encode("latin-1"), one("Zoë a été là", "1"), "decoded as CP1252 (guessed"),
    "Latin-1, old Mac": ("sentiment", "a.tsv", b"sentence\tlabel\ra\t1\rcaf\xe9 au lait\t1\r", one("a", "1"), "decoded as CP1252 (guessed"),
    "UTF-16 without a mark": ("sentiment", "a.tsv", "sentence\tlabel\na\t1\n".encode("utf-16-le"), one("a", "1"), "decoded as UTF-16 (guessed"),
    "packed": ("sentiment", "a.tsv.gz", gzip.compress("sentence\tlabel\n好\t1\n".encode()), one("好", "1"), "TSV with header, sentence + label"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND_OUT)
def test_as_published(case, tmp_path):
    task, name, text, first, part = FOUND_OUT[case]
    found = read(task, put(tmp_path, name, text))
    assert found.rows[0] == first and part in found.understood.en, found.understood.en


def test_cmrc_in_its_own_form(tmp_path):
    qas = [{"query_text": "谁？", "query_id": "DEV_0_QUERY_0", "answers": ["小王", "小王和他"]}, {"query_text": "哪？", "query_id": "Q1", "answers": ["没有"]}]
    passages = [{"context_id": "DEV_0", "context_text": "小王和他的朋友。小王笑了。", "qas": qas, "title": "t"}]
    found = read("qa", put(tmp_path, "cmrc2018_dev.json", json.dumps(passages)))
    assert found.rows == [{"id": "DEV_0_QUERY_0", "context": "小王和他的朋友。小王笑了。", "question": "谁？",
                           "answers": {"text": ["小王", "小王和他"], "answer_start": [0, 0]}}]
    assert "1 question whose answer occurs several times: the first occurrence is taken" in found.understood.en
    assert found.skipped.total() == 1


@pytest.mark.parametrize("qa, says", [
    ("a", "no 'query_text' that is text: CMRC has"),
    ({"query_text": "谁？", "answers": "小王"}, "no 'answers' that is a list"),  # once read as two answers of a character each
    ({"query_text": "谁？", "answers": 5}, "no 'answers' that is a list"),
    ({"query_text": "谁？", "answers": ["小王", 5]}, "'answers' is not text but 5"),
    ({"query_text": "谁？"}, "no 'answers'"),
])  # fmt: skip
def test_cmrc_with_faults(tmp_path, qa, says):
    assert says in said(read, "qa", put(tmp_path, "dev.json", json.dumps([{"context_text": "小王笑了。", "qas": [qa]}])))


def test_cmrc_without_labels(tmp_path):
    path = put(tmp_path, "test.json", json.dumps([{"context_text": "小王笑了。", "qas": [{"query_text": "谁？", "query_id": "1"}]}]))
    assert read("qa", path, labelled=False).rows == [{"id": "1", "context": "小王笑了。", "question": "谁？"}]
    assert read("qa", path, labelled=None).rows == read("qa", path, labelled=False).rows


def test_a_broken_row_of_a_large_published_table_is_left_out_and_said(tmp_path):
    rows = [f"a{i}\tb\t{i % 2}" for i in range(2_000)]
    found = read("pairs", put(tmp_path, "train.tsv", "\n".join(["question1\tquestion2\tis_duplicate", *rows[:50], "cut", *rows[50:]])))
    assert len(found) == 2_000 and "1 row without 3 fields left out (first: line 52)" in found.understood.en
    few = put(tmp_path, "few.tsv", "\n".join(["question1\tquestion2\tis_duplicate", *rows[:50], "cut"]))
    assert said(read, "pairs", few).startswith("few.tsv, line 52: the header has 3 fields, this row 1")


def test_columns_by_number(tmp_path):
    table = put(tmp_path, "a.tsv", "x\t1\ty\ta\nx\t0\ty\tb\n")
    assert read("classification", table, {"sentence": "4", "label": "2"}).rows == [one("a", "1"), one("b", "0")]
    conll = put(tmp_path, "a.conll", "B-PER Anna NNP O\nO wept VBD O\n")
    assert read("ner", conll, {"tokens": "2", "ner_tags": "1"}).rows == [{"tokens": ["Anna", "wept"], "ner_tags": ["B-PER", "O"]}]
    assert said(read, "ner", conll, {"tokens": "9"}) == "a.conll, line 1: 4 columns, and column 9 is wanted: fix the line, or --columns"
    assert said(read, "classification", table, {"sentence": "9", "label": "2"}).startswith("a.tsv, line 1: no column '9', only 1, 2, 3, 4")


def test_format_and_encoding_can_be_named(tmp_path):
    quoted = put(tmp_path, "a.txt", '"a\tb",1\n"c",0\n')
    assert read("sentiment", quoted, format="csv").rows == [one("a\tb", "1"), one("c", "0")]
    assert said(read, "sentiment", quoted, format="conll") == "sentiment is not read from 'conll': name tsv, csv, json"
    big5 = put(tmp_path, "b.tsv", "很好\t1\n".encode("big5"))
    assert read("sentiment", big5, encoding="big5").rows == [one("很好", "1")]
    assert said(read, "sentiment", big5, encoding="ascii").startswith("b.tsv, line 1: not ASCII: save the file as UTF-8")
    assert said(read, "sentiment", big5, encoding="klingon") == "there is no encoding 'klingon': name one such as utf-8, gb18030 or latin-1"


@pytest.mark.parametrize(("task", "text", "example"), [
    ("classification", "fine film\t1\n", "  line 1: fine film → 1"),
    ("pairs", "a\tb\tyes\n", "  line 1: a | b → yes"),
    ("ner", "it O\n\nAnna B-PER\nwept O\n", "  line 3: Anna/B-PER wept/O"),
    ("qa", squad(answer("dog", 3)), "  question q1: who? → dog"),
    ("qa", squad({"answers": []}), "  question q1: who? → (no answer)"),
])  # fmt: skip
def test_one_row_is_shown_as_it_was_understood(task, text, example, tmp_path):
    assert read(task, put(tmp_path, "a.json" if task == "qa" else "a.txt", text)).example.en == example



# --- what is refused ----------------------------------------------------------------------------------------------

NLI = "sentence1\tsentence2\tlabel\n"
BAD = {  # task, file, its text, how the sentence begins, or a part of it after …
    "too few fields": ("sentiment", "a.tsv", "sentence\tlabel\na\t1\n\nb\n", "a.tsv, line 4: the header has 2 fields, this row 1: put one tab"),
    "too many": ("sentiment", "a.tsv", "sentence\tlabel\na\tb\tc\n", "a.tsv, line 2: the header has 2 fields, this row 3"),
    "too many, no header": ("sentiment", "a.tsv", "fine\t1\na\tb\tc\n", "a.tsv, line 2: the first row has 2 fields, this row 3"),
    "too few in CSV": ("sentiment", "a.csv", 'sentence,label\n"a\nb",1\nc\n', "a.csv, line 4: the header has 2 fields, this row 1: quote a field"),
    "a bare comma": ("sentiment", "a.csv", "sentence,label\na, b,1\n", "a.csv, line 2: the header has 2 fields, this row 3"),
    "a quote amid": ("sentiment", "a.csv", 'sentence,label\n"a" b,1\n', "a.csv, line 2: not CSV ("),
    "an open quote": ("sentiment", "a.csv", 'sentence,label\nb,0\n"a,1\nc,1\n', "a.csv, line 3: not CSV (unexpected end of data): close each"),
    "a bare carriage return": ("sentiment", "a.csv", "sentence,label\na\rb,1\n", "a.csv, line 2: not CSV (new-line character seen in unquoted field)"),
    "no such column": ("sentiment", "a.tsv", "opinion\tlabel\na\t1\n", "a.tsv, line 1: no column 'sentence', only opinion, label: say which"),
    "no label": ("nli", "a.tsv", "sentence1\tsentence2\na\tb\n", "a.tsv, line 1: no column 'label', only sentence1, sentence2"),
    "unknown names, numbers below": ("sentiment", "a.tsv", "opinion\tstars\na\t1\nb\t5\n", "a.tsv, line 1: opinion, stars looks like a header"),
    "unknown names, words below": ("sentiment", "a.csv", "opinion,verdict\n" + "a,good\nb,bad\n" * 9, "a.csv, line 1: opinion, verdict looks like a header"),
    "unknown names, numbers wanted": ("regression", "a.csv", "opinion,stars\na,1\nb,2\n", "a.csv, line 1: opinion, stars looks like a header"),
    "one field": ("sentiment", "a.tsv", "nothing but text\n", "a.tsv, line 1: no known column name in the first row, and 1 field instead of 2"),
    "two of a name": ("sentiment", "a.tsv", "text\ttext\tlabel\na\tb\t1\n", "a.tsv, line 1: two columns are called 'text': rename one"),
    "only a header": ("sentiment", "a.tsv", "sentence\tlabel\n", "…a.tsv has no rows: name a file with data"),
    "empty": ("sentiment", "a.tsv", "", "…a.tsv has no rows"),
    "blank": ("sentiment", "a.csv", "\n \n", "…a.csv has no rows"),
    "an empty array": ("sentiment", "a.json", "[]", "…a.json has no rows"),
    "plus and minus": ("pairs", "a.tsv", NLI + "a\tb\t-\nc\td\t+\n", "…a.tsv, line 3: labels + and -, but - means"),
    "nothing agreed on": ("nli", "a.tsv", NLI + "a\tb\t-\n", '…a.tsv has no rows (1 skipped: label "-"): name'),
    "half a UTF-16": ("sentiment", "a.tsv", "\ufeffa\t1\n\U0001f436\t1\n".encode("utf-16-le")[:-9], "a.tsv, line 2: not UTF-16: save the file as UTF-8"),
    "a spreadsheet": ("sentiment", "a.xlsx", b"PK\x03\x04\x14\0", "a.xlsx is a zip archive or an Excel workbook: save it as CSV or JSON lines in UTF-8"),
    "Parquet": ("sentiment", "a.parquet", b"PAR1\x15\x04", "a.parquet is a Parquet file: save it as CSV or JSON lines"),
    "documents in a table": ("text", "a.tsv", "text\n", "a.tsv is not JSON: text reads json"),
    "questions in a table": ("qa", "a.tsv", "question\tcontext\n", "a.tsv is not JSON: qa reads squad, json"),
    "UTF-8 with a damaged byte": ("sentiment", "a.tsv", "sentence\tlabel\n很好\t1\n太差了".encode() + b"\xc4\t0\n",
                                  "a.tsv, line 3: not UTF-8: save the file as UTF-8, or name its encoding with --encoding"),
    "no text": ("sentiment", "a.tsv", bytes(range(256)) * 4, "a.tsv, line 2: not UTF-8"),
    "a damaged archive": ("sentiment", "a.tsv.gz", b"\x1f\x8b\x08\0abc", "a.tsv.gz is damaged ("),
    "NaN": ("sentiment", "a.jsonl", '{"sentence": "a", "label": NaN}\n', "a.jsonl, line 1: the label is empty"),
    "a number without end": ("sentiment", "a.jsonl", f'{{"sentence": "a", "label": {"9" * 5000}}}', "a.jsonl, line 1: not valid JSON (a number of thousands"),
    "another in SQuAD": ("qa", "a.json", f'{{"data": {"9" * 5000}}}', "a.json: not valid JSON (a number of thousands of digits): fix it"),
    "a name of two lines": ("sentiment", "a.csv", '"no\nte",label\na,1\n', r"a.csv, line 1: no column 'sentence', only no\nte, label"),
    "a name that cannot be shown": ("sentiment", "a.jsonl", '{"\\ud83d": 1}', r"a.jsonl, line 1: no column 'sentence', only \ud83d: say"),
    "a very long number": ("similarity", "a.tsv", NLI + "a\tb\t" + "x" * 999 + "\n", f"a.tsv, line 2: '{'x' * 29}…' is not a number: write one"),
    "a very long token": ("ner", "a.conll", "x" * 999 + "\n", f"a.conll, line 1: no tag such as O or B-PER after '{'x' * 29}…': write"),
    "a very long id": ("qa", "a.json", squad({"id": "x" * 999}), f"a.json, question {'x' * 29}…: no 'answers'"),
    "cut JSON": ("sentiment", "a.jsonl", lines(one("a", 1)) + '{"sentence":\n', "a.jsonl, line 2: not valid JSON (Expecting value): write one whole"),
    "JSON over several lines": ("sentiment", "a.json", '{\n"sentence": "a",\n"label": 1\n}', "a.json, line 1: not valid JSON ("),
    "a cut array": ("sentiment", "a.json", '[{"sentence": "a",\n "label" 1}]', "a.json, line 2: not valid JSON (Expecting ':' delimiter): fix it"),
    "a list in a line": ("sentiment", "a.jsonl", '["a", 1]\n', "a.jsonl, line 1: not a JSON object"),
    "a number in an array": ("sentiment", "a.json", '[{"sentence": "a", "label": 1}, 3]', "a.json, entry 2: not a JSON object"),
    "too deep": ("sentiment", "a.jsonl", "[" * 100_000 + "\n", "a.jsonl, line 1: not valid JSON (nested too deeply)"),
    "null": ("sentiment", "a.jsonl", '{"sentence": "a", "label": null}\n', "a.jsonl, line 1: the label is empty"),
    "an empty label": ("sentiment", "a.tsv", "sentence\tlabel\na\t1\nb\t \n", "a.tsv, line 3: the label is empty: write one, or take the row out"),
    "a list for a label": ("sentiment", "a.jsonl", '{"sentence": "a", "label": [1]}\n', "a.jsonl, line 1: 'label' is not text but [1]"),
    "a number for a text": ("sentiment", "a.jsonl", lines(one(5, 1)), "a.jsonl, line 1: 'sentence' is not text but 5"),
    "half a character": ("sentiment", "a.jsonl", '{"sentence": "\\ud83d", "label": 1}', "a.jsonl, line 1: 'sentence' holds half of a character"),
    "a word for a number": ("similarity", "a.tsv", NLI + "a\tb\t3\na\tb\thigh\n", "a.tsv, line 3: 'high' is not a number: write one such as 3.5"),
    "a decimal comma": ("similarity", "a.tsv", NLI + "a\tb\t3,5\n", "a.tsv, line 2: '3,5' is not a number"),
    "no finite number": ("similarity", "a.tsv", NLI + "a\tb\tnan\n", "a.tsv, line 2: 'nan' is not a number"),
    "true for a number": ("regression", "a.jsonl", lines(one("a", True)), "a.jsonl, line 1: 'True' is not a number"),
    "a column that went": ("sentiment", "a.jsonl", lines(one("a", 1), {"sentence": "b"}), "a.jsonl, line 2: no column 'label', only sentence"),
    "one and two sentences": ("regression", "a.jsonl", lines(pair("a", "b", 1), one("a", 1)), "a.jsonl, line 2: only sentence, label, the rows before"),
    "no tag": ("ner", "a.conll", "a O\nb B-X\nc\n", "a.conll, line 3: no tag such as O or B-PER after 'c': write one"),
    "no tag after a tab": ("ner", "a.conll", "a\tO\n\nc\t\n", "a.conll, line 3: no tag such as O or B-PER after 'c'"),
    "no such tag": ("ner", "a.conll", "c B-X\nb person\n", "a.conll, line 2: no tag such as O or B-PER after 'b'"),
    "a text, no tags": ("ner", "a.txt", "my dog\nyour cat\n\nour hen\n", "a.txt, line 1: no tag such as O or B-PER after 'my'"),
    "a text with a tag-like end": ("ner", "a.txt", "The DT\ndog NN\nbarks loudly VBZ\n", "a.txt, line 1: no tag such as O or B-PER after 'The'"),
    "numbers in a column": ("ner", "a.conll", "a 0\nb 1\nc 0\nd 0\n", "a.conll, line 1: no tag such as O or B-PER after 'a'"),
    "an empty tag": ("ner", "a.jsonl", lines({"tokens": ["a"], "ner_tags": [""]}), 'a.jsonl, line 1: "" is not a tag'),
    "a tag of another kind": ("ner", "a.jsonl", lines({"tokens": ["a", "b"], "ner_tags": ["B-X", "NN"]}), 'a.jsonl, line 1: "NN" is not a tag'),
    "no token": ("ner", "a.conll", "a\tO\n\tO\n", "a.conll, line 2: no token before 'O': write one"),
    "an old Mac's lines": ("ner", "a.conll", "a O\rb\rc O\r", "a.conll, line 2: no tag"),
    "only breaks": ("ner", "a.conll", "\n\t\n", "…a.conll has no rows"),
    "fewer tags": ("ner", "a.jsonl", lines({"tokens": ["a", "b"], "ner_tags": ["O"]}), "a.jsonl, line 1: 2 tokens but 1 tag: write one tag for each"),
    "tags in a text": ("ner", "a.jsonl", lines({"tokens": ["a"], "ner_tags": "O"}), "a.jsonl, line 1: 1 token but 0 tags"),
    "numbers for tags": ("ner", "a.jsonl", lines({"tokens": ["a"], "ner_tags": [3]}), "a.jsonl, line 1: 3 is not a tag: write names such as O"),
    "no list of tokens": ("ner", "a.jsonl", lines({"tokens": 3, "ner_tags": ["O"]}), "a.jsonl, line 1: 'tokens' is not a list of texts"),
    "a number for a token": ("ner", "a.jsonl", lines({"tokens": [3], "ner_tags": ["O"]}), "a.jsonl, line 1: 'tokens' is not text but 3"),
    "no place": ("qa", "a.json", squad(answer("cow", 3)), "…a.json has no rows (1 skipped: no certain place for the answer)"),
    "no answers": ("qa", "a.json", squad({}), "a.json, question q1: no 'answers': write ["),
    "no start": ("qa", "a.json", squad({"answers": [{"text": "dog"}]}), "a.json, question q1: no 'answer_start' that is a number: SQuAD has"),
    "a text for a start": ("qa", "a.json", squad(answer("dog", "3")), "a.json, question q1: no 'answer_start' that is a number"),
    "true for a start": ("qa", "a.json", squad(answer("dog", True)), "a.json, question q1: no 'answer_start' that is a number"),
    "a text for an answer": ("qa", "a.json", squad({"answers": ["dog"]}), "a.json, question q1: no 'text' that is text"),
    "no question": ("qa", "a.json", squad({"question": None, "answers": []}), "a.json, question q1: no 'question' that is text"),
    "an id twice": ("qa", "a.json", squad(answer("dog", 3), {"id": "q1"} | answer("cat", 11)), "a.json, question q1: the id q1 occurs twice"),
    "no context": ("qa", "a.json", squad(context=None), "a.json, paragraph 1.1: no 'context' that is text"),
    "no list of questions": ("qa", "a.json", '{"data": [{"paragraphs": [{"context": "a", "qas": {}}]}]}', "a.json, paragraph 1.1: no 'qas' that is a list"),
    "no question at all": ("qa", "a.json", '{"data": [{"paragraphs": [{"context": "a", "qas": [3]}]}]}', "a.json, question 1.1.1: no 'question'"),
    "no paragraphs": ("qa", "a.json", squad(data=[{}]), "a.json, article 1: no 'paragraphs' that is a list"),
    "no data": ("qa", "a.json", '{"version": 1}', "a.json: no 'data' that is a list: SQuAD has data > paragraphs >"),
    "no articles": ("qa", "a.json", squad(data=[]), "…a.json has no rows"),
    "a list instead of SQuAD": ("qa", "a.json", "[1]", "a.json: no 'data' that is a list"),
    "cut SQuAD": ("qa", "a.json", '{"data": [\n{]}', "a.json, line 2: not valid JSON (Expecting property name"),
    "starts are missing": ("qa", "a.jsonl", lines({"question": "?", "context": "a", "answers": {"text": ["a"], "answer_start": []}}), "a.jsonl, line 1: no 'answers'"),
    "no sentences": ("text", "a.jsonl", '{"text": "A."}\n', "a.jsonl, line 1: no column 'sentences', only text"),
    "sentences in one": ("text", "a.jsonl", '{"text": "A.", "sentences": "A."}\n', "a.jsonl, line 1: 'sentences' is not a list of texts"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_fault_is_named_by_its_place(case, tmp_path):
    task, name, text, expected = BAD[case]
    found = said(read, task, put(tmp_path, name, text))
    assert expected[1:] in found if expected[0] == "…" else found.startswith(expected), found


def test_what_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.tsv").mkdir()
    assert said(read, "sentiment", "none.tsv") == "none.tsv cannot be read: there is no such file: check the path"
    assert said(read, "sentiment", "none") == "none cannot be read: there is no such file: check the path"
    assert said(read, "sentiment", "folder.tsv") == "folder.tsv cannot be read: it is a folder: name a file in it"
    assert said(read, "ner", ".") == ". cannot be read: it is a folder: name a file in it"
    assert said(read, "sentiment", "a\0.tsv").startswith(r"a\x00.tsv cannot be read: ")
    assert said(read, "poetry", "a.tsv") == f"there is no task 'poetry': name one of {', '.join(TASKS)}"
    Path("locked.tsv").write_text("a\t1\n")
    monkeypatch.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert said(read, "sentiment", "locked.tsv") == "locked.tsv cannot be read: permission denied: let yourself read it"
    monkeypatch.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    assert said(read, "sentiment", "locked.tsv") == "locked.tsv cannot be read: Input/output error"


def test_columns_that_are_not_there(tmp_path):
    table, conll, json_lines = put(tmp_path, "a.tsv", "opinion\tstars\na\t1\n"), put(tmp_path, "a.conll", "a O\n"), put(tmp_path, "a.jsonl", '{"a": 1}')
    assert said(read, "sentiment", table, {"sentence": "review"}) == (
        "a.tsv, line 1: no column 'review', only opinion, stars: name one of them in columns")
    assert said(read, "sentiment", json_lines, {"sentence": "b"}).startswith("a.jsonl, line 1: no column 'b', only a")
    assert said(read, "sentiment", table, {"text": "opinion"}) == (
        "columns names 'text', but task sentiment has no such column: use sentence, label or id")
    assert said(read, "ner", conll, {"tokens": "word"}).startswith("a.conll: the columns of a CoNLL file have numbers: tokens=1,ner_tags=4")
    assert said(read, "qa", put(tmp_path, "a.json", squad({})), {"question": "q"}).startswith("a.json: what the parts of a SQuAD file are called")
    wide = put(tmp_path, "b.tsv", "label\t" + "\t".join("x" * 50 + str(i) for i in range(99)) + "\n" + "\t" * 98 + "1\t\n")
    assert len(said(read, "sentiment", wide)) < 500


# --- round trips --------------------------------------------------------------------------------------------------

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # everything that can be encoded
NASTY = st.one_of(ANY, st.sampled_from(['"', '""', '"a', "'", "NA", "null", "None", "nan", "-", "{", "[", "#", "a\u2028b", "a\x85b", "\ufeff", " ",
                                       "\u3000", "a,b", "a;b", "\\", "\\t", "a\rb", "O", "0"]))  # fmt: skip
CELL = NASTY.filter(lambda text: not set(text) & set("\t\n\0"))
QUICK = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("round-trips")


@QUICK
@given(st.lists(CELL, min_size=1), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_any_text_through_tsv(place, texts, end, encoding):
    rows = [one(text, str(i % 2)) for i, text in enumerate(texts)]
    text = "".join("\t".join(cells) + end for cells in [("sentence", "label"), *(row.values() for row in rows)])
    assert read("sentiment", put(place, "a.tsv", text, encoding)).rows == rows


@QUICK
@given(st.lists(st.tuples(NASTY.filter(lambda text: "\0" not in text), CELL), min_size=1), st.sampled_from([",", ";"]))
def test_any_text_through_csv(place, texts, comma):
    file = io.StringIO()
    writer = csv.writer(file, delimiter=comma, quoting=csv.QUOTE_ALL)
    rows = [pair(a, b, str(i % 2)) for i, (a, b) in enumerate(texts)]
    writer.writerows([("sentence1", "sentence2", "label"), *(row.values() for row in rows)])
    assert read("pairs", put(place, "a.csv", file.getvalue())).rows == rows


@QUICK
@given(st.lists(NASTY, min_size=1), st.booleans(), st.booleans())
def test_any_text_through_json(place, texts, escaped, array):
    rows = [one(text, str(i % 2)) for i, text in enumerate(texts)]
    dumped = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    text = f"[{', '.join(dumped)}]" if array else "\n".join(dumped)
    assert read("sentiment", put(place, "a.json", text)).rows == rows
    if not array:
        assert [*stream("sentiment", io.BytesIO(text.encode()))] == [one(row["sentence"]) for row in rows]


@QUICK
@given(st.lists(st.lists(st.tuples(CELL.filter(lambda t: t and t != "-DOCSTART-" and not set(t) & set("\r\ufeff")),
                                   st.sampled_from(["O", "B-a", "I-a", "B-é.x"])), min_size=1), min_size=1), st.sampled_from(["\n", "\t\n", " \r\n"]))  # fmt: skip
def test_any_token_through_conll(place, sentences, gap):
    text = gap.join("".join(f"{token}\t{tag}\n" for token, tag in sentence) for sentence in sentences)
    marked = put(place, "a.conll", text, "utf-8-sig")  # or else a U+FEFF that comes first is taken for the mark
    found, tags = read("ner", marked).rows, [[tag for _, tag in sentence] for sentence in sentences]
    assert [row["tokens"] for row in found] == [[token for token, _ in sentence] for sentence in sentences]
    assert [row["ner_tags"] for row in found] == ([*map(from_iob1, tags)] if is_iob1(tags) else tags)


@QUICK
@given(NASTY.filter(bool), NASTY, NASTY, st.booleans())
def test_any_answer_through_squad(place, text, before, after, escaped):
    context = before + text + after
    qa = {"id": "1", "question": "?", "answers": [{"text": text, "answer_start": len(before)}]}
    whole = json.dumps({"data": [{"paragraphs": [{"context": context, "qas": [qa]}]}]}, ensure_ascii=escaped)
    (row,) = read("qa", put(place, "a.json", whole)).rows
    assert row["context"] == context and row["answers"]["text"] == ([text] if text.strip() else [])


SEEDS = [(task, name, text if isinstance(text, bytes) else text.encode()) for task, name, text, *_ in [*GOOD.values(), *BAD.values()]
         if len(text) < 10_000]  # fmt: skip


@settings(QUICK, max_examples=200)
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False), st.sampled_from([*TASKS]), st.booleans())
def test_damage_is_refused_in_a_sentence_or_read(place, seed, rng, task, own):
    """Whatever bytes a file holds: rows with the task's columns, or one sentence; never another exception."""
    own_task, name, data = seed
    data = bytearray(data)
    for _ in range(rng.randint(0, 3)):
        i = rng.randint(0, len(data))
        data[i : i + rng.randint(0, 2)] = rng.choice([b"", b"\t", b"\n", b"\r", b'"', b",", b"{", b"]", b"\xff", b"null", b"\0", b"1"])
    try:
        found = read(own_task if own else task, put(place, name, bytes(data)))
        assert found.understood.en and {len(row) for row in found.rows} == {len(found.rows[0])}
        as_dataset(own_task if own else task, {"test": found})
    except FileError as error:
        checked(error)


# --- to a data set ------------------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda name, text: put(tmp_path, name, text).name


def test_standard_features(write):
    from datasets import ClassLabel, DatasetDict, List, Value

    text = Value("string")
    files = {"test": write("t.tsv", "text\tlabel\nc\t9\n"), "train": write("a.tsv", "sentence\tlabel\na\t10\nb\t9\nx\t-1\n")}
    data = dataset("sentiment", files)
    assert isinstance(data, DatasetDict) and [*data] == ["train", "test"]
    assert data["train"].features == {"sentence": text, "label": ClassLabel(names=["-1", "9", "10"])} == data["test"].features
    assert data["train"]["label"][:] == [2, 1, 0] and data["test"][0] == {"sentence": "c", "label": 1}
    tags = dataset("ner", {"train": write("a.conll", "b I-X\na B-X\nc B-A\nd O\n")})["train"]
    assert tags.features["ner_tags"] == List(ClassLabel(names=["O", "B-A", "B-X", "I-X"])) and tags["ner_tags"][0] == [3, 2, 1, 0]
    numbers = dataset("regression", {"train": write("a.csv", "text,score\na,1\nb,1\n")})["train"]
    assert numbers.features == {"sentence": text, "label": Value("float32")}
    pairs = dataset("similarity", {"train": write("p.csv", "a,b,0.5\n")})["train"]
    assert pairs[0] == {"sentence1": "a", "sentence2": "b", "label": 0.5}
    qa = dataset("qa", {"train": write("a.json", squad(answer("dog", 3), {"is_impossible": True}))})["train"]
    assert tuple(qa.column_names) == TASKS["qa"] and qa.features["answers"] == {"text": List(text), "answer_start": List(Value("int32"))}
    assert qa["answers"][:] == [{"text": ["dog"], "answer_start": [3]}, {"text": [], "answer_start": []}]


def test_two_steps_are_one(write):
    files = {"train": write("a.tsv", "a\tx\nb\ty\n"), "validation": write("b.tsv", "c\ty\n")}
    rows = read_all("sentiment", files)
    assert [rows[split].understood.en for split in rows] == [
        "a.tsv: 2 rows, TSV without header, sentence + label, 2 labels (x: 1, y: 1)",
        "b.tsv: 1 row, TSV without header, sentence + label, 1 label (y: 1)"]
    two, whole = as_dataset("sentiment", rows), dataset("sentiment", files)
    assert {split: two[split].to_list() for split in two} == {split: whole[split].to_list() for split in whole}
    bare = as_dataset("sentiment", read_all("sentiment", {"test": "b.tsv"}, labelled=False))
    assert bare["test"].to_list() == [{"sentence": "c"}]
    named = write("n.tsv", "o\ts\na\tx\nb\ty\n")
    assert dataset("sentiment", {"train": named}, {"sentence": "o", "label": "s"})["train"].to_list() == whole["train"].to_list()


def test_classes_of_a_trained_model(write):
    test = {"test": write("t.tsv", "a\tgood\nb\tgood\n")}
    assert dataset("sentiment", test, classes=["good", "bad"])["test"].features["label"].names == ["good", "bad"]
    assert dataset("sentiment", test)["test"]["label"][:] == [0, 0], "one class will do where nothing is to be learnt"
    assert said(dataset, "sentiment", test, classes=["1", "0"]) == (
        "t.tsv, line 1: the model has no label 'good', only 1, 0: correct it, or train with it")


def test_faults_of_several_files(write):
    write("a.tsv", "sentence\tlabel\na\tyes\nb\tno\n")
    write("b.tsv", "sentence\tlabel\na\tyes\n\nb\tmaybe\n")
    write("one.tsv", "sentence\tlabel\na\tyes\nb\tyes\n")
    write("a.conll", "a O\nb B-X\n")
    write("b.conll", "\na O\n\na B-X\nb O\nc B-Y\n")
    write("none.conll", "a O\nb O\n")
    write("a.json", lines({"tokens": ["a", "b"], "ner_tags": ["O", "B-Y"]}))
    write("pair.jsonl", lines(pair("a", "b", 1)))
    write("one.jsonl", lines(one("a", 1)))
    write("long.tsv", "sentence\tlabel\na\t" + "x" * 999 + "\n")
    write("many.tsv", "sentence\tlabel\n" + "".join(f"s\tclass {i}\n" for i in range(300)))

    def refused(task, **files):
        return said(dataset, task, files)

    assert refused("sentiment", train="a.tsv", test="b.tsv") == (
        "b.tsv, line 4: train has no label 'maybe', only no, yes: correct it, or train with it")
    assert refused("sentiment", validation="a.tsv", test="b.tsv").startswith("b.tsv, line 4: validation has no label 'maybe'")
    assert refused("ner", train="a.conll", validation="b.conll").startswith("b.conll, line 6: train has no label 'B-Y', only O, B-X")
    assert refused("ner", train="a.conll", validation="a.json").startswith("a.json, line 1: train has no label 'B-Y'")
    assert refused("sentiment", train="one.tsv") == "one.tsv: every label is 'yes': give at least two classes to tell apart"
    assert refused("ner", train="none.conll").startswith("none.conll: every label is 'O'")
    assert refused("regression", train="pair.jsonl", test="one.jsonl") == (
        "pair.jsonl has sentence1, sentence2, label, one.jsonl sentence, label: make them alike")
    for files in ({"train": "many.tsv", "test": "b.tsv"}, {"train": "a.tsv", "test": "long.tsv"}, {"train": "long.tsv"}):
        assert len(refused("sentiment", **files)) < 300
    assert refused("sentiment", train="a.tsv", dev="a.tsv") == "files has a key 'dev': use train, validation or test"
    assert refused("sentiment") == "files is empty: give a file for train, validation or test"
    assert SPLITS == ("train", "validation", "test")


# --- streams ------------------------------------------------------------------------------------------------------

STREAMS = {  # task, lines, columns, rows
    "sentences": ("sentiment", ["so so\r\n", "\n", " \t\n", "NA\n", '"a\tb'], None, [one("so so"), one("NA"), one('"a\tb')]),
    "a mark": ("sentiment", ["\ufeffa"], None, [one("a")]),
    "bytes": ("sentiment", ["\ufeff好\u2028\r\n".encode(), b"b"], None, [one("好\u2028"), one("b")]),
    "pairs": ("nli", ["a\tb\n", "\tc\n"], None, [pair("a", "b"), pair("", "c")]),
    "pairs for a number": ("regression", ["a\tb\n"], None, [pair("a", "b")]),
    "sentences for a number": ("regression", ["a\n", "b\tc\n"], None, [one("a"), one("b\tc")]),
    "words": ("ner", ["Anna wept .\n", "我爱北京", "我 爱Oslo", "Oslo"], None,
              [{"tokens": ["Anna", "wept", "."]}, {"tokens": [*"我爱北京"]}, {"tokens": ["我", "爱Oslo"]}, {"tokens": ["Oslo"]}]),
    "JSON": ("sentiment", ["\n", '{"id": 7, "text": "a", "label": null}\n', "\n", '{"sentence": "b"}'], None, [{"id": 7, "sentence": "a"}, one("b")]),
    "names of one's own": ("sentiment", ['{"o": "a", "key": "k"}', '{"o": "b"}'], {"sentence": "o", "label": "stars", "id": "key"},
                           [{"id": "k", "sentence": "a"}, one("b")]),
    "names do not matter for plain lines": ("sentiment", ["a"], {"sentence": "o"}, [one("a")]),
    "tokens": ("ner", ['{"tokens": ["a b", "c"]}', '{"text": "我爱"}'], None, [{"tokens": ["a b", "c"]}, {"tokens": ["我", "爱"]}]),
    "questions": ("qa", ['{"question": "?", "context": "a", "id": "x"}', '{"context": "b", "question": "!", "answers": 3}'], None,
                  [{"id": "x", "context": "a", "question": "?"}, {"context": "b", "question": "!"}]),
    "nothing": ("sentiment", [], None, []),
}  # fmt: skip


@pytest.mark.parametrize("case", STREAMS)
def test_streams(case):
    task, given_lines, columns, rows = STREAMS[case]
    assert [*stream(task, given_lines, columns)] == rows


BAD_STREAMS = {
    "one of two": ("nli", ["a\tb", "", "c"], "line 3: 1 field instead of 2: put one tab between the two sentences"),
    "three": ("pairs", ["a\tb\tc"], "line 1: 3 fields instead of 2"),
    "first a pair": ("regression", ["a\tb", "c"], "line 2: 1 field instead of 2"),
    "no context": ("qa", ["who?"], 'line 1: a question needs its context: write {"question": …'),
    "no context in JSON": ("qa", ['{"question": "?"}'], "line 1: no column 'context', only question"),
    "not all JSON": ("sentiment", ['{"text": "a"}', "b"], "line 2: not valid JSON (Expecting value): write one whole object per line"),
    "a list": ("sentiment", ['{"text": "a"}', "[1]"], "line 2: not a JSON object"),
    "no text": ("sentiment", ['{"text": 3}'], "line 1: 'sentence' is not text but 3"),
    "not UTF-8": ("sentiment", [b"a\n", "很好".encode("gbk")], "line 2: not UTF-8: write UTF-8"),
    "half a character": ("sentiment", ["a\udc80"], "line 1: 'sentence' holds half of a character"),
    "no task": ("poetry", ["a"], "there is no task 'poetry'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_STREAMS)
def test_faults_in_streams(case):
    task, given_lines, expected = BAD_STREAMS[case]
    assert said(lambda: [*stream(task, given_lines)]).startswith(expected)
    if expected.startswith("line"):
        assert said(lambda: [*stream(task, given_lines, name="x.txt")]).startswith(f"x.txt, {expected}")


def test_a_stream_without_end():
    rows = stream("sentiment", (f"{i}\n" for i in itertools.count()))
    assert [row["sentence"] for row in itertools.islice(rows, 3)] == ["0", "1", "2"]
    read_so_far = []
    rows = stream("sentiment", (read_so_far.append(i) or f"{i}" for i in range(9)))
    next(rows)
    assert read_so_far == [0], "nothing is read ahead"


@pytest.mark.parametrize("make", [lambda i: f"sentence {i} " + "x" * 100, lambda i: json.dumps({"id": i, "text": "x" * 100})])
def test_a_long_stream_takes_no_memory(make):
    def peak(n):
        tracemalloc.start()
        try:
            assert sum(1 for _ in stream("sentiment", map(make, range(n)))) == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is cached at first use
    assert peak(50_000) < 1_000_000  # kept rows would take over 10 MB; other threads of pytest's worker may take some kB meanwhile


# --- the module, and real data ------------------------------------------------------------------------------------


def test_import_is_light():
    heavy = ("torch", "transformers", "datasets", "numpy", "pyarrow", "pandas")
    program = f"import sys, bertcourse.files; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


DATA = os.environ.get("BERTCOURSE_DATA")
REAL = [  # task, file, rows, what is said
    ("sentiment", "sst2/train.tsv", 67349, "TSV with header, sentence + label, 2 labels (0: 29,780, 1: 37,569)"),
    ("sentiment", "sst2/dev.tsv", 872, "TSV with header, sentence + label, 2 labels (0: 428, 1: 444)"),
    # as many entities as in Derczynski et al. 2017: 1,975, 836 and 1,079
    ("ner", "wnut17/train.conll", 3394, "CoNLL, 62,730 tokens, 1,975 entities (corporation: 221, creative-work: 140, group: 264, "
     "location: 548, person: 660, product: 142)"),
    ("ner", "wnut17/dev.conll", 1009, "CoNLL, 15,733 tokens, 836 entities ("),
    ("ner", "wnut17/test.conll", 1287, "CoNLL, 23,394 tokens, 1,079 entities ("),
    ("qa", "xquad/xquad.en.json", 1190, "SQuAD JSON, 240 contexts, 0 unanswerable, 0 answers moved, 0 skipped"),
    ("qa", "xquad/xquad.zh.json", 1190, "SQuAD JSON, 240 contexts, 0 unanswerable, 0 answers moved, 0 skipped"),
    ("nli", "ocnli/train.10k.json", 9985, "JSON lines, sentence1 + sentence2 + label, 3 labels (contradiction: 3,242, entailment: 3,309, "
     'neutral: 3,434), 15 skipped: label "-"'),
    ("nli", "ocnli/dev.json", 2950, 'JSON lines, sentence1 + sentence2 + label, 3 labels (contradiction: 900, entailment: 947, '
     'neutral: 1,103), 50 skipped: label "-"'),
]  # fmt: skip


@pytest.mark.skipif(not DATA, reason="BERTCOURSE_DATA names no folder with real data")
@pytest.mark.parametrize("task, name, n, understood", REAL, ids=[name for _, name, *_ in REAL])
def test_real_files(task, name, n, understood):
    path = Path(DATA, name)
    if not path.exists():
        pytest.skip(f"BERTCOURSE_DATA has no {name}")
    found = read(task, path)
    assert len(found) == n and understood in found.understood.en
    i = random.Random(0).randrange(n)  # one row, found again where it is said to stand
    text = path.read_text(encoding="utf-8")
    if task != "qa":
        first = next(iter(found.rows[i].values()))
        assert (first[0] if task == "ner" else first) in text.split("\n")[found.places[i] - 1]


@pytest.mark.skipif(not DATA, reason="BERTCOURSE_DATA names no folder with real data")
def test_real_data_sets():
    wnut = dataset("ner", {split: Path(DATA, f"wnut17/{name}.conll") for split, name in zip(SPLITS, ("train", "dev", "test"))})
    names = wnut["train"].features["ner_tags"].feature.names
    assert names[0] == "O" and len(names) == 13 and wnut.num_rows == {"train": 3394, "validation": 1009, "test": 1287}
    ocnli = dataset("nli", {"train": Path(DATA, "ocnli/train.10k.json"), "validation": Path(DATA, "ocnli/dev.json")})
    assert ocnli["train"].features["label"].names == ["contradiction", "entailment", "neutral"]
    with Path(DATA, "ocnli/test.json").open("rb") as lines_:
        rows = [*stream("nli", lines_)]
    assert len(rows) == 3000 and [*rows[0]] == ["id", "sentence1", "sentence2"] and rows[-1]["id"] == 2999
    assert said(read, "nli", Path(DATA, "ocnli/test.json")).startswith("test.json, line 1: no column 'label', only sentence1, sentence2, id")
    assert len(read("nli", Path(DATA, "ocnli/test.json"), labelled=False)) == 3000
