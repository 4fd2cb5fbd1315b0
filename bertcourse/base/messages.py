"""What the command says to a person: errors as one sentence, in the reader's language."""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping, Sequence

from bertcourse.base.errors import UserError as UserError
from bertcourse.base.text import wide as wide


def reader_language(environ: Mapping[str, str] | None = None) -> str:
    """The language of the locale: "zh" for any Chinese one, else "en".

    POSIX's order of precedence: LC_ALL, LC_MESSAGES, LANG; where none is set (Windows) the system's own locale.
    """
    environ = os.environ if environ is None else environ
    name = next((environ[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(key)), None)
    if name is None:
        name = locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


def grid(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the first to the left, the others to the right."""
    widths = [max(map(wide, column)) for column in zip(*rows)]
    spaces = [[" " * (width - wide(cell)) for cell, width in zip(row, widths)] for row in rows]
    return ["  ".join([row[0] + space[0], *(s + cell for cell, s in zip(row[1:], space[1:]))]).rstrip() for row, space in zip(rows, spaces)]


def plural(count: int, noun: str) -> str:
    """`1 notebook`, `2 notebooks`, `2 processes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"
