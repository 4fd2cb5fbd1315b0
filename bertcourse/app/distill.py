"""`bertcourse distill`: see `bertcourse.jobs.distilling`, and `bertcourse.jobs.general` for `--method general`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bertcourse.app.options import add_options
from bertcourse.app.output import print_trained
from bertcourse.jobs.distilling import DistillOptions, distill, run_distillation
from bertcourse.jobs.reporter import Reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_options(parser, distill, DistillOptions, student="MODEL", method="METHOD")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Distil and report: 0, or 130 when interrupted. Raises `UserError`."""
    options = DistillOptions.of(vars(args))
    return print_trained(args, lambda: run_distillation(options, Reporter(args.quiet)))
