"""Notebooks as students hand them in, for the tests of grading."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertcourse.exercises.definition import Exercise
from bertcourse.exercises.feedback import solution_source
from bertcourse.exercises.loading import Entry, load_sheets
from bertcourse.grading.assignment import default_assignment
from bertcourse.grading.releasing import student_notebook


def sheet_of(page: str):
    """The sheet of a page."""
    return next(sheet for sheet in load_sheets() if sheet.page == page)


@functools.cache
def _handed_out(page: str, lang: str) -> str:
    return json.dumps(student_notebook(sheet_of(page), default_assignment([sheet_of(page)], lang)))


def handed_out(page: str, lang: str = "en") -> dict[str, Any]:
    """The notebook of a page as students get it."""
    return json.loads(_handed_out(page, lang))


def solution_cell(entry: Entry) -> str:
    """A right answer as a cell that runs by itself."""
    imports = [line for line in entry.definition.splitlines() if line.startswith(("import ", "from ")) and "bertcourse.exercises" not in line]
    return "\n".join(imports) + "\n\n\n" + solution_source(entry.task())


def solved(page: str, lang: str = "en", answers: Mapping[str, str] | None = None, leave: tuple[str, ...] = ()) -> dict[str, Any]:
    """The notebook with right answers; answers: other sources for some exercises; leave: exercises that stay as they were."""
    notebook = copy.deepcopy(handed_out(page, lang))
    for entry in sheet_of(page).entries:
        if isinstance(entry.task(), Exercise) and entry.id not in leave:
            cell = next(cell for cell in notebook["cells"] if cell["id"] == f"stub-{entry.id.replace('.', '-')}")
            cell["source"] = (answers or {}).get(entry.id, solution_cell(entry)).splitlines(keepends=True)
    return notebook


def write(folder: Path, name: str, notebook: Any) -> Path:
    """A notebook, or any bytes, as a file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode())
    return path
