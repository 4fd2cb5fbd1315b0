"""Tables of a class: points by student and exercise, and the mistakes that many make."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from bertcourse.base.display import printable
from bertcourse.exercises.definition import Exercise
from bertcourse.exercises.loading import load_sheets
from bertcourse.grading import scoring
from bertcourse.grading.assignment import Assignment

COLUMNS = ("student", "page", "exercise", "title", "points", "max_points", "status", "mistake", "note", "hours_late", "handed_in", "file")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet starts a formula
Record = dict[str, Any]  # what is kept of a submission: see `grading.running`


def cell(value: Any) -> str:
    """A value for a CSV file that people open in a spreadsheet."""
    text = printable("" if value is None else f"{value:g}" if isinstance(value, float) else str(value))
    return f"'{text}" if text.startswith(FORMULA) and isinstance(value, str) else text


def to_csv(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as UTF-8 with the mark by which Excel knows it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8-sig")


def points_of(status: str, most: float) -> float | None:
    """Points for a status: all, none, or not known before a teacher has read the answer."""
    return most if status in scoring.EARNED else None if status == scoring.TO_MARK else 0.0


def hours_late(record: Record, due: datetime | None) -> float | None:
    """How much later than due it was handed in; None where it was in time."""
    if due is None:
        return None
    late = (datetime.fromisoformat(record["modified"]) - due).total_seconds() / 3600
    return round(late, 2) if late > 0 else None


def score_rows(records: Sequence[Record], assignment: Assignment) -> list[list[Any]]:
    """One row for each student and exercise, those that were not handed in with no points."""
    lang, titles = assignment.lang, {entry.id: entry.title for sheet in assignment.sheets for entry in sheet.entries}
    by_key = {(record["student"], record["page"]): record for record in records if record["page"]}
    rows = []
    for student in sorted({record["student"] for record in records}):
        for page in assignment.pages:
            record = by_key.get((student, page))
            marks = {mark["id"]: mark for mark in record["marks"]} if record else {}
            for entry in assignment.entries(page):
                most, mark = assignment.points[entry.id], marks.get(entry.id, {"status": scoring.NOT_HANDED_IN})
                own = [hours_late(record, assignment.due), record["modified"], record["source"]] if record else [None, "", ""]
                rows.append([student, page, entry.id, titles[entry.id][lang], points_of(mark["status"], most), most, mark["status"],
                             mark.get("mistake", ""), (mark.get("note") or {}).get(lang, ""), *own])
    for record in records:
        if not record["page"]:  # which exercises these should have been, nobody knows
            rows.append([record["student"], "", "", "", 0.0, None, scoring.UNREADABLE, "", record["problem"][lang], None, record["modified"],
                         record["source"]])
    return rows


def mistake_rows(records: Sequence[Record], assignment: Assignment) -> list[list[Any]]:
    """Known mistakes with the number of students who made them, the most common first."""
    texts = {}
    for sheet in load_sheets():
        for entry in sheet.entries:
            task = entry.task() if entry.id in assignment.points else None
            texts |= {(entry.id, one.name): one.text[assignment.lang] for one in task.mistakes} if isinstance(task, Exercise) else {}
    made = Counter((mark["id"], mark["mistake"]) for record in records for mark in record["marks"] if mark.get("mistake"))
    return [[id, name, count, texts.get((id, name), "")] for (id, name), count in sorted(made.items(), key=lambda one: (-one[1], one[0]))]


def totals(records: Sequence[Record], assignment: Assignment) -> Mapping[str, float]:
    """Points of each student without those that a teacher gives."""
    found: dict[str, float] = {record["student"]: 0.0 for record in records}
    for record in records:
        for mark in record["marks"]:
            found[record["student"]] += points_of(mark["status"], assignment.points.get(mark["id"], 0.0)) or 0.0
    return found
