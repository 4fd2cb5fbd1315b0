"""`bertcourse export`: see `bertcourse.jobs.exporting`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bertcourse.app.options import add_options
from bertcourse.app.output import print_json
from bertcourse.base.display import printable
from bertcourse.jobs.exporting import ExportOptions, export, run_export
from bertcourse.jobs.reporter import Reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="DIR", help="folder of a fine-tuned model, or its owner/name on the hub")
    add_options(parser, export, ExportOptions, positional=["model"], out="FOLDER")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Export and report: 0. Raises `UserError`."""
    done = run_export(ExportOptions.of(vars(args)), Reporter(args.quiet or args.json))
    if args.json:
        print_json(done.report)
    elif not args.quiet:
        print(printable(done.text, keep="\n"), file=sys.stderr)
    return 0
