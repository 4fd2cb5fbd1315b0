"""Results in nbgrader's own places: `gradebook.db`, and `autograded` with what its formgrader shows and a teacher marks by hand.

An autograded notebook is made from the one that was handed out. A student's code and text are put into it as text, without outputs and
without anything that a browser would run or fetch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bertcourse.base import atomic
from bertcourse.exercises.definition import Question
from bertcourse.exercises.loading import Entry
from bertcourse.grading import scoring
from bertcourse.grading.assignment import Assignment
from bertcourse.grading.pages import mark_message
from bertcourse.grading.releasing import CELL, student_notebook, to_bytes
from bertcourse.grading.reports import Record, points_of
from bertcourse.grading.scoring import Mark
from bertcourse.grading.submissions import Submission

DATABASE = "gradebook.db"
TIME_FILE = "timestamp.txt"  # in which nbgrader notes when a submission came
OWN_TIME = re.compile(r"\d{4}-\d\d-\d\dT")  # as it is written here; nbgrader has a space in place of the T
LONGEST = 20_000  # characters of a cell
COLUMNS = 96  # of a line of text in nbgrader's formgrader, which does not wrap it


def is_installed() -> bool:
    """Is nbgrader there?"""
    return find_spec("nbgrader") is not None


# --- notebooks ----------------------------------------------------------------------------------------------------

def wrapped(line: str) -> str:
    """A line as several where it is too long to be read at once; a Chinese character is as wide as two letters."""
    columns = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)
    if columns <= COLUMNS:
        return line
    return textwrap.fill(line, COLUMNS * len(line) // columns, expand_tabs=False, replace_whitespace=False, break_on_hyphens=False)


def as_text(source: str) -> str:
    """A student's Markdown as a block of text, whatever it holds."""
    source = source[:LONGEST]
    longest = max((len(run) for run in re.findall(r"`{3,}", source)), default=2)
    fence = "`" * (longest + 1)
    text = "\n".join(wrapped(line) for line in source.split("\n"))
    return f"{fence}text\n{text}\n{fence}"


def source_of(submission: Submission, id: str, name: str) -> str:
    """The student's code for an exercise: the cell that was handed out for it, else the last one that defines the function."""
    own = dict(zip(submission.ids, submission.cells)).get(f"stub-{id.replace('.', '-')}", "")
    defined = re.compile(rf"^\s*def {re.escape(name)}\b", re.MULTILINE)
    if defined.search(own):
        return own[:LONGEST]
    return next((cell[:LONGEST] for cell in reversed(submission.cells) if defined.search(cell)), own[:LONGEST])


def graded_notebook(submission: Submission, marks: Mapping[str, Mark], entries: Mapping[str, Entry], assignment: Assignment) -> dict[str, Any]:
    """The notebook that a teacher looks at."""
    sheet = next(sheet for sheet in assignment.sheets if sheet.page == submission.page)
    notebook, answers, lang = student_notebook(sheet, assignment), dict(submission.answers), assignment.lang
    for cell in notebook["cells"]:
        found = CELL.fullmatch(cell["id"])
        id = f"{found[2]}.{found[3]}" if found else ""
        if id not in marks:
            continue
        if found[1] == "answer":
            cell["source"] = as_text(answers.get(id, "")).splitlines(keepends=True)
        elif found[1] == "stub" and hasattr(entries[id].task(), "name"):
            cell["source"] = source_of(submission, id, entries[id].task().name).splitlines(keepends=True)
        elif found[1] == "check" and not isinstance(entries[id].task(), Question):
            data = {"text/html": mark_message(entries[id], marks[id]).html(lang), "text/plain": mark_message(entries[id], marks[id]).plain(lang)}
            cell["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": data}]
    return notebook


def write_notebook(course: Path, student: str, submission: Submission, marks: Sequence[Mark], assignment: Assignment) -> None:
    """The notebook in `autograded`. Raises `OSError`."""
    entries = {entry.id: entry for entry in assignment.entries(submission.page)}
    place = course / "autograded" / student / submission.page / f"{submission.page}.ipynb"
    place.parent.mkdir(parents=True, exist_ok=True)
    data = to_bytes(graded_notebook(submission, {mark.id: mark for mark in marks}, entries, assignment))
    atomic.replace(place, data)


# --- database -----------------------------------------------------------------------------------------------------

def _naive(moment: datetime | None) -> datetime | None:
    """UTC without a zone, as nbgrader keeps time."""
    return moment and moment.astimezone(UTC).replace(tzinfo=None)


def cell_name(entry: Entry) -> str:
    """The cell that carries an exercise's points."""
    return f"{'answer' if entry.facts.kind == 'Question' else 'check'}-{entry.id.replace('.', '-')}"


def _add_page(gradebook: Any, page: str, assignment: Assignment) -> None:
    """An assignment with its cells; points that have changed since are changed."""
    gradebook.update_or_create_assignment(page, duedate=_naive(assignment.due))
    gradebook.update_or_create_notebook(page, page, kernelspec=json.dumps({"name": "python3", "display_name": "python3", "language": "python"}))
    for entry in assignment.entries(page):
        question = entry.facts.kind == "Question"
        gradebook.update_or_create_grade_cell(cell_name(entry), page, page, max_score=assignment.points[entry.id],
                                              cell_type="markdown" if question else "code")
        if question or entry.stub:
            gradebook.update_or_create_solution_cell(cell_name(entry) if question else f"stub-{entry.id.replace('.', '-')}", page, page)


def note_time(folder: Path, modified: str) -> datetime:
    """When a submission came, as nbgrader finds it in the folder of `submitted`: UTC without a zone. Raises `OSError`.

    nbgrader takes a submission for one that has not been graded unless the gradebook has the time of this file. What nbgrader has written
    itself stays; where there is nothing, or no time, the file is written.
    """
    from nbgrader.utils import parse_utc
    path, own = folder / TIME_FILE, parse_utc(modified)
    if folder.is_symlink() or folder.parent.is_symlink():  # of a student: it may lead anywhere
        return own
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return own
    if path.is_file() and not path.is_symlink():
        text = path.read_bytes()[:100].decode(errors="replace").strip()
        with suppress(ValueError, OverflowError):
            if not OWN_TIME.match(text):
                return parse_utc(text)
    atomic.replace(path, modified.encode())
    return own


def _came_again(gradebook: Any, page: str, student: str, time: datetime) -> bool:
    """Has the gradebook an earlier submission of this page?"""
    from nbgrader.api import MissingEntry
    try:
        return gradebook.find_submission(page, student).timestamp not in (None, time)
    except MissingEntry:
        return False


def _add_marks(gradebook: Any, course: Path, student: str, record: Record, assignment: Assignment) -> None:
    """A student's points for a page; what a teacher has given stays, and is to be looked at again where it was for another answer."""
    page, marks = record["page"], {mark["id"]: mark for mark in record["marks"]}
    time = note_time(course / "submitted" / student / page, record["modified"])
    again = _came_again(gradebook, page, student, time)
    gradebook.update_or_create_student(student)
    gradebook.update_or_create_submission(page, student, timestamp=time.isoformat())
    for entry in assignment.entries(page):
        grade = gradebook.find_grade(cell_name(entry), page, page, student)
        status = marks[entry.id]["status"]
        points = None if status == scoring.UNREADABLE and entry.facts.kind == "Question" else points_of(status, assignment.points[entry.id])
        changed, grade.auto_score = grade.auto_score != points or (again and points is None), points
        if grade.manual_score is None or changed:
            grade.needs_manual_grade = points is None or grade.manual_score is not None
    gradebook.db.commit()


@contextmanager
def _alembic_on_path() -> Iterator[None]:
    """nbgrader asks a program beside Python for the version of its tables: on PATH, and with a locale in which its files can be read."""
    ours = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}", "LC_ALL": "C.UTF-8"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def fill(course: Path, records: Sequence[Record], students: Mapping[str, str], assignment: Assignment) -> None:
    """Write points into the gradebook of a course. Raises `OSError`.

    students: the folder of each student, which is the name in the gradebook, too.
    """
    import sqlalchemy
    from nbgrader.api import Gradebook
    try:
        with _alembic_on_path(), warnings.catch_warnings(), Gradebook(f"sqlite:///{course / DATABASE}", "bertcourse") as gradebook:
            warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)  # of nbgrader's own use of its tables
            for page in assignment.pages:
                _add_page(gradebook, page, assignment)
            for record in records:
                if record["page"]:
                    _add_marks(gradebook, course, students[record["student"]], record, assignment)
    except (sqlalchemy.exc.SQLAlchemyError, subprocess.CalledProcessError) as error:
        raise OSError(None, f"{course / DATABASE}: {str(error).splitlines()[0]}") from None
