"""The question bank as data: the 20 interview questions and the cards of each page, in both languages.

`assets/bank/PAGE.toml` holds what belongs to the notebook PAGE; README.md beside the files says how to write one.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertcourse.assets import asset
from bertcourse.base.bilingual import Text as Text
from bertcourse.base.errors import UserError

KINDS = ("recall", "choice")
PICTURES = "pictures"  # the folder of pictures, beside the files


# --- what the bank holds ------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class FollowUp:
    """What an interviewer asks next."""

    id: str  # "Q3a"
    prompt: Text
    answer: Text


@dataclass(frozen=True)
class Correction:
    """Where the usual answer is wrong."""

    instead: Text  # what to say
    expected: Text  # why an interviewer may still expect the other


@dataclass(frozen=True)
class Question:
    """One interview question."""

    id: str  # "Q1" … "Q20"
    section: str  # of the guide: "8.1" … "8.5"
    page: str  # the notebook that answers it
    prompt: Text
    answer: Text  # as one would speak it, about a minute
    weak: tuple[Text, ...]  # a weak answer says …
    good: tuple[Text, ...]
    outstanding: tuple[Text, ...]
    followups: tuple[FollowUp, ...]
    claims: tuple[str, ...]  # ids of the ledger that it rests on
    reread: tuple[str, ...]  # pages of the course
    sources: tuple[str, ...]
    correction: Correction | None = None


@dataclass(frozen=True)
class Option:
    """One option of a choice card."""

    text: Text
    is_right: bool
    why: Text | None  # why it is wrong; of the right one, why it is right (optional)


@dataclass(frozen=True)
class Picture:
    """A picture of the folder `pictures`, and what a reader who cannot see it is told."""

    name: str
    alt: Text


@dataclass(frozen=True)
class Card:
    """One card of the drill."""

    id: str
    page: str
    kind: str  # one of `KINDS`
    prompt: Text
    answer: Text | None  # of a recall card
    options: tuple[Option, ...] = ()  # of a choice card, in the order of the file
    claim: str | None = None
    picture: Picture | None = None

    @property
    def right(self) -> Option:
        """The right option of a choice card."""
        return next(option for option in self.options if option.is_right)


@dataclass(frozen=True)
class Heading:
    """A numbered heading of the course."""

    number: str
    page: str
    title: Text


@dataclass(frozen=True)
class Bank:
    """All questions and cards, in the order of the course."""

    questions: tuple[Question, ...]
    cards: tuple[Card, ...]
    folder: Path

    def question(self, id: str) -> Question:
        """The question of this id. Raises `UserError`."""
        for question in self.questions:
            if question.id == id:
                return question
        raise UserError(f"there is no question {id}: choose one from Q1 to Q{len(self.questions)}",
                        f"没有 {id} 这个问题：请从 Q1 到 Q{len(self.questions)} 中选")

    def drill_cards(self) -> tuple[Card, ...]:
        """What a quiz asks: the cards, and of each question itself and its follow-ups a recall card."""
        question_cards = [card for question in self.questions for card in cards_of(question)]
        order = {page: place for place, page in enumerate(page_names())}
        return tuple(sorted((*self.cards, *question_cards), key=lambda card: order[card.page]))  # stable: the order of the file stays


def cards_of(question: Question) -> list[Card]:
    """A question and its follow-ups as recall cards."""
    first = Card(question.id, question.page, "recall", question.prompt, question.answer)
    return [first, *(Card(more.id, question.page, "recall", more.prompt, more.answer) for more in question.followups)]


# --- reading the files --------------------------------------------------------------------------------------------

class _Entry:
    """A table of a file, from which fields are taken; what is missing or left over is a `ValueError`."""

    def __init__(self, table: Mapping[str, Any], where: str) -> None:
        self.left, self.where = dict(table), where

    def take(self, name: str, kind: type = str, default: Any = None) -> Any:
        """A field of a kind; without a `default` it must be there."""
        value = self.left.pop(name, default)
        if not isinstance(value, kind):
            raise ValueError(f"{self.where}: {name} is missing or no {kind.__name__}")
        return value

    def texts(self, name: str) -> tuple[Text, ...]:
        """Two lists of the same length, `name_zh` and `name_en`."""
        zh, en = self.take(f"{name}_zh", list), self.take(f"{name}_en", list)
        if len(zh) != len(en) or not all(isinstance(text, str) for text in (*zh, *en)):
            raise ValueError(f"{self.where}: {name}_zh and {name}_en are not two lists of as many texts")
        return tuple(Text(a.strip(), b.strip()) for a, b in zip(zh, en))

    def text(self, name: str) -> Text:
        """`name_zh` and `name_en`."""
        return Text(self.take(f"{name}_zh").strip(), self.take(f"{name}_en").strip())

    def text_or_none(self, name: str) -> Text | None:
        """The same, or None where neither is there."""
        there = {f"{name}_zh", f"{name}_en"} & self.left.keys()
        return self.text(name) if there else None

    def names(self, name: str) -> tuple[str, ...]:
        """A list of strings, empty where there is none."""
        return tuple(self.take(name, list, []))

    def entries(self, name: str) -> Iterator[_Entry]:
        """The tables below this one."""
        for number, table in enumerate(self.take(name, list, []), 1):
            yield _Entry(table, f"{self.where}, {name} {number}")

    def end(self) -> None:
        """Raises `ValueError` if something is left over, usually a misspelt name."""
        if self.left:
            raise ValueError(f"{self.where}: unknown {', '.join(sorted(self.left))}")


def _read_question(entry: _Entry, page: str) -> Question:
    followups = []
    for more in entry.entries("followup"):
        followups.append(FollowUp(more.take("id"), more.text("prompt"), more.text("answer")))
        more.end()
    instead, expected = entry.text_or_none("instead"), entry.text_or_none("expected")
    if (instead is None) != (expected is None):
        raise ValueError(f"{entry.where}: instead and expected come together")
    question = Question(
        id=entry.take("id"), section=entry.take("section"), page=page, prompt=entry.text("prompt"), answer=entry.text("answer"),
        weak=entry.texts("weak"), good=entry.texts("good"), outstanding=entry.texts("outstanding"), followups=tuple(followups),
        claims=entry.names("claims"), reread=entry.names("reread"), sources=entry.names("sources"),
        correction=Correction(instead, expected) if instead and expected else None)
    entry.end()
    return question


def _read_card(entry: _Entry, page: str) -> Card:
    options = []
    for option in entry.entries("option"):
        options.append(Option(option.text("text"), option.take("right", bool, False), option.text_or_none("why")))
        option.end()
    picture = entry.take("picture", str, "")
    card = Card(
        id=entry.take("id"), page=page, kind=entry.take("kind"), prompt=entry.text("prompt"), answer=entry.text_or_none("answer"),
        options=tuple(options), claim=entry.take("claim", str, "") or None,
        picture=Picture(picture, entry.text("alt")) if picture else None)
    entry.end()
    return card


def read_file(path: Path) -> tuple[list[Question], list[Card]]:
    """The questions and cards of one page. Raises `ValueError` that names the entry."""
    try:
        content = _Entry(tomllib.loads(path.read_text(encoding="utf-8")), path.name)
    except ValueError as error:  # TOML, or UTF-8
        raise ValueError(f"{path.name}: {error}") from None
    questions = [_read_question(entry, path.stem) for entry in content.entries("question")]
    cards = [_read_card(entry, path.stem) for entry in content.entries("card")]
    content.end()
    return questions, cards


@functools.cache
def load_bank(folder: Path | None = None) -> Bank:
    """The course's bank, or that of another folder of the same form. Raises `ValueError` for a file that is not."""
    folder = folder or asset("bank")
    questions: list[Question] = []
    cards: list[Card] = []
    for path in sorted(folder.glob("*.toml")):
        more_questions, more_cards = read_file(path)
        questions += more_questions
        cards += more_cards
    return Bank(tuple(questions), tuple(cards), folder)


# --- the course's outline -----------------------------------------------------------------------------------------

@functools.cache
def headings() -> tuple[Heading, ...]:
    """The numbered headings of the course, from `assets/outline.toml`."""
    entries = tomllib.loads(asset("outline.toml").read_text(encoding="utf-8"))["heading"]
    return tuple(Heading(entry["number"], entry["notebook"].removesuffix(".ipynb"), Text(entry["zh"], entry["en"]))
                 for entry in entries if "number" in entry)


@functools.cache
def page_names() -> tuple[str, ...]:
    """The pages of the course, in order; a page may be planned and not yet written."""
    return tuple(sorted({heading.page for heading in headings()}))


def chapter_of(page: str) -> str:
    """`04_2_practice` → "4"."""
    return page[:2].lstrip("0")


def chapter_title(chapter: str) -> Text:
    """The title of a chapter, "1" … "8"."""
    return next(heading.title for heading in headings() if heading.number == chapter)


def page_title(page: str) -> Text:
    """The title of a page: that of its section where it holds a single one, else that of its chapter."""
    sections = [heading.title for heading in headings() if heading.page == page and re.fullmatch(r"\d+\.\d+", heading.number)]
    return sections[0] if len(sections) == 1 else chapter_title(chapter_of(page))


# --- choosing -----------------------------------------------------------------------------------------------------

def select_cards(bank: Bank, chapter: str | None = None) -> tuple[Card, ...]:
    """The drill's cards of a chapter ("4"), of the page that a heading is on ("4.3", "8.1"), of a page ("04_2_practice"), of a
    question ("Q7"), or all.

    Raises `UserError` for a name that the course does not have, and where there are no cards yet.
    """
    every = bank.drill_cards()
    if chapter is None:
        return every
    name = chapter.strip().removesuffix(".ipynb")
    if found := [question for question in bank.questions if question.id == name.upper()]:
        return tuple(cards_of(found[0]))
    pages = {page for page in page_names() if page == name or chapter_of(page) == name}
    pages |= {heading.page for heading in headings() if heading.number == name}
    if not pages:
        known = sorted({chapter_of(card.page) for card in every}, key=int)
        raise UserError(f"the course has no {chapter!r}: name a chapter ({', '.join(known)}), a heading such as 8.1, a page such as "
                        "04_2_practice, or a question such as Q7",
                        f"课程里没有 {chapter!r}：请写章号（{'、'.join(known)}）、小节号（如 8.1）、页名（如 04_2_practice）或题号（如 Q7）")
    cards = tuple(card for card in every if card.page in pages)
    if not cards:
        raise UserError(f"there are no cards of {chapter} yet: choose another chapter", f"{chapter} 还没有卡片：请换一章")
    return cards
