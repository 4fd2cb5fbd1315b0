"""Names and JSON as a terminal may show them: one place, so that none is forgotten. Light: every command imports it."""

from __future__ import annotations

import json
import unicodedata

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # categories of Unicode that do not show: control, format, unpaired, private, none


def printable(text: str, keep: str = "") -> str:
    r"""Line breaks, and whatever else does not show or moves a terminal's cursor, as escapes such as \x1b; those in `keep` stay.

    Every name that comes from a file, a path or an option goes through here before a person sees it.
    """
    if text.isprintable():
        return text
    return "".join(char.encode("unicode_escape").decode() if unicodedata.category(char) in HIDDEN and char not in keep else char for char in text)


def json_of(value: object, **options: object) -> str:
    """JSON with all characters as they are, except those that do not show: a terminal may print it."""
    text = json.dumps(value, ensure_ascii=False, **options)
    if text.isprintable():
        return text
    return "".join(json.dumps(char)[1:-1] if unicodedata.category(char) in HIDDEN and char not in "\n\t" else char for char in text)
