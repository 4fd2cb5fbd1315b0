"""The cards as pages of the site: one for each chapter, every answer folded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from bertcourse.base.bilingual import Text
from bertcourse.drill.bank import Bank, Card, chapter_of, chapter_title, load_bank, page_title
from bertcourse.drill.show import card_html

TITLE = Text("记忆卡：", "Cards: ")
HOW = Text("先在心里回答，再展开答案。选择题的答案也说明其他选项错在哪里。`bertcourse quiz --chapter {chapter}` 在终端里按间隔复习的时间表提问，"
           "`bertcourse flashcards 牌组.apkg` 写出 Anki 牌组。",
           "Answer each card in your head, then unfold. The answers of choice cards also say why the other options are wrong. "
           "`bertcourse quiz --chapter {chapter}` asks in the terminal, on a schedule of spaced repetition; "
           "`bertcourse flashcards deck.apkg` writes an Anki deck.")


def page_name(chapter: str) -> str:
    """The file of a chapter's cards, in the folder `cards` of the site."""
    return f"chapter_{chapter}.ipynb"


def _markdown(id: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": text.splitlines(keepends=True)}


def _raw(html: str) -> str:
    """HTML that Pandoc leaves as it is: inside a <div> it would read Markdown."""
    return f"```{{=html}}\n{html}\n```"


def _amount(cards: Sequence[Card], lang: str) -> str:
    return f"{len(cards)} 张卡" if lang == "zh" else f"{len(cards)} cards"


def chapter_page(chapter: str, cards: Sequence[Card], lang: str, bank: Bank) -> dict[str, Any]:
    """A notebook with the cards of one chapter, in one language."""
    cells = [_markdown("title", f"# {TITLE[lang]}{chapter_title(chapter)[lang]}\n\n> {_amount(cards, lang)}"),
             _markdown("how", HOW[lang].replace("{chapter}", chapter))]
    for page, group in groupby(cards, key=lambda card: card.page):
        cells.append(_markdown(f"page-{page}", f"## {page_title(page)[lang]}\n\n[{page}](../{page}.ipynb)"))
        cells += [_markdown(f"card-{card.id}", _raw(card_html(card, lang, bank))) for card in group]
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def site_pages(lang: str, bank: Bank | None = None) -> dict[str, dict[str, Any]]:
    """A page for each chapter that has cards, by file name."""
    bank = bank or load_bank()
    chapters = groupby(sorted(bank.cards, key=lambda card: card.page), key=lambda card: chapter_of(card.page))
    return {page_name(chapter): chapter_page(chapter, list(cards), lang, bank) for chapter, cards in chapters}
