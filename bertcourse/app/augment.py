"""`bertcourse augment`: see `bertcourse.jobs.augmenting`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bertcourse.app.options import add_options, parameter_comments
from bertcourse.app.output import standard_output
from bertcourse.jobs.augmenting import AugmentOptions, augment, run_augmenting
from bertcourse.jobs.reporter import Reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help=parameter_comments(augment)["file"])
    add_options(parser, augment, AugmentOptions, positional=["file"], required=[], json=False, out="FILE")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Augment and write: 0. Raises `UserError`."""
    run_augmenting(AugmentOptions.of(vars(args) | {"out": args.out or standard_output()}), Reporter(args.quiet))
    return 0
