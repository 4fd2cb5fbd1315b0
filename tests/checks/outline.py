"""Does a finished chapter have every heading of the guide's outline?"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from bertcourse.languages import LANGUAGES

from . import reading

OUTLINE = reading.ROOT / "bertcourse" / "assets" / "outline.toml"


@dataclass(frozen=True)
class Heading:
    """One heading of the guide, in the course's words."""

    zh: str
    en: str
    notebook: str
    number: str = ""  # "2.1.2", "Q7", "A"; empty where the guide has none
    under: str = ""  # the numbered heading above one that has no number


def _raw() -> dict:
    return tomllib.loads(OUTLINE.read_text(encoding="utf-8"))


def finished() -> list[str]:
    """Numbers of the chapters that are complete."""
    return [str(number) for number in _raw()["finished"]]


def outline() -> list[Heading]:
    """All headings, in the guide's order."""
    return [Heading(**entry) for entry in _raw()["heading"]]


def chapter(heading: Heading) -> str:
    """The chapter a heading belongs to: "1" … "8", or "appendix"."""
    if heading.notebook.startswith("09"):
        return "appendix"
    return heading.notebook[:2].lstrip("0")


def _plain(title: str) -> str:
    return "".join(title.replace("`", "").split()).casefold()


def missing(headings: list[Heading], cells: list[reading.Cell], name: str) -> Iterator[str]:
    """Headings of the outline that a notebook lacks or has out of order, in either language.

    The chapter's own number stands in the title cell, which is not looked at here.
    """
    for lang in LANGUAGES:
        found = [
            (number, _plain(title))
            for cell in cells
            if cell.lang == lang
            for _, number, title in reading.headings(cell.text)
        ]
        place = 0
        for heading in headings:
            title = _plain(getattr(heading, lang))
            if heading.number and heading.number.isdigit():
                continue
            places = [
                i
                for i, (number, text) in enumerate(found)
                if (number == heading.number if heading.number else title in (text, _plain(number) + text))
            ]
            what = f"{heading.number} {getattr(heading, lang)}".strip()
            if not places:
                yield f"{name}: no {lang} heading “{what}”"
            elif places[-1] < place:
                yield f"{name}: the {lang} heading “{what}” is out of order"
            else:
                place = next(p for p in places if p >= place)
