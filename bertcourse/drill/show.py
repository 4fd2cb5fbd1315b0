"""Questions and cards in a notebook: HTML in both languages, and plain text.

The colours are the page's own, so that light and dark both read well; formulas need no typesetting.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path

from bertcourse.drill.bank import PICTURES, Bank, Card, Option, Picture, Question, Text, load_bank, page_title, select_cards
from bertcourse.drill.markup import html_formula, to_html, to_plain
from bertcourse.languages import LANGUAGES, bilingual, current_language

WORDS = {
    "think": Text("先合上资料，出声说一分钟，再运行下一格看参考回答。",
                  "Put everything aside, speak for a minute, then run the next cell for a model answer."),
    "answer": Text("一分钟回答", "One-minute answer"),
    "weak": Text("较弱的回答", "A weak answer"),
    "good": Text("好的回答", "A good answer"),
    "outstanding": Text("出色的回答", "An outstanding answer"),
    "instead": Text("这样说才对", "What to say instead"),
    "expected": Text("面试官为什么可能在等另一种说法", "Why an interviewer may expect the other"),
    "followups": Text("追问（先想再点开）", "Follow-up questions (think first, then open)"),
    "sources": Text("出处", "Sources"),
    "reread": Text("可以重读", "Read again"),
    "claims": Text("依据的说法", "Claims it rests on"),
    "right": Text("答案", "Answer"),
    "why_not": Text("其他选项错在哪里", "Why the others are wrong"),
}
MARKS = {"weak": ("✗", "#D55E00"), "good": ("✓", "#009E73"), "outstanding": ("★", "#009E73")}
LETTERS = "ABCDEFGH"
_BOX = "border:1px solid rgba(127,127,127,.45);border-radius:6px;padding:.7em 1em;margin:.6em 0;line-height:1.6"
_HEAD = "font-weight:600;margin:.9em 0 .3em"


class Shown:
    """Something for a notebook to show, in HTML and as plain text."""

    def __init__(self, write_html: Callable[[str], str], write_plain: Callable[[str], str]) -> None:
        self._write_html, self._write_plain = write_html, write_plain

    def html(self) -> str:
        """HTML in the reader's language, or in both where it is not known."""
        return bilingual(*(f'<div style="{_BOX}">{self._write_html(lang)}</div>' for lang in LANGUAGES), tag="div")

    def plain(self) -> str:
        """Plain text in the reader's language, or in both where it is not known."""
        lang = current_language()
        return "\n\n".join(self._write_plain(one) for one in LANGUAGES if lang in (None, one))

    def __repr__(self) -> str:
        return self.plain()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": self.plain()}


# --- options of choice cards --------------------------------------------------------------------------------------

def shuffled_options(card: Card) -> tuple[Option, ...]:
    """The options of a choice card in an order that is always the same for the card, and not that of the file."""
    import hashlib
    return tuple(sorted(card.options, key=lambda option: hashlib.sha256(f"{card.id}/{option.text.en}".encode()).digest()))


def lettered(options: Sequence[Option]) -> list[tuple[str, Option]]:
    """Each option with its letter."""
    return list(zip(LETTERS, options))


# --- pictures -----------------------------------------------------------------------------------------------------

def picture_path(picture: Picture, bank: Bank) -> Path:
    """Where the file of a picture lies."""
    return bank.folder / PICTURES / picture.name


def data_address(path: Path) -> str:
    """A picture as an address that holds it whole."""
    kind = "svg+xml" if path.suffix == ".svg" else path.suffix.lstrip(".")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def picture_html(picture: Picture | None, address: str, lang: str) -> str:
    """An <img>, or nothing where there is no picture."""
    if picture is None:
        return ""
    return f'<p><img src="{address}" alt="{html.escape(picture.alt[lang])}" style="max-width:100%"></p>'


# --- one question -------------------------------------------------------------------------------------------------

def _items(texts: Sequence[Text], lang: str) -> str:
    return "".join(f'<li style="margin:.2em 0">{to_html(text[lang])}</li>' for text in texts)


def _head(word: str, lang: str) -> str:
    return f'<div style="{_HEAD}">{WORDS[word][lang]}</div>'


def _three_lists(question: Question, lang: str) -> str:
    columns = []
    for word, (mark, colour) in MARKS.items():
        columns.append(f'<div style="border-top:3px solid {colour};padding-top:.3em"><b>{mark} {WORDS[word][lang]}</b>'
                       f'<ul style="margin:.3em 0;padding-left:1.2em">{_items(getattr(question, word), lang)}</ul></div>')
    return ('<div style="display:grid;grid-template-columns:repeat(auto-fit,minmax(15em,1fr));gap:1em;margin-top:1em">'
            f'{"".join(columns)}</div>')


def _folded(summary: str, inner: str) -> str:
    return (f'<details style="margin:.4em 0"><summary style="cursor:pointer">{summary}</summary>'
            f'<div style="margin:.3em 0 .3em 1.2em">{inner}</div></details>')


def _correction(question: Question, lang: str) -> str:
    if question.correction is None:
        return ""
    return (f'<div style="border-left:4px solid #E69F00;padding-left:.9em;margin-top:1em">{_head("instead", lang)}'
            f'{to_html(question.correction.instead[lang])}{_head("expected", lang)}{to_html(question.correction.expected[lang])}</div>')


def page_label(page: str, lang: str) -> str:
    """`01_bert`, with its title."""
    title = page_title(page)[lang]
    return f"{page}（{title}）" if lang == "zh" else f"{page} ({title})"


def _foot(question: Question, lang: str) -> str:
    comma, colon = ("、", "：") if lang == "zh" else (", ", ": ")
    lines = [(WORDS["sources"][lang], ("；" if lang == "zh" else "; ").join(map(html.escape, question.sources))),
             (WORDS["reread"][lang], comma.join(page_label(page, lang) for page in question.reread)),
             (WORDS["claims"][lang], comma.join(f"<code>{html.escape(id)}</code>" for id in question.claims))]
    return '<div style="font-size:.88em;margin-top:1em">' + "<br>".join(f"<b>{a}</b>{colon}{b}" for a, b in lines if b) + "</div>"


def _title(question: Question, lang: str) -> str:
    return f'<div style="font-size:1.15em"><b>{question.id}</b>&ensp;{to_html(question.prompt[lang])}</div>'


def question_html(question: Question, lang: str) -> str:
    """The question alone, with room to think."""
    return f'{_title(question, lang)}<div style="margin-top:.6em;padding-bottom:4em;font-size:.9em">{WORDS["think"][lang]}</div>'


def answer_html(question: Question, lang: str) -> str:
    """Everything but the question: spoken answer, three lists, what to say instead, follow-ups, sources."""
    followups = "".join(_folded(to_html(more.prompt[lang]), to_html(more.answer[lang])) for more in question.followups)
    return (f'<div style="{_HEAD};margin-top:0">{question.id}&ensp;{WORDS["answer"][lang]}</div>{to_html(question.answer[lang])}'
            f'{_three_lists(question, lang)}{_correction(question, lang)}{_head("followups", lang)}{followups}{_foot(question, lang)}')


def question_plain(question: Question, lang: str) -> str:
    """The question and what to do, as plain text."""
    return f"{question.id}  {to_plain(question.prompt[lang])}\n{WORDS['think'][lang]}"


def lists_plain(question: Question, lang: str) -> str:
    """The three lists as plain text."""
    colon = "：" if lang == "zh" else ":"
    parts = []
    for word, (mark, _) in MARKS.items():
        items = [f"• {to_plain(text[lang])}" for text in getattr(question, word)]
        parts.append("\n".join([f"{mark} {WORDS[word][lang]}{colon}", *items]))
    return "\n".join(parts)


def correction_plain(question: Question, lang: str) -> str:
    """What to say instead, as plain text; empty where there is nothing."""
    if question.correction is None:
        return ""
    colon = "：" if lang == "zh" else ": "
    return (f"{WORDS['instead'][lang]}{colon}{to_plain(question.correction.instead[lang])}\n"
            f"{WORDS['expected'][lang]}{colon}{to_plain(question.correction.expected[lang])}")


def answer_plain(question: Question, lang: str) -> str:
    """The same as `answer_html`, as plain text."""
    colon, comma = ("：", "；") if lang == "zh" else (": ", "; ")
    followups = "\n".join(f"→ {to_plain(more.prompt[lang])}\n{to_plain(more.answer[lang])}" for more in question.followups)
    parts = [f"{question.id}  {WORDS['answer'][lang]}", to_plain(question.answer[lang]), lists_plain(question, lang),
             correction_plain(question, lang), followups, f"{WORDS['sources'][lang]}{colon}{comma.join(question.sources)}"]
    return "\n\n".join(filter(None, parts))


def show_question(id: str, bank: Bank | None = None) -> Shown:
    """The question `id` ("Q1" … "Q20") alone, with room to think. Raises `UserError`."""
    question = (bank or load_bank()).question(id)
    return Shown(lambda lang: question_html(question, lang), lambda lang: question_plain(question, lang))


def show_answer(id: str, bank: Bank | None = None) -> Shown:
    """The model answer of the question `id`: spoken answer, three lists, what to say instead, follow-ups folded, sources.

    Raises `UserError`.
    """
    question = (bank or load_bank()).question(id)
    return Shown(lambda lang: answer_html(question, lang), lambda lang: answer_plain(question, lang))


# --- cards --------------------------------------------------------------------------------------------------------

def explained(options: Sequence[Option], lang: str) -> list[tuple[str, Option, str]]:
    """Letter, option and explanation of each option; the explanation of the right one may be empty."""
    return [(letter, option, option.why[lang] if option.why else "") for letter, option in lettered(options)]


def back_html(card: Card, lang: str, formula: Callable[[str], str] = html_formula) -> str:
    """The answer of a card; of a choice card the right option and why each other one is wrong."""
    if card.answer is not None:
        return to_html(card.answer[lang], formula)
    colon = "：" if lang == "zh" else ": "
    rows = explained(shuffled_options(card), lang)
    letter, right, reason = next(row for row in rows if row[1].is_right)
    stop = "。" if lang == "zh" else ". "
    first = f"<b>{letter}</b>{stop}{to_html(right.text[lang], formula)}" + (f"<br>{to_html(reason, formula)}" if reason else "")
    wrong = "".join(f"<li><b>{letter}</b>{colon}{to_html(why, formula)}</li>" for letter, option, why in rows if not option.is_right)
    return f"<div>✓ {first}</div><ul>{wrong}</ul>"


def options_html(card: Card, lang: str, formula: Callable[[str], str] = html_formula) -> str:
    """The options of a choice card, lettered; nothing for a recall card."""
    if card.kind != "choice":
        return ""
    items = "".join(f"<div><b>{letter}</b>&ensp;{to_html(option.text[lang], formula)}</div>"
                    for letter, option in lettered(shuffled_options(card)))
    return f'<div style="margin:.3em 0 .3em 1.2em">{items}</div>'


def card_html(card: Card, lang: str, bank: Bank) -> str:
    """One card, its answer folded."""
    picture = picture_html(card.picture, data_address(picture_path(card.picture, bank)) if card.picture else "", lang)
    front = f"{to_html(card.prompt[lang])}{picture}{options_html(card, lang)}"
    return (f'<div class="flashcard" style="border-bottom:1px solid rgba(127,127,127,.3);padding:.5em 0">{front}'
            f'{_folded(WORDS["right"][lang], back_html(card, lang))}</div>')


def prompt_plain(card: Card, lang: str, options: Sequence[Option] | None = None) -> str:
    """The front of a card as plain text: what is asked, the picture in words, the options (in the order of `options`)."""
    lines = [to_plain(card.prompt[lang])]
    if card.picture:
        lines.append(f"［图：{card.picture.alt.zh}］" if lang == "zh" else f"[picture: {card.picture.alt.en}]")
    if card.kind == "choice":
        lines += [f"  {letter}  {to_plain(option.text[lang])}" for letter, option in lettered(options or shuffled_options(card))]
    return "\n".join(lines)


def back_plain(card: Card, lang: str, options: Sequence[Option] | None = None) -> str:
    """The back of a card as plain text."""
    if card.answer is not None:
        return to_plain(card.answer[lang])
    lines = []
    for letter, option, why in explained(options or shuffled_options(card), lang):
        mark = "✓" if option.is_right else "✗"
        lines.append(f"{mark} {letter}  {to_plain(why)}" if why else f"{mark} {letter}  {to_plain(option.text[lang])}")
    return "\n".join(lines)


def show_cards(page: str, bank: Bank | None = None) -> Shown:
    """The cards of a page ("01_bert"), of a chapter ("1") or of the page of a heading ("4.3"), answers folded.

    The 20 questions are not among them: `show_question` shows one. Raises `UserError`.
    """
    bank = bank or load_bank()
    own = {card.id for card in bank.cards}
    cards = [card for card in select_cards(bank, page) if card.id in own]
    return Shown(lambda lang: "".join(card_html(card, lang, bank) for card in cards),
                 lambda lang: "\n\n".join(f"{prompt_plain(card, lang)}\n→ {back_plain(card, lang)}" for card in cards))
