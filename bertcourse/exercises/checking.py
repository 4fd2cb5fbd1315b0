"""Judge an answer: run it on the exercise's inputs, compare, and recognise known mistakes by their outputs."""

from __future__ import annotations

import dis
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import CodeType
from typing import Any

from bertcourse.base.bilingual import Text
from bertcourse.exercises.compare import contains_floats, difference, kind_difference
from bertcourse.exercises.definition import Draw, Exercise, Mistake
from bertcourse.exercises.running import SECONDS, Call, Failure, call, kept_state, remaining

CORRECT, NOT_YET, NOT_ATTEMPTED, RAISED, LATE = "correct", "not yet", "not attempted", "raised", "late"
STATUSES = (CORRECT, NOT_YET, NOT_ATTEMPTED, RAISED, LATE)


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    status: str  # one of `STATUSES`
    cases: int = 0  # inputs that were tried
    case: int | None = None  # the first one that failed, from 0
    arguments: tuple[Any, ...] = ()  # of that case
    expected: Any = None
    got: Any = None
    difference: Text | None = None  # what differs
    mistake: Mistake | None = None  # a known one with the same outputs
    failure: Failure | None = None  # what the answer raised
    printed: str = ""  # by the answer, in that case
    is_unchanged: bool = False  # is it the function as it was handed out?
    has_floats: bool = False  # does the tolerance count?
    changed: bool = False  # is it wrong for having changed an argument?


@dataclass(frozen=True)
class Result:
    """What one call comes to, for comparison."""

    value: Any = None
    error: str = ""  # the exception's class
    is_late: bool = False
    changed: int | None = None  # the first argument that the function changed although it may not


# --- running ------------------------------------------------------------------------------------------------------

def is_data(value: Any) -> bool:
    """Can it be seen whether a function has changed it?"""
    return isinstance(value, (list, dict, set)) or hasattr(value, "shape")


def changed_argument(before: tuple[Any, ...], after: tuple[Any, ...]) -> int | None:
    """The first argument whose value is another than before; only data is looked at."""
    for i, (one, other) in enumerate(zip(before, after)):
        if is_data(one):
            if difference(one, other, 0.0) is not None:
                return i
    return None


def _result(exercise: Exercise, arguments: tuple[Any, ...], done: Call) -> Result:
    if done.is_late:
        return Result(is_late=True)
    if done.failure:
        return Result(error=done.failure.kind)
    changed = None if exercise.changes_arguments else changed_argument(arguments, done.arguments)
    value = done.value
    if exercise.observe:
        try:
            value = exercise.observe(value, done.arguments)
        except Exception as error:  # the answer returned something else than the exercise expects
            return Result(error=type(error).__name__, changed=changed)
    return Result(value, changed=changed)


def outputs(exercise: Exercise, function: Callable[..., Any], cases: Sequence[tuple[Any, ...]], seconds: float = SECONDS) -> list[tuple[Call, Result]]:
    """What a function gives on each case, within `seconds` together; nothing more after one that took too long."""
    found, end = [], time.monotonic() + seconds
    with kept_state():
        for arguments in cases:
            done = call(function, arguments, remaining(end))
            found.append((done, _result(exercise, arguments, done)))
            if done.is_late:
                break
    return found


def compare(exercise: Exercise, expected: Result, got: Result) -> Text | None:
    """What differs between two results of one case, or None."""
    if got.is_late or expected.is_late or got.error or expected.error:
        return None if got == expected else Text("得到的是错误", "an error was raised")
    if got.changed != expected.changed:
        name = argument_names(exercise)[got.changed if got.changed is not None else expected.changed]
        return Text(f"函数改动了它的参数 `{name}`：请先复制再改", f"the function changed its argument `{name}`: work on a copy")
    return (exercise.compare or difference)(expected.value, got.value, exercise.tolerance)


def argument_names(exercise: Exercise) -> list[str]:
    """The names of the parameters of the learner's function."""
    return [*inspect.signature(exercise.reference).parameters]


# --- judging ------------------------------------------------------------------------------------------------------

def code_of(source: str, name: str) -> CodeType | None:
    """The compiled body of the function `name` in a cell's source, without running the cell."""
    try:
        module = compile(source, "<cell>", "exec")
    except SyntaxError:
        return None
    return next((one for one in module.co_consts if isinstance(one, CodeType) and one.co_name == name), None)


def _steps(code: CodeType) -> list[tuple[Any, ...]]:
    """What a function does, step by step, without its docstring and line numbers."""
    steps = []
    for step in dis.get_instructions(code):
        value = step.argval
        steps.append((step.opname, _steps(value) if isinstance(value, CodeType) else value))
    return steps


def same_body(one: CodeType | None, other: CodeType | None) -> bool:
    """Do two functions do the same, step by step?"""
    return one is not None and other is not None and _steps(one) == _steps(other)


def recognise(exercise: Exercise, mistakes: Sequence[tuple[Mistake, Sequence[Result]]], got: Sequence[Result]) -> Mistake | None:
    """The known mistake with the same outputs in all cases."""
    for mistake, same in mistakes:
        if len(same) == len(got) and all(compare(exercise, one, other) is None for one, other in zip(same, got)):
            return mistake
    return None


class Trial:
    """The inputs of an exercise, and what right and wrong answers give for them: computed once, when it is asked for."""

    def __init__(self, exercise: Exercise, cases: Sequence[tuple[Any, ...]]) -> None:
        self.exercise, self.cases = exercise, cases

    @cached_property
    def right(self) -> list[tuple[Call, Result]]:
        """What the reference gives."""
        return outputs(self.exercise, self.exercise.reference, self.cases)

    @cached_property
    def mistakes(self) -> list[tuple[Mistake, list[Result]]]:
        """What the known wrong answers give."""
        return [(mistake, [result for _, result in outputs(self.exercise, mistake.answer, self.cases)]) for mistake in self.exercise.mistakes]

    def verdict(self, calls: Sequence[tuple[Call, Result]], is_unchanged: bool = False) -> Outcome:
        """What the calls of an answer come to."""
        exercise, expected = self.exercise, [result for _, result in self.right]
        results = [result for _, result in calls]
        wrong = next((i for i, (one, other) in enumerate(zip(expected, results)) if compare(exercise, one, other) is not None), None)
        if wrong is None and len(results) == len(expected):
            return Outcome(CORRECT, len(self.cases), has_floats=any(contains_floats(one.value) for one in expected))
        if wrong is None:
            raise ValueError(f"{len(results)} results for {len(expected)} inputs")
        done, result = calls[wrong]
        outcome = Outcome(NOT_YET, len(self.cases), wrong, self.cases[wrong], expected[wrong].value, result.value,
                          compare(exercise, expected[wrong], result), printed=done.printed, failure=done.failure, is_unchanged=is_unchanged,
                          changed=result.changed != expected[wrong].changed)
        if result.is_late:
            return replace(outcome, status=LATE)
        if all(one.value is None and not one.error for one in results) and expected[wrong].value is not None:
            return replace(outcome, status=NOT_ATTEMPTED)
        mistake = recognise(exercise, self.mistakes, results)
        if result.error and not done.failure:  # `observe` could not read what came
            return replace(outcome, got=done.value, difference=kind_difference(self.right[wrong][0].value, done.value), mistake=mistake)
        return replace(outcome, status=RAISED if done.failure else NOT_YET, mistake=mistake)


def judge(exercise: Exercise, function: Callable[..., Any], stub: str = "", seed: int = 0, seconds: float = SECONDS) -> Outcome:
    """Try a function on an exercise's inputs; `stub` is the source of the cell as it was handed out."""
    is_unchanged = same_body(getattr(function, "__code__", None), code_of(stub, exercise.name))
    if is_unchanged and exercise.origin is None:
        return Outcome(NOT_ATTEMPTED, is_unchanged=True)
    trial = Trial(exercise, list(exercise.cases(Draw(seed))))
    return trial.verdict(outputs(exercise, function, trial.cases, seconds), is_unchanged)
