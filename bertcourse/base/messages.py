"""What the command says to a person: errors as one sentence, in the reader's language."""

from __future__ import annotations

from collections.abc import Sequence

from bertcourse.base.errors import UserError as UserError
from bertcourse.base.reader import reader_language as reader_language
from bertcourse.base.text import wide as wide


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the first to the left, the others to the right."""
    widths = [max(map(wide, column)) for column in zip(*rows)]
    spaces = [[" " * (width - wide(cell)) for cell, width in zip(row, widths)] for row in rows]
    return ["  ".join([row[0] + space[0], *(s + cell for cell, s in zip(row[1:], space[1:]))]).rstrip() for row, space in zip(rows, spaces)]


def plural(count: int, noun: str) -> str:
    """`1 notebook`, `2 notebooks`, `2 processes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"
