"""What commands print at the end: a summary for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from bertcourse.base.display import json_of, printable
from bertcourse.base.json_files import finite
from bertcourse.base.messages import reader_language
from bertcourse.jobs.reporter import is_main_process
from bertcourse.jobs.result import Trained
from bertcourse.jobs.stopping import Stopped

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def standard_output() -> TextIO:
    """Standard output for JSON lines, which are UTF-8 whatever the terminal's encoding is."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    return sys.stdout


def print_json(value: Any) -> None:
    """One object, for programs."""
    print(json_of(finite(value), indent=1))


def print_trained(args: argparse.Namespace, train: Callable[[], Trained], **about: str) -> int:
    """Let a job train and print what came of it: 0, or 130 when it was interrupted. about: for the JSON of an interrupted run."""
    try:
        done = train()
    except Stopped as stopped:
        return print_stopped(args, stopped, about)
    if not is_main_process():
        return 0
    if args.json:
        print_json({"out": str(args.out)} | done.metrics)
    elif not args.quiet:
        print(printable(done.text, keep="\n"))
    return 0


def print_stopped(args: argparse.Namespace, stopped: Stopped, about: Mapping[str, str]) -> int:
    """Say what an interrupted run has left and how to go on; returns 130."""
    if is_main_process():
        if args.json:
            print(json.dumps({"out": str(args.out), **about, "finished": False, "step": stopped.step}))
        print(f"bertcourse: {printable(stopped.text(reader_language()))}", file=sys.stderr)
    return INTERRUPTED
