"""Combining marks as a character class. A module of its own: to look at all characters takes 15 ms, which a `--help` does without."""

from __future__ import annotations

import unicodedata


def _ranges(codes: list[int]) -> str:
    """Code points as ranges of a character class."""
    parts, begin, last = [], codes[0], codes[0]
    for code in [*codes[1:], -1]:
        if code != last + 1:
            parts.append(f"\\U{begin:08x}-\\U{last:08x}")
            begin = code
        last = code
    return "".join(parts)


# Combining marks, which `\w` leaves out: accents in decomposed text, vowel signs of Hindi or Thai, variation selectors.
MARKS = _ranges([code for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)) if unicodedata.category(chr(code))[0] == "M"])
