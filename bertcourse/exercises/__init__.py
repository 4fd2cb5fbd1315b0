"""Exercises with their checks: `check`, `hint`, `solution` and `progress` in a notebook; definitions for graders and the site.

Nothing is imported before it is used: the command's `--help` and the workspace need no NumPy.
"""

from importlib import import_module
from typing import Any

from bertcourse.base.bilingual import Text as Text

_FROM = {"notebook": ("check", "hint", "progress", "solution"), "definition": ("Draw", "Exercise", "Experiment", "Mistake", "Question")}
_MODULES = {name: module for module, names in _FROM.items() for name in names}
__all__ = ["Text", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
