"""A quiz and a mock interview in the terminal, or on a pipe.

Each answer is recorded at once through the function `record`, so that whatever ends the session loses at most the card on the screen.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertcourse.base.display import printable
from bertcourse.drill.bank import Card, Question, Text
from bertcourse.drill.markup import to_plain, wrap
from bertcourse.drill.schedule import RATINGS
from bertcourse.drill.show import LETTERS, back_plain, correction_plain, lists_plain, page_label, prompt_plain

Record = Callable[[str, str], Any]  # id of a card, rating
QUIT = ("q", "quit", "exit")
RATING_NAMES = {"again": Text("重来", "again"), "hard": Text("困难", "hard"), "good": Text("良好", "good"), "easy": Text("简单", "easy")}
WORDS = {
    "enter": Text("想好了按 Enter 看答案（q 结束）：", "Think, then press Enter for the answer (q ends): "),
    "spoken": Text("出声回答，说完按 Enter（q 结束）：", "Answer aloud, then press Enter (q ends): "),
    "followup": Text("追问", "Follow-up"),
    "rate": Text("答得怎样？1 重来  2 困难  3 良好  4 简单：", "How was it? 1 again  2 hard  3 good  4 easy: "),
    "rate_what": Text("请输入 1、2、3 或 4，q 结束。", "Type 1, 2, 3 or 4, or q to end."),
    "letter": Text("选哪个？", "Which one? "),
    "letter_what": Text("请输入 {first} 到 {last} 中的一个字母，q 结束。", "Type a letter from {first} to {last}, or q to end."),
    "right": Text("对。", "Right."),
    "wrong": Text("不对，正确答案是 {letter}。", "No, it is {letter}."),
    "answer": Text("答案：", "Answer:"),
    "model": Text("参考回答：", "Model answer:"),
    "time": Text("用时 {time}（参考：1 分钟左右）", "{time} (about a minute is the aim)"),
    "again": Text("再来一次答“重来”的卡片，共 {count} 张。", "Once more what was marked again: {count}."),
    "reread": Text("可以重读", "Read again"),
}


class Ended(Exception):
    """The person, or the pipe, has ended the session."""


@dataclass
class Console:
    """Where a session writes to and reads from."""

    lang: str
    write: Callable[[str], Any]  # a text without its line break
    read: Callable[[], str]  # the next line; "" at the end of the input
    width: int | None = None  # columns, to wrap lines; None: lines stay whole

    def print_text(self, text: str = "") -> None:
        """Print a paragraph or several."""
        self.write((wrap(text, self.width) if self.width and text else text) + "\n")

    def word(self, name: str, **values: object) -> str:
        """One of `WORDS` in the reader's language."""
        return WORDS[name][self.lang].format(**values)

    def read_answer(self, prompt: str) -> str:
        """The next line, blanks around it taken off. Raises `Ended`."""
        self.write(prompt)
        line = self.read()
        if not line.endswith("\n"):
            self.write("\n")  # no echo came after the prompt
            if not line:
                raise Ended
        answer = line.strip()
        if answer.lower() in QUIT:
            raise Ended
        return answer


@dataclass
class Answer:
    """One answered card."""

    id: str
    page: str
    rating: str  # one of `RATINGS`
    seconds: float  # until the answer was asked for
    is_right: bool | None = None  # of a choice card


@dataclass
class Session:
    """The answers so far, whatever ends the session."""

    answers: list[Answer] = field(default_factory=list)
    ended: bool = False  # before all cards were asked

    def as_data(self) -> dict[str, Any]:
        """For `--json`."""
        return {"answered": len(self.answers), "complete": not self.ended, "answers": [vars(answer) for answer in self.answers]}


# --- one card -----------------------------------------------------------------------------------------------------

def rating_of(text: str) -> str | None:
    """What a typed word means: 1 to 4, the English name or its first letter, the Chinese name."""
    text = text.strip().translate({ord("１") + i: str(i + 1) for i in range(4)}).lower()
    for number, rating in enumerate(RATINGS, 1):
        if text and text in (str(number), rating, rating[0], RATING_NAMES[rating].zh):
            return rating
    return None


def ask_rating(console: Console) -> str:
    """The mark that the person gives. Raises `Ended`."""
    while (rating := rating_of(console.read_answer(console.word("rate")))) is None:
        console.print_text(console.word("rate_what"))
    return rating


def letter_of(text: str, count: int) -> int | None:
    """Which of `count` options a typed letter or number means."""
    text = text.strip().strip(".。)）").upper().translate({ord("Ａ") + i: LETTERS[i] for i in range(len(LETTERS))})
    if len(text) == 1 and text in LETTERS[:count]:
        return LETTERS.index(text)
    return int(text) - 1 if text.isascii() and text.isdigit() and len(text) == 1 and 1 <= int(text) <= count else None


def ask_letter(count: int, console: Console) -> int:
    """The option that the person picks. Raises `Ended`."""
    while (place := letter_of(console.read_answer(console.word("letter")), count)) is None:
        console.print_text(console.word("letter_what", first=LETTERS[0], last=LETTERS[count - 1]))
    return place


def _ask_recall(card: Card, console: Console) -> Answer:
    console.print_text(prompt_plain(card, console.lang))
    start = time.monotonic()
    console.read_answer(console.word("enter"))
    seconds = time.monotonic() - start
    console.print_text(f"\n{console.word('answer')}\n{back_plain(card, console.lang)}\n")
    return Answer(card.id, card.page, ask_rating(console), seconds)


def _ask_choice(card: Card, console: Console, rng: random.Random) -> Answer:
    options = rng.sample(card.options, len(card.options))
    console.print_text(prompt_plain(card, console.lang, options))
    start = time.monotonic()
    picked = options[ask_letter(len(options), console)]
    seconds = time.monotonic() - start
    letter = LETTERS[options.index(card.right)]
    verdict = console.word("right") if picked.is_right else console.word("wrong", letter=letter)
    console.print_text(f"\n{verdict}\n{back_plain(card, console.lang, options)}")
    return Answer(card.id, card.page, "good" if picked.is_right else "again", seconds, picked.is_right)


def ask_card(card: Card, console: Console, rng: random.Random) -> Answer:
    """Ask one card; the answer to a choice card marks itself. Raises `Ended`."""
    return _ask_choice(card, console, rng) if card.kind == "choice" else _ask_recall(card, console)


# --- a session ----------------------------------------------------------------------------------------------------

def _ask_all(cards: Sequence[Card], session: Session, console: Console, record: Record, rng: random.Random) -> None:
    for number, card in enumerate(cards, 1):
        console.print_text(f"\n[{number}/{len(cards)}] {card.id} · {page_label(card.page, console.lang)}")
        answer = ask_card(card, console, rng)
        record(answer.id, answer.rating)
        session.answers.append(answer)


def run_quiz(cards: Sequence[Card], console: Console, record: Record, seed: int | None = None, session: Session | None = None) -> Session:
    """Ask all cards, and once more those that were marked "again"; `seed` fixes the order of options.

    The answers are in `session` as they come, also where an exception such as `KeyboardInterrupt` passes through.
    """
    session, rng = session or Session(), random.Random(seed)
    try:
        _ask_all(cards, session, console, record, rng)
        missed = {answer.id for answer in session.answers if answer.rating == "again"}
        if missed:
            console.print_text("\n" + console.word("again", count=len(missed)))
            _ask_all([card for card in cards if card.id in missed], session, console, record, rng)
    except Ended:
        session.ended = True
    return session


def clock(seconds: float) -> str:
    """`1:05`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def choose_questions(questions: Sequence[Question], count: int, seed: int | None = None) -> list[Question]:
    """`count` of the questions, or all, in a random order that `seed` fixes."""
    return random.Random(seed).sample(list(questions), min(count, len(questions)))


def _interview(question: Question, console: Console, rng: random.Random) -> Answer:
    console.print_text(to_plain(question.prompt[console.lang]))
    start = time.monotonic()
    console.read_answer(console.word("spoken"))
    seconds = time.monotonic() - start
    console.print_text(console.word("time", time=clock(seconds)))
    console.print_text(f"\n{console.word('model')}\n{to_plain(question.answer[console.lang])}\n\n{lists_plain(question, console.lang)}")
    if question.correction:
        console.print_text("\n" + correction_plain(question, console.lang))
    more = rng.choice(question.followups)
    console.print_text(f"\n{console.word('followup')} · {more.id}\n{to_plain(more.prompt[console.lang])}")
    console.read_answer(console.word("spoken"))
    console.print_text(f"\n{console.word('answer')}\n{to_plain(more.answer[console.lang])}\n")
    return Answer(question.id, question.page, ask_rating(console), seconds)


def run_mock(questions: Sequence[Question], console: Console, record: Record, seed: int | None = None,
             session: Session | None = None) -> Session:
    """Ask like an interviewer: question, time, model answer, one follow-up, the person's own mark."""
    session, rng = session or Session(), random.Random(seed)
    try:
        for number, question in enumerate(questions, 1):
            console.print_text(f"\n[{number}/{len(questions)}] {question.id}")
            answer = _interview(question, console, rng)
            record(answer.id, answer.rating)
            session.answers.append(answer)
    except Ended:
        session.ended = True
    return session


# --- the summary --------------------------------------------------------------------------------------------------

def summary_lines(session: Session, lang: str, is_mock: bool = False) -> list[str]:
    """What a session came to: how many, how many of each mark, of a mock interview each question; what to read again."""
    answers, zh = session.answers, lang == "zh"
    if not answers:
        return ["没有回答任何卡片。" if zh else "No card was answered."]
    marks = {rating: sum(answer.rating == rating for answer in answers) for rating in RATINGS}
    counts = [f"{RATING_NAMES[rating][lang]} {count}" for rating, count in marks.items() if count]
    lines = [f"共 {len(answers)} 次回答：{'、'.join(counts)}。" if zh else
             f"{len(answers)} {'answer' if len(answers) == 1 else 'answers'}: {', '.join(counts)}."]
    if is_mock:
        lines += [f"  {answer.id:<4} {clock(answer.seconds):>6}  {RATING_NAMES[answer.rating][lang]}" for answer in answers]
    weak = sorted({answer.page for answer in answers if answer.rating in ("again", "hard")})
    if weak:
        colon, comma = ("：", "、") if zh else (": ", ", ")
        lines.append(WORDS["reread"][lang] + colon + comma.join(page_label(page, lang) for page in weak))
    return [printable(line) for line in lines]
