"""`bertcourse predict`: see `bertcourse.jobs.predicting`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bertcourse.app.options import add_options, parameter_comments
from bertcourse.app.output import standard_output
from bertcourse.jobs.predicting import PredictOptions, predict, run_predicting
from bertcourse.jobs.reporter import Reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    words = parameter_comments(predict)
    parser.add_argument("model", metavar="DIR", help=words["model"])
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help=words["file"])
    add_options(parser, predict, PredictOptions, positional=["model", "file"], required=[], out="FILE")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Predict and write: 0. Raises `UserError`."""
    run_predicting(PredictOptions.of(vars(args) | {"out": args.out or standard_output()}), Reporter())
    return 0
