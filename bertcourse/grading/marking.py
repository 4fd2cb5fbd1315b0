"""`grade`; what does the work is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bertcourse.grading.options import GradeOptions
from bertcourse.jobs.options import as_path
from bertcourse.jobs.reporter import Reporter

if TYPE_CHECKING:
    from bertcourse.grading.running import Graded


def run_grading(options: GradeOptions, reporter: Reporter) -> Graded:
    """Grade everything that has not been graded. Raises `UserError`."""
    options.check()
    from bertcourse.grading.running import run
    return run(options, reporter)


def grade(
    submissions: str | Path,  # what was handed in: a folder or archive of notebooks, or one notebook
    out: str | Path,  # the table of points (CSV); pages, mistakes and a journal get names beside it
    *,
    course: str | Path | None = None,  # the folder that `release` made: points, due date and seed
    assignment: str | Path | None = None,  # another file of points and due date
    seed_file: str | Path | None = None,  # a secret text from which hidden inputs are drawn (default: the course's, else a new one)
    chapters: str | int | Sequence[str | int] | None = None,  # only these chapters (4) or pages (04_1_tasks)
    lang: str | None = None,  # the language of pages and table (default: the assignment's)
    jobs: int | None = None,  # submissions at a time (default: one for each core)
    seconds: float = 120.0,  # the most that one submission may take
    resume: bool = False,  # go on with a run that was ended
    trust_submissions: bool = False,  # run them without a sandbox, with all your rights: for your own work only
    quiet: bool = False,  # say nothing but errors
) -> Graded:  # records, totals
    "Grade notebooks that nobody trusts, each in a sandbox, and write points, feedback and common mistakes. Raises `UserError`."
    options = GradeOptions(
        submissions=as_path(submissions, "submissions"), out=as_path(out), course=as_path(course, "course"), assignment=as_path(assignment, "assignment"),
        seed_file=as_path(seed_file, "seed_file"), chapters=chapters, lang=lang, jobs=jobs, seconds=seconds, resume=resume,
        trust_submissions=trust_submissions)  # fmt: skip
    return run_grading(options, Reporter(quiet, lang))
