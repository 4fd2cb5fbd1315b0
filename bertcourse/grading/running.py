"""Grade what many students handed in: `grade`.

Each submission is judged once. What was found of it is written to a journal beside the table before the next one is finished, so that
a run that was killed goes on with `resume` where it was; the table is written at the end, whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertcourse import __version__
from bertcourse.base import atomic
from bertcourse.base.atomic import digest
from bertcourse.base.bilingual import Text
from bertcourse.base.display import printable
from bertcourse.base.errors import UserError
from bertcourse.base.machine import usable_cores
from bertcourse.exercises.checking import NOT_ATTEMPTED
from bertcourse.exercises.loading import Entry
from bertcourse.grading import gradebook, reports, scoring
from bertcourse.grading.assignment import FILE, SEED_FILE, Assignment, choose_sheets, default_assignment, read_assignment, read_secret
from bertcourse.grading.options import GradeOptions
from bertcourse.grading.pages import feedback_page, folder_names, page_name
from bertcourse.grading.reports import Record, hours_late, points_of
from bertcourse.grading.sandbox import Limits
from bertcourse.grading.scoring import Mark, Run, Trials
from bertcourse.grading.submissions import Submission, load
from bertcourse.jobs.folder import unwritable
from bertcourse.jobs.reporter import Reporter

# --- what is asked for --------------------------------------------------------------------------------------------

def read_plan(options: GradeOptions) -> Assignment:
    """The assignment: of the file, of the course, else all exercises. Raises `UserError`."""
    path = options.assignment or (options.course / FILE if options.course else None)
    found = read_assignment(path) if path else default_assignment()
    chosen = choose_sheets(options.chapters)
    ids = [entry.id for sheet in chosen for entry in sheet.entries if entry.id in found.points]
    if not ids:
        raise UserError("no exercise of these chapters has points: choose others with --chapters", "这些章里没有要批改的练习：请用 --chapters 换别的")
    return Assignment({id: found.points[id] for id in ids}, options.lang or found.lang, found.due, chosen)


class Journal:
    """Records of submissions by their keys; the first line holds the secret where there is no file with one."""

    def __init__(self, path: Path) -> None:
        self.path, self.records, self.secret = path, {}, ""
        with contextlib.suppress(FileNotFoundError):
            raw = path.read_bytes()
            whole = raw[:raw.rfind(b"\n") + 1]  # the last line of a run that was killed may be torn
            for line in whole.splitlines():
                self._take(line)
            if len(whole) != len(raw):
                atomic.replace(path, whole)

    def _take(self, line: bytes) -> None:
        try:
            content = json.loads(line)
            if "secret" in content:
                self.secret = str(content["secret"])
            else:
                self.records[content["key"]] = content
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{self.path} is damaged: remove it and grade again", f"{self.path} 已损坏：请删除后重新批改") from None

    def add(self, content: Mapping[str, Any]) -> None:
        """A line more, safely on disk."""
        new = not self.path.exists()
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(json.dumps(content).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            atomic._sync_folder(self.path.parent)
        if "key" in content:
            self.records[content["key"]] = dict(content)


def choose_secret(options: GradeOptions, journal: Journal) -> bytes:
    """The secret of the file, of the course, of the run that goes on; else a new one. Raises `UserError`."""
    if options.seed_file:
        return read_secret(options.seed_file)
    if options.course and (options.course / SEED_FILE).is_file():
        return read_secret(options.course / SEED_FILE)
    if not journal.secret:
        journal.secret = secrets.token_hex(32)
        journal.add({"secret": journal.secret})
    return journal.secret.encode()


# --- one submission -----------------------------------------------------------------------------------------------

@dataclass
class Grading:
    """What all submissions of a run have in common."""

    options: GradeOptions
    assignment: Assignment
    trials: Trials
    limits: Limits
    folders: dict[str, str]  # of each student

    def key(self, submission: Submission) -> str:
        """What a mark depends on: the file, the inputs, the exercises and how long they may run."""
        exercises = [f"{entry.definition}{self.assignment.points[entry.id]}" for entry in self.assignment.entries(submission.page)]
        parts = [submission.digest, submission.student, submission.source, submission.page, digest(self.trials.secret), digest("".join(exercises).encode()),
                 __version__, str(self.limits), str(self.options.trust_submissions), self.assignment.lang, str(self.assignment.due)]
        return digest("\0".join(parts).encode("utf-8", "surrogatepass"))

    def request(self, submission: Submission) -> bytes | None:
        """What the sandbox gets."""
        entries = self.assignment.entries(submission.page)
        handed_out = released_cells(submission.page, self.assignment)
        cells = ["" if cell.strip() in handed_out else cell for cell in submission.cells]  # the others keep their numbers
        return scoring.request_for(cells, entries, self.trials, self.limits)

    def judge(self, submission: Submission, run: Run) -> list[Mark]:
        """The marks of a submission."""
        entries = self.assignment.entries(submission.page)
        if submission.problem:
            return [Mark(entry.id, scoring.UNREADABLE, note=submission.problem) for entry in entries]
        return scoring.judge_run(submission.cells, entries, run, self.trials)

    def record(self, submission: Submission, run: Run) -> Record:
        """Judge a submission, write its page, and say what is kept of it. Raises `OSError`.

        Whatever a submission does to this code costs itself and nobody else.
        """
        try:
            return self._record(submission, run)
        except OSError:
            raise
        except Exception as error:
            what = Text(f"批改它时出了错（{type(error).__name__}）", f"it could not be judged ({type(error).__name__})")
            return self._record(replace(submission, cells=(), answers=(), problem=what), Run())

    def _record(self, submission: Submission, run: Run) -> Record:
        marks = self.judge(submission, run)
        found = {"key": self.key(submission), "student": submission.student, "source": submission.source, "page": submission.page,
                 "modified": submission.modified.isoformat(), "problem": submission.problem and vars(submission.problem),
                 "marks": [mark_record(mark) for mark in marks]}
        self.write_page(submission, marks, run, found)
        if self.options.course and submission.page:
            gradebook.write_notebook(self.options.course, self.folders[submission.student], submission, marks, self.assignment)
        return found

    def write_page(self, submission: Submission, marks: Sequence[Mark], run: Run, record: Record) -> None:
        """The student's page."""
        assignment, lang = self.assignment, self.assignment.lang
        entries: dict[str, Entry] = {entry.id: entry for entry in assignment.entries(submission.page)}
        rows = [(entries[mark.id], mark, points_of(mark.status, assignment.points[mark.id]), assignment.points[mark.id]) for mark in marks]
        title = next((sheet.title[lang] for sheet in assignment.sheets if sheet.page == submission.page), submission.source)
        late = hours_late(record, assignment.due)
        notes = [] if late is None else [f"晚交 {late:g} 小时。" if lang == "zh" else f"Handed in {late:g} hours late."]
        if submission.problem and not marks:
            notes.append(submission.problem[lang])
        place = self.options.feedback / self.folders[submission.student] / page_name(submission)
        place.parent.mkdir(parents=True, exist_ok=True)
        page = feedback_page(submission, title, rows, run, lang, " ".join(notes))
        atomic.replace(place, page.encode("utf-8", "replace"))


def mark_record(mark: Mark) -> dict[str, Any]:
    """A mark as the journal keeps it."""
    known = mark.outcome and mark.outcome.mistake and mark.status != NOT_ATTEMPTED
    mistake = mark.outcome.mistake.name if known else ""
    return {"id": mark.id, "status": mark.status, "mistake": mistake, "note": mark.note and vars(mark.note)}


_RELEASED: dict[tuple[str, str], frozenset[str]] = {}


def released_cells(page: str, assignment: Assignment) -> frozenset[str]:
    """Code cells as they were handed out that need not run: checks, the runs of experiments, progress."""
    if (page, assignment.lang) not in _RELEASED:
        from bertcourse.exercises.pages import learner_sheet
        sheet = next(sheet for sheet in assignment.sheets if sheet.page == page)
        notebook = learner_sheet(json.loads(sheet.path.read_text(encoding="utf-8")), page, assignment.lang)
        idle = ("check-", "run-", "libraries-", "progress", "predict-")
        cells = ["".join(cell["source"]).strip() for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["id"].startswith(idle)]
        _RELEASED[page, assignment.lang] = frozenset(cells)
    return _RELEASED[page, assignment.lang]


# --- all of them --------------------------------------------------------------------------------------------------

def run_all(grading: Grading, submissions: Sequence[Submission], jobs: int) -> Iterator[tuple[Submission, Run]]:
    """Run submissions side by side, and give each as it is done; they are judged by whoever asks, one after the other."""
    waiting, running, stop = iter(submissions), {}, threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        def start() -> None:
            for submission in waiting:
                request = None if submission.problem else grading.request(submission)
                task = pool.submit(scoring.run_request, request, grading.limits, grading.options.trust_submissions, stop)
                running[task] = submission
                return
        try:
            for _ in range(jobs):
                start()
            while running:
                done: set[Future[Run]] = wait(running, return_when=FIRST_COMPLETED).done
                for one in done:
                    submission = running.pop(one)
                    start()
                    yield submission, one.result()
        finally:
            stop.set()  # Ctrl-C: nothing that runs is waited for


def finish(grading: Grading, records: Sequence[Record], reporter: Reporter) -> None:
    """Write the tables, and the gradebook where there is a course and nbgrader. Raises `OSError`."""
    options, assignment = grading.options, grading.assignment
    head = ("exercise", "mistake", "students", "sentence")
    atomic.replace(options.beside("-mistakes.csv"), reports.to_csv([head, *reports.mistake_rows(records, assignment)]))
    if options.course and gradebook.is_installed():
        gradebook.fill(options.course, records, grading.folders, assignment)
    elif options.course:
        reporter.info('nbgrader is not installed, so that no gradebook was filled: `pip install "bertcourse[grade]"`, then the same command with --resume',
                      '没有安装 nbgrader，成绩册没有写入：请运行 `pip install "bertcourse[grade]"`，再加 --resume 运行同一命令')
    atomic.replace(options.out, reports.to_csv([reports.COLUMNS, *reports.score_rows(records, assignment)]))


@dataclass(frozen=True)
class Graded:
    """What a run of `grade` found."""

    out: Path
    assignment: Assignment
    records: list[Record]  # one of each submission
    judged: int  # in this run; the others were judged before
    replaced: int  # older notebooks of the same student and page

    @property
    def totals(self) -> Mapping[str, float]:
        """Points of each student, without those for questions."""
        return reports.totals(self.records, self.assignment)


def line_of(record: Record, assignment: Assignment, lang: str) -> str:
    """A submission's result in a line."""
    of = sum(assignment.points[mark["id"]] for mark in record["marks"])
    points = sum(points_of(mark["status"], assignment.points[mark["id"]]) or 0 for mark in record["marks"])
    what = record["problem"][lang] if record["problem"] else f"{points:g} / {of:g}"
    return printable(f"{record['student']}  {record['page'] or record['source']}  {what}")


def run(options: GradeOptions, reporter: Reporter) -> Graded:
    """Grade everything that has not been graded. Raises `UserError`."""
    assignment = read_plan(options)
    submissions, replaced = load(options.submissions)
    submissions = [one for one in submissions if not one.page or one.page in assignment.pages]
    if not submissions:
        raise UserError(f"{options.submissions} holds no notebook (.ipynb) of these exercises: name the folder of the submissions",
                        f"{options.submissions} 里没有这些练习的笔记本（.ipynb）：请给出提交作业所在的文件夹")
    try:
        journal = Journal(options.journal)
        trials = Trials(choose_secret(options, journal))
        grading = Grading(options, assignment, trials, Limits(seconds=options.seconds), folder_names(one.student for one in submissions))
        done, judged = grade_all(grading, submissions, journal, reporter)
        finish(grading, done, reporter)
    except OSError as error:
        raise unwritable(options.out, error) from None
    return Graded(options.out, assignment, done, judged, len(replaced))


def grade_all(grading: Grading, submissions: Sequence[Submission], journal: Journal, reporter: Reporter) -> tuple[list[Record], int]:
    """The records of all submissions, in their order, and how many of them were judged now. Raises `OSError`."""
    keys = [grading.key(one) for one in submissions]
    todo = [one for one, key in zip(submissions, keys) if key not in journal.records]
    found = run_all(grading, todo, grading.options.jobs or usable_cores())
    for submission, run in reporter.watch(found, len(todo), lambda _: 1, " notebooks"):
        record = grading.record(submission, run)
        journal.add(record)
        reporter.above_bar(line_of(record, grading.assignment, "en"), line_of(record, grading.assignment, "zh"))
    return [journal.records[key] for key in keys], len(todo)
