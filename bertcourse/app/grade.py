"""`bertcourse grade`: see `bertcourse.grading.marking`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bertcourse.app.options import add_options, parameter_comments
from bertcourse.base.display import printable
from bertcourse.base.messages import plural
from bertcourse.grading.marking import grade, run_grading
from bertcourse.grading.options import GradeOptions
from bertcourse.jobs.reporter import Reporter

if TYPE_CHECKING:
    from bertcourse.grading.running import Graded

COMMON = 5  # mistakes that are named


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    comments = parameter_comments(grade)
    parser.add_argument("submissions", metavar="SUBMISSIONS", type=Path, help=comments["submissions"])
    add_options(parser, grade, GradeOptions, positional=["submissions", "chapters"], json=False, out="FILE", course="DIR", seconds="S")
    parser.add_argument("--chapters", nargs="+", metavar="NAME", help=comments["chapters"])


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Grade, and say what was found: 0. Raises `UserError`."""
    reporter = Reporter(args.quiet)
    for name in ("submissions", "out", "course", "assignment", "seed_file"):
        value = getattr(args, name)
        setattr(args, name, value and Path(value).expanduser())
    options = GradeOptions.of(vars(args))
    found = run_grading(options, reporter)
    if not args.quiet:
        print(printable("\n".join(summary(found, options, reporter.zh)), keep="\n"))
    return 0


def summary(found: Graded, options: GradeOptions, zh: bool) -> list[str]:
    """What was done, the most common mistakes, and where everything is."""
    from bertcourse.grading import reports
    students, notebooks = len(found.totals), len(found.records)
    problems = sum(record["problem"] is not None for record in found.records)
    lines = [f"{students} 名学生，{notebooks} 份笔记本（这次批改 {found.judged} 份，无法批改 {problems} 份，较旧而未计的 {found.replaced} 份）" if zh else
             f"{plural(students, 'student')}, {plural(notebooks, 'notebook')} ({found.judged} graded now, {problems} that cannot be graded, "
             f"{found.replaced} older ones left out)"]
    common = reports.mistake_rows(found.records, found.assignment)[:COMMON]
    if common:
        lines.append("常见错误：" if zh else "common mistakes:")
        lines += [f"  {id}  {name}  {f'{count} 人' if zh else plural(count, 'student')}" for id, name, count, _ in common]
    names = [(found.out, "分数", "points"), (options.beside("-mistakes.csv"), "常见错误", "common mistakes"), (options.feedback, "每名学生的反馈", "a page for each student")]
    lines += [f"{path}：{chinese}" if zh else f"{path}: {english}" for path, chinese, english in names]
    return lines
