"""`bertcourse bench`: see `bertcourse.jobs.benchmarking`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bertcourse.app.options import add_options
from bertcourse.app.output import print_json
from bertcourse.base.display import printable
from bertcourse.jobs.benchmarking import BenchOptions, bench, format_tables, run_benchmark
from bertcourse.jobs.reporter import Reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("models", nargs="+", metavar="DIR", help="checkpoints, or folders that `bertcourse export` made")
    add_options(parser, bench, BenchOptions, positional=["models"], required=[], runtimes="LIST", out="FILE")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Measure and report: 0. Raises `UserError`."""
    reporter = Reporter(args.quiet or args.json)
    found = run_benchmark(BenchOptions.of(vars(args)), reporter)
    if args.json:
        print_json(found)
    elif not args.quiet:
        print(printable(format_tables(found, reporter.zh), keep="\n"))
    return 0
