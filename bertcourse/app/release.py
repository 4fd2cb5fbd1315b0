"""`bertcourse release`: see `bertcourse.grading.releasing`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bertcourse.app.options import add_options, parameter_comments
from bertcourse.base.display import printable
from bertcourse.base.messages import plural, reader_language
from bertcourse.grading.releasing import ReleaseOptions, release, run_release


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("out", metavar="DIR", help=parameter_comments(release)["out"])
    add_options(parser, release, ReleaseOptions, positional=["out", "chapters", "lang"], json=False, due="DATE")
    parser.add_argument("--chapters", nargs="+", metavar="NAME", help=parameter_comments(release)["chapters"])
    parser.add_argument("--lang", choices=("zh", "en"), default=reader_language(), help=parameter_comments(release)["lang"])


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Write the folder and say what is in it: 0. Raises `UserError`."""
    from pathlib import Path
    args.out = Path(args.out).expanduser()
    found = run_release(ReleaseOptions.of(vars(args)))
    pages, points = len(found.pages), sum(found.points.values())
    if reader_language() == "zh":
        lines = [f"{args.out / 'release'}：{pages} 份练习，共 {points:g} 分，发给学生",
                 f"{args.out / 'assignment.toml'}：截止时间与分数，批改之前可以改",
                 f"{args.out / 'seed.txt'}：隐藏输入的种子，不要发出去"]
    else:
        lines = [f"{args.out / 'release'}: {plural(pages, 'notebook')} with {points:g} points, for the students",
                 f"{args.out / 'assignment.toml'}: due date and points, to be changed as you like before grading",
                 f"{args.out / 'seed.txt'}: the seed of the hidden inputs, to be kept to yourself"]
    print("\n".join(map(printable, lines)))
    return 0
