"""What counts as a Chinese character, and what belongs to the letter before it."""

from __future__ import annotations

import os
import re
import unicodedata

# For character classes of `re`: Han in the planes 0, 2 and 3 (Unicode 16: extensions A to J and the compatibility ideographs).
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3040-\u30ff"  # Japanese, which is written without blanks, too
WIDTH = 100  # columns of a help text
WIDE_MARKS = "，。、；：？！（）“”《》"  # stay with the character before them
JOINERS = "\u200c\u200d"  # inside words of Persian and of Indian scripts, and between parts of an emoji


def is_chinese(char: str) -> bool:
    """Is this one a Chinese character?"""
    return ("\u3400" <= char <= "\u4dbf" or "\u4e00" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff"
            or "\U00020000" <= char <= "\U0003ffff")  # fmt: skip


def compose(text: str) -> str:
    """The text in Unicode's composed form (NFC): "é" is one character, however it was typed or stored."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def wide(text: str) -> int:
    """Columns that a text takes on a terminal; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def wrap(text: str, columns: int) -> list[str]:
    """The text in lines of at most so many columns of a terminal, broken at blanks and beside Chinese characters."""
    lines, line = [], ""
    for part in re.findall(rf"[^\s{HAN}{WIDE_MARKS}]+\s*|[{HAN}][{WIDE_MARKS}]*\s*|[{WIDE_MARKS}]\s*", text):
        if line and wide(line + part.rstrip()) > columns:
            lines.append(line.rstrip())
            line = ""
        line += part
    return [*lines, line.rstrip()] if line else lines or [""]


def shown_name(path: str | os.PathLike[str]) -> str:
    """The last part of a path, for files and messages: bytes that are not UTF-8, as a Chinese Windows archive has them, become U+FFFD."""
    return os.fsencode(os.path.basename(path)).decode("utf-8", "replace")
