"""Texts cut for NER, and predictions as JSON: the same for `bertcourse predict` and for the service."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from bertcourse.base.text import HAN, JOINERS, KANA, compose

DIGITS = 6  # of a probability
CHINESE = HAN + KANA  # written without blanks


@cache
def word_pattern() -> re.Pattern[str]:
    """What is a word: one Chinese character, letters with their marks, joined by - and ., or any other character."""
    from bertcourse.base.marks import MARKS
    letter = rf"[^\W{CHINESE}][{MARKS}{JOINERS}]*"
    return re.compile(rf"[{CHINESE}][{MARKS}]*|(?:{letter})+(?:[-.](?:{letter})+)*|\S[{MARKS}{JOINERS}]*")


def cut(text: str) -> dict[str, Any]:
    """A line as words, numbers, punctuation marks and Chinese characters, and where in it they stand.

    Combining marks stay with their letter, and words are composed (NFC), so that an accent gives the same answer however it is stored.
    """
    offsets = [found.span() for found in word_pattern().finditer(text)]
    return {"tokens": [compose(text[a:b]) for a, b in offsets], "text": text, "offsets": offsets}


def words_of(row: Mapping[str, Any]) -> list[str]:
    """The words of a row as they stand in its line, or as they were given."""
    if row.get("offsets"):
        return [row["text"][a:b] for a, b in row["offsets"]]
    return list(row["tokens"])


def spans_of(prediction: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entities; where labels are no entities, such as parts of speech, each word is a span. `start` and `end` count words."""
    if "probabilities" not in prediction:
        return prediction["spans"]
    pairs = zip(prediction["tags"], prediction["probabilities"], strict=True)
    return [{"label": tag, "start": i, "end": i + 1, "probability": p} for i, (tag, p) in enumerate(pairs)]


def tagged_words(prediction: Mapping[str, Any], row: Mapping[str, Any], lang: str) -> dict[str, Any]:
    """Words, a tag for each of them, and spans; places count characters where the row was a line, words where it was tokens."""
    words, offsets, found = words_of(row), row.get("offsets"), []
    for span in spans_of(prediction):
        a, b = span["start"], span["end"]
        text = ("" if lang == "zh" else " ").join(words[a:b])
        if offsets:
            a, b = offsets[a][0], offsets[b - 1][1]
            text = row["text"][a:b]
        found.append({"label": span["label"], "text": text, "start": a, "end": b, "probability": round(span["probability"], DIGITS)})
    return {"words": words, "tags": prediction["tags"], "spans": found}


def result(kind: str, prediction: Mapping[str, Any], row: Mapping[str, Any], lang: str, scores: bool) -> dict[str, Any]:
    """What is written for a row."""
    made = {"id": row["id"]} if "id" in row else {}
    if kind == "regression":
        return made | {"score": round(prediction["score"], DIGITS)}
    if kind == "ner":
        return made | tagged_words(prediction, row, lang)
    names = ("answer", "start", "end") if kind == "qa" else ("label",)
    made |= {name: prediction[name] for name in names} | {"probability": round(prediction["probability"], DIGITS)}
    if scores and "scores" in prediction:
        made["scores"] = {label: round(p, DIGITS) for label, p in prediction["scores"].items()}
    return made
