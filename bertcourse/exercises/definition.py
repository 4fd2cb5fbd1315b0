"""What an exercise is: the right answer, inputs to try it on, and the wrong answers that people give.

A definition stands in a hidden cell of a notebook in `exercises/`, beside its prompt, and binds the name `exercise`. It serves the
check in the notebook, the grader, the site and the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import PCG64, Generator

from bertcourse.base.bilingual import Text

if TYPE_CHECKING:
    from torch import Tensor

    from bertcourse.experiments import Comparison

TOLERANCE = 1e-4  # absolute and relative: some hundred times the rounding error of float32
LEVELS = (1, 2, 3)  # warm-up, standard, stretch


class Draw(Generator):
    """A seeded source of inputs: NumPy's generator, with the tensors that exercises need."""

    def __init__(self, seed: int) -> None:
        super().__init__(PCG64(seed))

    def tensor(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Normally distributed float32 numbers of a shape, with standard deviation `scale`."""
        import torch
        return torch.from_numpy((scale * self.standard_normal(shape)).astype(np.float32))

    def ids(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers from `low` to `high` - 1 as an int64 tensor of a shape."""
        import torch
        return torch.from_numpy(self.integers(low, high, shape))


def shuffled_cases(cases: Callable[[Draw], Sequence[tuple[Any, ...]]], seed: int) -> list[tuple[Any, ...]]:
    """An exercise's inputs in an order that the seed decides, so that an answer cannot go by the number of its call."""
    found = list(cases(Draw(seed)))
    return [found[i] for i in Draw(seed + 1).permutation(len(found))]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer as code, and the sentence for a learner whose answer gives the same outputs."""

    answer: Callable[..., Any]
    zh: str
    en: str

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.answer.__name__

    @property
    def text(self) -> Text:
        """The sentence in both languages."""
        return Text(self.zh, self.en)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every kind of exercise has."""

    id: str  # "2.3": chapter and number
    aim: int  # which of the page's aims, from 1
    level: int  # one of `LEVELS`
    minutes: int
    hints: Sequence[Text] = ()  # each says a little more than the one before

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"exercise {self.id}: level is one of {LEVELS}, not {self.level}")


@dataclass(frozen=True, kw_only=True)
class Exercise(Task):
    """A function to write or, with an `origin`, a given one whose bug is to be found."""

    reference: Callable[..., Any]  # the right answer; the learner's function has its name
    cases: Callable[[Draw], Sequence[tuple[Any, ...]]]  # inputs by seed, each a tuple of positional arguments
    mistakes: Sequence[Mistake]
    helpers: Sequence[Callable[..., Any]] = ()  # functions that the solution shows before the reference
    tolerance: float = TOLERANCE  # of floating-point numbers, absolute and relative; whole numbers and texts are exact
    compare: Callable[[Any, Any, float], Text | None] | None = None  # expected, got, tolerance → what differs; None: `compare.difference`
    observe: Callable[[Any, tuple[Any, ...]], Any] | None = None  # result and arguments after the call → what is compared
    changes_arguments: bool = False  # may the function change what it is given?
    origin: Text | None = None  # where the bug of a find-the-bug exercise was found

    @property
    def name(self) -> str:
        """The name of the learner's function."""
        return self.reference.__name__


@dataclass(frozen=True, kw_only=True)
class Question(Task):
    """A question to think about; the learner compares an own answer with the model answer, point by point."""

    answer: Text
    points: Sequence[Text]  # what a good answer says


@dataclass(frozen=True, kw_only=True)
class Experiment(Task):
    """A prediction, one run of the learner's own, and what the recorded runs say."""

    choices: Mapping[str, Text]  # value of `prediction` → what it means
    prediction: str  # the variable that holds the learner's prediction
    measured: str  # the variable that holds the learner's own difference, a number
    recorded: Callable[[], Comparison]  # the recorded runs, paired by seed
    verdict: Callable[[Comparison], str]  # which of the choices they support
    explanation: Text  # what can be learnt from it
