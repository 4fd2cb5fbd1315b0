"""What commands and the library say of a user's mistake."""

from __future__ import annotations

from bertcourse.base.display import printable
from bertcourse.base.reader import reader_language


class UserError(Exception):
    """Something the user can fix, as one sentence in both languages: what, where, what to do instead.

    Names in it are shown with escapes for what a terminal would not print.
    """

    def __init__(self, en: str, zh: str) -> None:
        self.en, self.zh = printable(en), printable(zh)
        super().__init__(self.en)

    def text(self, lang: str) -> str:
        """The sentence in `lang`, "zh" or "en"."""
        return self.zh if lang == "zh" else self.en

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, in the reader's language, without the library's lines above it."""
        return [f"{type(self).__name__}: {self.text(reader_language())}"]
