"""The language of whoever reads: that of the locale."""

from __future__ import annotations

import locale
import os
from collections.abc import Mapping


def reader_language(environ: Mapping[str, str] | None = None) -> str:
    """The language of the locale: "zh" for any Chinese one, else "en".

    POSIX's order of precedence: LC_ALL, LC_MESSAGES, LANG; where none is set (Windows) the system's own locale.
    """
    environ = os.environ if environ is None else environ
    name = next((environ[key] for key in ("LC_ALL", "LC_MESSAGES", "LANG") if environ.get(key)), None)
    if name is None:
        name = locale.getlocale()[0] or ""
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"
