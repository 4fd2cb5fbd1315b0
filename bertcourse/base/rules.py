"""What an option of a job, or a setting of a recipe, may be.

A rule reads the text of a command line (`read`) and checks the value of a function call (`check`); both refuse with the same words and
give values of Python's own types, which JSON can store: a NumPy integer becomes an int, a tuple a list.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Refused(ValueError):
    """A value that an option cannot have: what it must be instead, in English and Chinese."""

    def __init__(self, en: str, zh: str) -> None:
        super().__init__(en)
        self.en, self.zh = en, zh


class Rule:
    """What an option may be."""

    def __init__(self, en: str, zh: str) -> None:
        self.en, self.zh = en, zh

    def parse(self, text: str) -> Any:
        """The value of a text. Raises `ValueError`."""
        return text

    def allows(self, value: Any) -> bool:
        """May the option have this value?"""
        return isinstance(value, str)

    def convert(self, value: Any) -> Any:
        """An allowed value as a job stores it."""
        return value

    def check(self, value: Any) -> Any:
        """The value of a function call as a job stores it. Raises `Refused`."""
        return self._accept(value, value)

    def _accept(self, value: Any, original: Any) -> Any:
        """The converted value. Raises `Refused`, which names what was given: the value, or the text that it was read from."""
        with suppress(TypeError, ValueError, OverflowError):
            if self.allows(value):
                return self.convert(value)
        raise self.refusal(original)

    def refusal(self, value: Any) -> Refused:
        """The sentence for a value that the option cannot have."""
        return Refused(f"must be {self.en}, not {value!r}", f"应为{self.zh}，不能是 {value!r}")

    def read(self, text: str) -> Any:
        """The value that a command line gives. Raises `Refused`."""
        try:
            value = self.parse(text)
        except (ValueError, RecursionError):
            raise self.refusal(text) from None
        return self._accept(value, text)


def as_whole(value: Any) -> int:
    """A whole number, NumPy's too, as Python's own. Raises `TypeError` for anything else; True and False are no numbers."""
    if isinstance(value, bool):
        raise TypeError(value)
    return operator.index(value)


class Whole(Rule):
    """A whole number from `least` on."""

    def __init__(self, least: int, most: int | None = None) -> None:
        self.least, self.most = least, most
        limit = ("on", "") if most is None else (f"to {most}", f"、不大于 {most}")
        super().__init__(f"a whole number from {least} {limit[0]}", f"不小于 {least}{limit[1]} 的整数")

    def parse(self, text: str) -> int:
        """The number."""
        return int(text)

    def allows(self, value: Any) -> bool:
        """Is it a whole number in the range?"""
        return as_whole(value) >= self.least and (self.most is None or value <= self.most)

    def convert(self, value: Any) -> int:
        """As Python's own number."""
        return as_whole(value)


class Real(Rule):
    """A number in a range; `above` and `below` leave its ends out."""

    def __init__(self, low: float = 0.0, high: float = math.inf, above: bool = False, below: bool = False) -> None:
        self.low, self.high, self.above, self.below = low, high, above, below
        end = "" if math.isinf(high) else f" to below {high:g}" if below else f" to {high:g}"
        en = f"a number from {low:g}{end}"
        zh = f"不小于 {low:g}" + ("" if math.isinf(high) else f"、{'小于' if below else '不大于'} {high:g}") + " 的数"
        if above:
            en = f"a number above {low:g}" + ("" if math.isinf(high) else f", at most {high:g}")
            zh = f"大于 {low:g}" + ("" if math.isinf(high) else f"、不大于 {high:g}") + " 的数"
        super().__init__(en, zh)

    def parse(self, text: str) -> float:
        """The number."""
        return float(text)

    def allows(self, value: Any) -> bool:
        """Is it a finite number in the range?"""
        if isinstance(value, (bool, str)) or not math.isfinite(value):
            return False
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def convert(self, value: Any) -> float:
        """As Python's own number."""
        return float(value)


class Choice(Rule):
    """One of several words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        super().__init__(f"one of {', '.join(words)}", f" {'、'.join(words)} 之一")

    def allows(self, value: Any) -> bool:
        """Is it one of them?"""
        return value in self.words


class Condition(Rule):
    """What a function says yes to."""

    def __init__(self, test: Callable[[Any], bool], en: str, zh: str) -> None:
        super().__init__(en, zh)
        self.test = test

    def allows(self, value: Any) -> bool:
        """Does the function say yes?"""
        return self.test(value)
