"""What a learner has solved: one JSON file in the workspace, and its picture.

Two notebooks may write at once: each change is made under a lock on what the file holds then, and the file is replaced in one step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bertcourse.base import atomic, records
from bertcourse.base.bilingual import Text
from bertcourse.exercises.loading import Sheet, load_sheets
from bertcourse.languages import WORKSPACE_FILE

FORMAT, VERSION = "bertcourse exercises", 1
FILE = "progress.json"
VARIABLE = "BERTCOURSE_PROGRESS"  # another file
TITLE = Text("练习的进度文件", "progress of the exercises")
REMEDY = Text(f"请用环境变量 {VARIABLE} 换一个文件", f"name another file with the environment variable {VARIABLE}")
Entry = dict[str, Any]


@dataclass
class Progress:
    """The content of the file; `exercises` are the tables as stored, by id."""

    exercises: dict[str, Entry] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)  # what else the file holds; it is kept

    def is_solved(self, id: str) -> bool:
        """Was the exercise solved at some time?"""
        return "solved" in self.exercises.get(id, {})

    def attempts(self, id: str) -> int:
        """How many answers were checked, those that were not attempted left out."""
        return self.exercises.get(id, {}).get("attempts", 0)

    def hints(self, id: str) -> int:
        """How many hints were shown."""
        return self.exercises.get(id, {}).get("hints", 0)

    def to_bytes(self) -> bytes:
        """As it is stored."""
        content = {**self.rest, "format": FORMAT, "version": VERSION, "exercises": self.exercises}
        return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


# --- the file -----------------------------------------------------------------------------------------------------

def find_file(start: Path | None = None) -> Path:
    """Where progress lies: the file that `BERTCOURSE_PROGRESS` names, else in the workspace, else in ./bertcourse-work."""
    if name := os.environ.get(VARIABLE):
        return Path(name).expanduser()
    return records.find_folder(WORKSPACE_FILE, start) / FILE


def _check_entry(entry: Any) -> None:
    """Raises `ValueError`, `TypeError` or `AttributeError` for a table that no check of ours leaves."""
    for name in ("attempts", "hints"):
        if type(entry.get(name, 0)) is not int or entry.get(name, 0) < 0:
            raise ValueError(name)
    for name in ("first", "solved", "solution"):
        if name in entry:
            datetime.fromisoformat(entry[name])


def read_progress(path: Path) -> Progress:
    """The progress in a file; an empty one where there is no file. Raises `UserError`."""
    raw = records.read_bytes(path, REMEDY)
    if raw is None:
        return Progress()
    content = records.parse(raw, str(path), FORMAT, VERSION, TITLE, REMEDY)
    try:
        for entry in content["exercises"].values():
            _check_entry(entry)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise records.damaged_file(str(path), TITLE, REMEDY) from None
    rest = {key: value for key, value in content.items() if key not in ("format", "version", "exercises")}
    return Progress(content["exercises"], rest)


def change(id: str, update: Callable[[Entry], None], path: Path | None = None) -> Progress:
    """Change the table of one exercise in the file; what another process has written stays. Raises `UserError`."""
    with records.changing(path or find_file(), REMEDY) as file:
        progress = read_progress(file)
        update(progress.exercises.setdefault(id, {}))
        atomic.replace(file, progress.to_bytes())
    return progress


def now() -> str:
    """This moment in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


def record_attempt(id: str, is_correct: bool, path: Path | None = None) -> Progress:
    """Count a checked answer; the first right one is remembered for good. Raises `UserError`."""
    def update(entry: Entry) -> None:
        entry["attempts"] = entry.get("attempts", 0) + 1
        entry.setdefault("first", now())
        if is_correct:
            entry.setdefault("solved", now())
    return change(id, update, path)


def record_hint(id: str, number: int, path: Path | None = None) -> Progress:
    """Remember that the hints up to `number`, from 1, were shown. Raises `UserError`."""
    return change(id, lambda entry: entry.update(hints=max(number, entry.get("hints", 0))), path)


def record_solution(id: str, path: Path | None = None) -> Progress:
    """Remember that the solution was shown. Raises `UserError`."""
    return change(id, lambda entry: entry.setdefault("solution", now()), path)


# --- by chapter ---------------------------------------------------------------------------------------------------

SOLVED, SHOWN, TRIED, OPEN = "solved", "solution seen", "tried", "open"


def state(entry: Mapping[str, Any]) -> str:
    """How far an exercise is: one of the four states."""
    if "solved" in entry:
        # Solved after the solution was looked at is worth knowing, for the learner alone.
        return SHOWN if entry.get("solution", "9999") < entry["solved"] else SOLVED
    return TRIED if entry.get("attempts") else OPEN


@dataclass(frozen=True)
class Row:
    """The exercises of one notebook, and how far each is."""

    page: str
    title: Text
    states: dict[str, str]  # by id

    @property
    def solved(self) -> int:
        """How many are solved."""
        return sum(one in (SOLVED, SHOWN) for one in self.states.values())


def rows(progress: Progress, sheets: tuple[Sheet, ...] | None = None) -> list[Row]:
    """One row for each notebook of exercises."""
    sheets = load_sheets() if sheets is None else sheets
    return [Row(sheet.page, sheet.title, {entry.id: state(progress.exercises.get(entry.id, {})) for entry in sheet.entries}) for sheet in sheets]
