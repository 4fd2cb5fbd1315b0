"""A text in the course's two languages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """One text in both languages: Markdown with `$…$` formulas and `code`."""

    zh: str
    en: str

    def __getitem__(self, lang: str) -> str:
        """The text in `lang`, "zh" or "en"."""
        return {"zh": self.zh, "en": self.en}[lang]
