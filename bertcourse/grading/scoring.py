"""From what a submission's functions returned to points: expected values are computed here, by code that no submission sees."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from bertcourse.base.bilingual import Text
from bertcourse.exercises import checking
from bertcourse.exercises.checking import Outcome, Result, Trial
from bertcourse.exercises.definition import Exercise, Experiment, shuffled_cases
from bertcourse.exercises.loading import Entry
from bertcourse.exercises.running import LETTERS, LINES, Call, Failure
from bertcourse.grading import sandbox
from bertcourse.grading.requests import request_of, seed_of
from bertcourse.grading.sandbox import Limits, Stopped
from bertcourse.grading.wire import decode

MISSING, ENDED, TO_MARK, PREDICTED, NOT_PREDICTED = "missing", "ended", "to be marked", "predicted", "not predicted"
UNREADABLE, NOT_HANDED_IN, TOO_SLOW = "unreadable", "not handed in", "too slow"
STATUSES = (checking.CORRECT, checking.NOT_YET, checking.NOT_ATTEMPTED, checking.RAISED, TOO_SLOW, MISSING, ENDED, TO_MARK, PREDICTED, NOT_PREDICTED, UNREADABLE, NOT_HANDED_IN)
LINE = 3_000_000  # bytes of one result
EARNED = (checking.CORRECT, PREDICTED)
STOPS = {
    "time": Text("运行超出了总的时间限制", "it ran past the time for a whole submission"),
    "memory": Text("占用的内存超出了限制", "it used more memory than a submission may"),
    "output": Text("送回的数据超出了限制", "it sent more than a submission may"),
}


@dataclass(frozen=True)
class Mark:
    """What an exercise of a submission came to."""

    id: str
    status: str  # one of `STATUSES`
    outcome: Outcome | None = None  # of a function that was tried
    note: Text | None = None  # what else there is to say


@dataclass
class Run:
    """What came out of the sandbox, not yet judged."""

    results: dict[str, Any] = field(default_factory=dict)  # by exercise
    ended: list[str] = field(default_factory=list)  # steps that ended the process
    errors: dict[int, str] = field(default_factory=dict)  # by cell, from 1
    stopped: str = ""  # why it was ended from outside


# --- reading what was sent ----------------------------------------------------------------------------------------

def read_run(lines: Iterable[bytes]) -> Run:
    """Everything of use that a sandbox sent; the first result of an exercise counts."""
    run = Run()
    try:
        for one in lines:
            _take(run, one)
    except Stopped as stop:
        run.stopped = str(stop)
    return run


def _take(run: Run, line: bytes) -> None:
    if len(line) > LINE:
        return
    try:
        message = json.loads(line)
        if "exercise" in message:
            run.results.setdefault(str(message["exercise"])[:20], message["result"])
        elif "ended" in message:
            run.ended.append(str(message["ended"])[:40])
        elif "cell" in message and type(message["cell"]) is int and len(run.errors) < 10_000:
            run.errors.setdefault(message["cell"], str(message["error"])[:60])
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # no message of ours


def _text(value: Any, length: int = LETTERS) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value[:length]


def _failure(sent: Any) -> Failure:
    kind, message, number, code = sent
    if number is not None and type(number) is not int:
        raise ValueError("no line number")
    return Failure(_text(kind), _text(message), number, _text(code))


def read_call(exercise: Exercise, before: tuple[Any, ...], sent: Mapping[str, Any]) -> tuple[Call, Result]:
    """One call as `checking.outputs` gives it. Raises `ValueError`, `TypeError`, `KeyError` or `RecursionError` for anything else."""
    printed = _text(sent["printed"], LETTERS * LINES)
    if sent.get("late"):
        return Call(printed=printed, is_late=True), Result(is_late=True)
    if "failure" in sent:
        failure = _failure(sent["failure"])
        return Call(failure=failure, printed=printed), Result(error=failure.kind)
    raw, after = decode(sent["raw"]), [decode(one) for one in sent["arguments"]]
    if len(after) != len(before):
        raise ValueError("not the arguments")
    changed = None if exercise.changes_arguments else checking.changed_argument(before, tuple(after))
    done = Call(raw, None, tuple(after), printed)
    if "error" in sent:
        return done, Result(error=_text(sent["error"]), changed=changed)
    return done, Result(decode(sent["value"]) if exercise.observe else raw, changed=changed)


# --- judging ------------------------------------------------------------------------------------------------------

class Trials:
    """The inputs and expected values of all exercises by one secret, computed once."""

    def __init__(self, secret: bytes) -> None:
        self.secret, self._found = secret, {}

    def __getitem__(self, entry: Entry) -> Trial:
        if entry.id not in self._found:
            exercise = entry.task()
            self._found[entry.id] = Trial(exercise, shuffled_cases(exercise.cases, seed_of(self.secret, entry.id)))
        return self._found[entry.id]


def judge_result(entry: Entry, sent: Any, trials: Trials) -> Mark:
    """What the sandbox sent of an exercise, judged."""
    exercise = entry.task()
    try:
        if "missing" in sent:
            what = Text(f"`{exercise.name}` 不是函数", f"`{exercise.name}` is not a function") if sent["missing"] else Text(
                f"笔记本里没有定义 `{exercise.name}`", f"the notebook does not define `{exercise.name}`")
            return Mark(entry.id, MISSING, note=what)
        if sent["unchanged"] is True and exercise.origin is None:
            return Mark(entry.id, checking.NOT_ATTEMPTED, Outcome(checking.NOT_ATTEMPTED, is_unchanged=True))
        trial = trials[entry]
        calls = [read_call(exercise, before, one) for before, one in zip(trial.cases, sent["calls"])]
        outcome = trial.verdict(calls, sent["unchanged"] is True)
    except Exception:  # whatever a value does where it is compared costs its own exercise only
        return Mark(entry.id, checking.NOT_YET, note=Text("函数返回的值无法与正确的比较", "what the function returned cannot be compared with the right values"))
    return Mark(entry.id, _status(outcome), outcome)


def _status(outcome: Outcome) -> str:
    """A status for tables, where "late" would be read as handed in late, and a bug that is still there is no attempt."""
    if outcome.is_unchanged and outcome.status != checking.CORRECT:
        return checking.NOT_ATTEMPTED
    return TOO_SLOW if outcome.status == checking.LATE else outcome.status


def prediction_of(cells: Sequence[str], experiment: Experiment) -> str | None:
    """The learner's prediction as the cells assign it, without running or parsing them."""
    assigned = re.compile(rf"""(?:^|;|=)[ \t]*{re.escape(experiment.prediction)}\s*(?::[^=\n]*)?=\s*\(*\s*(\'\'\'|\"\"\"|'|")([^'"\n]*)\1""", re.MULTILINE)
    found = [one[2] for source in cells for one in assigned.finditer(source) if one[2] in experiment.choices]
    return found[-1] if found else None


def _of_process(entry: Entry, run: Run) -> Mark:
    """The mark of an exercise of which no result came."""
    if run.stopped:
        return Mark(entry.id, ENDED, note=STOPS[run.stopped])
    if entry.id in run.ended:
        return Mark(entry.id, ENDED, note=Text("函数结束了运行它的进程，或用时过长", "the function ended the process that ran it, or took too long"))
    return Mark(entry.id, ENDED, note=Text("笔记本在这道题之前结束了运行它的进程", "the notebook ended the process that ran it before this exercise"))


def request_for(cells: Sequence[str], entries: Sequence[Entry], trials: Trials, limits: Limits) -> bytes | None:
    """What the sandbox gets for the code cells of a notebook; None where there is nothing to run.

    The expected values are computed first: nothing that comes of a submission may disturb them.
    """
    coded = [entry for entry in entries if isinstance(entry.task(), Exercise)]
    for entry in coded:
        trials[entry].right
    return request_of(cells, coded, trials.secret, limits) if coded else None


def run_request(request: bytes | None, limits: Limits, trust: bool = False, stop: Event | None = None) -> Run:
    """Run a submission; judges nothing, so that several may run at once. Raises `OSError`."""
    return Run() if request is None else read_run(sandbox.run(request, limits, trust, stop))


def judge_run(cells: Sequence[str], entries: Sequence[Entry], run: Run, trials: Trials) -> list[Mark]:
    """The marks of a notebook's exercises, in their order."""
    marks = []
    for entry in entries:
        task = entry.task()
        if isinstance(task, Exercise):
            marks.append(judge_result(entry, run.results[entry.id], trials) if entry.id in run.results else _of_process(entry, run))
        elif isinstance(task, Experiment):
            marks.append(Mark(entry.id, PREDICTED if prediction_of(cells, task) else NOT_PREDICTED))
        else:
            marks.append(Mark(entry.id, TO_MARK))
    return marks
