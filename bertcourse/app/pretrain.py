"""`bertcourse pretrain`: see `bertcourse.jobs.pretraining`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bertcourse.app.options import add_options
from bertcourse.app.output import print_trained
from bertcourse.jobs.pretraining import PretrainOptions, pretrain, run_pretraining
from bertcourse.jobs.reporter import Reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_options(parser, pretrain, PretrainOptions, tokenizer="DIR", config="TOML")


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Pre-train and report: 0, or 130 when interrupted. Raises `UserError`."""
    options = PretrainOptions.of(vars(args))
    return print_trained(args, lambda: run_pretraining(options, Reporter(args.quiet)), task="pretraining")
