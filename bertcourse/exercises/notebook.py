"""What a learner calls in a notebook of exercises: `check`, `hint`, `solution`, `progress`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bertcourse.base.bilingual import Text
from bertcourse.base.errors import UserError
from bertcourse.drill.show import Shown
from bertcourse.exercises import chart, feedback, state
from bertcourse.exercises.checking import CORRECT, NOT_ATTEMPTED, code_of, judge, same_body
from bertcourse.exercises.definition import Exercise, Experiment, Question
from bertcourse.exercises.feedback import BLUE, VERMILION, Message
from bertcourse.exercises.loading import Entry, find_entry


def _error_message(error: UserError) -> Message:
    return Message("!", VERMILION, Text(error.zh, error.en))


def _with_note(message: Message, save: Callable[[], Any]) -> Shown:
    """The message; what `save` writes is lost if the file cannot be written, and that is said."""
    try:
        save()
    except UserError as error:
        note = Text(f"进度没有保存：{error.zh}", f"Your progress was not saved: {error.en}")
        message = replace(message, closing=[*message.closing, note])
    return message.shown()


def _read_progress() -> state.Progress:
    """The learner's progress, an empty one where the file cannot be read: a check works all the same."""
    try:
        return state.read_progress(state.find_file())
    except UserError:
        return state.Progress()


def is_stale(cells: Sequence[str] | None, name: str, function: Callable[..., Any]) -> bool:
    """Did the last cell that was run with a definition of this function not define it? `cells` is what IPython calls `In`."""
    defined = re.compile(rf"^\s*def {re.escape(name)}\b", re.MULTILINE)
    last = next((cell for cell in reversed(cells or []) if isinstance(cell, str) and defined.search(cell)), None)
    code = getattr(function, "__code__", None)
    return last is not None and code is not None and not same_body(code, code_of(last, name))


def _check_exercise(exercise: Exercise, entry: Entry, names: Mapping[str, Any], answer: Callable[..., Any] | None) -> Shown:
    function = names.get(exercise.name) if answer is None else answer
    if not callable(function):
        return feedback.missing_message(exercise, entry.title, exercise.name, function is not None).shown()
    try:
        outcome = judge(exercise, function, entry.stub)
    except KeyboardInterrupt:
        return feedback.stopped_message(exercise, entry.title).shown()
    message = feedback.outcome_message(exercise, entry.title, outcome)
    if answer is None and is_stale(names.get("In"), exercise.name, function):
        message = replace(message, closing=[*message.closing, feedback.stale_note(exercise.name)])
    if outcome.status == NOT_ATTEMPTED or outcome.is_unchanged:
        return message.shown()
    return _with_note(message, lambda: state.record_attempt(exercise.id, outcome.status == CORRECT))


def _check_question(question: Question, entry: Entry, points: int | None) -> Shown:
    if points is None:
        return feedback.question_message(question, entry.title).shown()
    if type(points) is not int or not 0 <= points <= len(question.points):
        n = len(question.points)
        raise UserError(f"points is a whole number from 0 to {n}, not {points!r}", f"points 是 0 到 {n} 的整数，不是 {points!r}")
    message = feedback.marked_message(question, entry.title, points)
    return _with_note(message, lambda: state.record_attempt(question.id, points == len(question.points)))


def _check_experiment(task: Experiment, entry: Entry, names: Mapping[str, Any]) -> Shown:
    prediction, measured = names.get(task.prediction), names.get(task.measured)
    if prediction is None or measured is None:
        missing = task.prediction if prediction is None else task.measured
        return feedback.missing_message(task, entry.title, missing, False).shown()
    if not isinstance(prediction, str) or prediction not in task.choices:
        values = ", ".join(map(repr, task.choices))
        raise UserError(f"{task.prediction} is one of {values}, not {prediction!r}", f"{task.prediction} 应为 {values} 之一，不是 {prediction!r}")
    try:
        difference = float(measured)
    except (TypeError, ValueError):
        raise UserError(f"{task.measured} is a number, not {measured!r}: run the cell that computes it",
                        f"{task.measured} 应当是一个数，不是 {measured!r}：请运行计算它的单元") from None
    message = feedback.experiment_message(task, entry.title, prediction, difference)
    return _with_note(message, lambda: state.record_attempt(task.id, True))


def check(
    id: str = "",  # "2.3"
    answer: Callable[..., Any] | None = None,  # your function; None: the one of the exercise's name in your notebook
    *,
    points: int | None = None,  # of a question: how many points of the model answer yours makes
) -> Shown:
    """Check an answer at once: correct, not yet (with an input and what was expected), not attempted, or the error it raised.

    Works on copies, ends after 10 s, changes nothing of yours, and needs no network.
    """
    try:
        entry = find_entry(id)
        task = entry.task()
        names = sys._getframe(1).f_globals
        if points is not None and not isinstance(task, Question):
            raise UserError(f"{task.id} is checked by running it: leave out points", f"{task.id} 由程序检查：请去掉 points")
        if isinstance(task, Exercise):
            return _check_exercise(task, entry, names, answer)
        if isinstance(task, Question):
            return _check_question(task, entry, points)
        return _check_experiment(task, entry, names)
    except UserError as error:
        return _error_message(error).shown()


def hint(
    id: str = "",  # "2.3"
    number: int | None = None,  # from 1; None: the next one
) -> Shown:
    """A hint; each call shows the next one."""
    try:
        entry = find_entry(id)
        task = entry.task()
        if not task.hints:
            return feedback.no_hint_message(task, entry.title).shown()
        if number is None:
            number = min(_read_progress().hints(task.id) + 1, len(task.hints))
        if type(number) is not int or not 1 <= number <= len(task.hints):
            raise UserError(f"exercise {task.id} has the hints 1 to {len(task.hints)}, not {number!r}",
                            f"练习 {task.id} 有第 1 到第 {len(task.hints)} 条提示，没有 {number!r}")
        return _with_note(feedback.hint_message(task, entry.title, number), lambda: state.record_hint(task.id, number))
    except UserError as error:
        return _error_message(error).shown()


def solution(
    id: str = "",  # "2.3"
    now: bool = False,  # also to someone who has not tried
) -> Shown:
    """The solution, after an attempt."""
    try:
        entry = find_entry(id)
        task = entry.task()
        if not now and not isinstance(task, Question) and not _read_progress().attempts(task.id):
            return feedback.ask_first_message(task, entry.title).shown()
        message = feedback.solution_message(task, entry)
        if isinstance(task, Question):  # reading the model answer is the way to mark one's own
            return message.shown()
        return _with_note(message, lambda: state.record_solution(task.id))
    except UserError as error:
        return _error_message(error).shown()


def progress() -> Shown:
    """Your progress: a square for each exercise of each chapter, and where the file lies."""
    try:
        path = state.find_file()
        rows = state.rows(state.read_progress(path))
        if not rows:
            return Message("→", BLUE, Text("这里还没有练习", "there are no exercises here")).shown()
        return Shown(lambda lang: chart.progress_html(rows, path, lang), lambda lang: chart.progress_plain(rows, path, lang))
    except UserError as error:
        return _error_message(error).shown()
