"""The options of `grade`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertcourse.base.errors import UserError
from bertcourse.grading.assignment import FILE
from bertcourse.grading.sandbox import check_sandbox, shown_folders
from bertcourse.jobs.folder import check_output_file
from bertcourse.jobs.options import Choice, Options, Real, Whole, option
from bertcourse.languages import LANGUAGES


@dataclass(kw_only=True)
class GradeOptions(Options):
    """The options of `grade`."""

    submissions: Path
    out: Path
    course: Path | None = None
    assignment: Path | None = None
    seed_file: Path | None = None
    chapters: str | int | Sequence[str | int] | None = None
    lang: str | None = option(Choice(*LANGUAGES))
    jobs: int | None = option(Whole(1))
    seconds: float = option(Real(10, 3600), 120.0)
    resume: bool = False
    trust_submissions: bool = False

    def check(self) -> None:
        """Raises `UserError` for what can be said before anything is read."""
        check_output_file(self.out)
        if self.course is not None and not (self.course / FILE).is_file():
            raise UserError(f"{self.course} holds no {FILE}: name the folder that `bertcourse release` made", f"{self.course} 里没有 {FILE}：请给出 `bertcourse release` 生成的文件夹")
        if not self.resume:
            for path in (self.out, self.journal, self.feedback):
                if os.path.lexists(path):
                    raise UserError(f"{path} exists: add --resume to go on with that run, or name another file with --out",
                                    f"{path} 已存在：加上 --resume 可接着批改，或用 --out 换一个文件")
        if not self.trust_submissions:
            check_sandbox()
            self.check_hidden()

    def check_hidden(self) -> None:
        """Raises `UserError` if what a submission must not see lies where Python lies, which is shown to it."""
        for path in filter(None, (self.submissions, self.course, self.out.parent, self.assignment, self.seed_file)):
            place = path.resolve()
            if inside := next((folder for folder in shown_folders() if folder == place or folder in place.parents), None):
                raise UserError(f"{path} lies in {inside}, which every submission can read: move it to a folder outside, or install bertcourse elsewhere",
                                f"{path} 在 {inside} 里，每份作业都能读到：请移到别处，或把 bertcourse 装到别的位置")

    def beside(self, ending: str) -> Path:
        """A name beside the table: `scores.csv` → `scores-feedback`."""
        return self.out.with_name(f"{self.out.name.removesuffix('.csv')}{ending}")

    @property
    def journal(self) -> Path:
        """What was found of each submission, a line each."""
        return self.beside("-journal.jsonl")

    @property
    def feedback(self) -> Path:
        """The folder of the students' pages."""
        return self.beside("-feedback")
