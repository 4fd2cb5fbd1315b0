"""`bertcourse serve`: see `bertcourse.jobs.serving`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bertcourse.app.options import add_options
from bertcourse.jobs.serving import ServeOptions, run_service, serve

METAVARS = {"max_wait_ms": "MS", **dict.fromkeys(("timeout", "read_timeout", "keep_alive", "drain"), "S"), "port": "N"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", help="that `bertcourse export` made")
    add_options(parser, serve, ServeOptions, positional=["folder"], required=[], **METAVARS)


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Serve until SIGTERM: 0. Raises `UserError`."""
    return run_service(ServeOptions.of(vars(args)))
