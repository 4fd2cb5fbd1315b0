"""`bertcourse progress`: how many exercises of each chapter are solved."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bertcourse.app.quiz import chosen_language
from bertcourse.base.display import json_of
from bertcourse.base.messages import UserError
from bertcourse.exercises import chart, state
from bertcourse.languages import LANGUAGES


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("--lang", choices=LANGUAGES, help="default: that of your workspace, else of your locale")
    add("--state", type=Path, metavar="FILE", help=f"your progress (default: {state.FILE} in your workspace or ./bertcourse-work)")
    add("--json", action="store_true", help="print one object: each exercise with its state, attempts and hints")


def as_data(rows: Sequence[state.Row], progress: state.Progress, path: Path) -> dict[str, object]:
    """What `--json` prints."""
    pages = [{"page": row.page, "solved": row.solved, "exercises": len(row.states),
              "states": {id: {"state": one, "attempts": progress.attempts(id), "hints": progress.hints(id)} for id, one in row.states.items()}}
             for row in rows]
    return {"file": str(path), "solved": sum(row.solved for row in rows), "exercises": sum(len(row.states) for row in rows), "pages": pages}


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Print progress. Raises `UserError`."""
    lang = chosen_language(args.lang)
    path = (args.state or state.find_file()).expanduser()
    if args.state and not path.exists():
        raise UserError(f"{path} does not exist: name the {state.FILE} of your workspace", f"{path} 不存在：请给出工作区里的 {state.FILE}")
    progress = state.read_progress(path)
    rows = state.rows(progress)
    print(json_of(as_data(rows, progress, path), indent=1) if args.json else chart.progress_plain(rows, path, lang))
    return 0
