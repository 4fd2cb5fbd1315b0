"""What the command says to a person: errors as one sentence, in the reader's language."""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping


class UserError(Exception):
    """Something the user can mend, as one sentence in both languages: what, where, what to do instead."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en, self.zh = en, zh

    def text(self, lang: str) -> str:
        """The sentence in `lang`, "zh" or "en"."""
        return self.zh if lang == "zh" else self.en


def reader_language(environ: Mapping[str, str] | None = None) -> str:
    """The language of the locale: "zh" for any Chinese one, else "en".

    POSIX's order of precedence: LC_ALL, LC_MESSAGES, LANG; where none is set (Windows) the system's own locale.
    """
    environ = os.environ if environ is None else environ
    name = next((environ[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(key)), None)
    if name is None:
        name = locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


def plural(count: int, noun: str) -> str:
    """`1 notebook`, `2 notebooks`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
