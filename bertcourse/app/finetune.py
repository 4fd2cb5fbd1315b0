"""`bertcourse finetune`: see `bertcourse.jobs.finetuning`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bertcourse.app.options import add_options
from bertcourse.app.output import print_trained
from bertcourse.jobs.finetuning import FinetuneOptions, finetune, run_finetuning
from bertcourse.jobs.reporter import Reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_options(parser, finetune, FinetuneOptions)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Fine-tune and report: 0, or 130 when interrupted. Raises `UserError`."""
    options = FinetuneOptions.of(vars(args))
    return print_trained(args, lambda: run_finetuning(options, Reporter(args.quiet)))
