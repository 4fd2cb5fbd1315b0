"""What is graded: the pages, the points of each exercise, and until when; one TOML file that a teacher may edit."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from bertcourse.base.errors import UserError
from bertcourse.exercises.loading import Entry, Sheet, load_sheets
from bertcourse.languages import LANGUAGES

FILE, SEED_FILE = "assignment.toml", "seed.txt"  # in the folder of a course
MOST = 1_000  # points of one exercise
SHORTEST = 16  # bytes of a secret


@dataclass(frozen=True)
class Assignment:
    """Pages with their exercises and points."""

    points: Mapping[str, float]  # by exercise, in the order of the course
    lang: str = "zh"  # of the notebooks that were handed out, and of the feedback
    due: datetime | None = None
    sheets: tuple[Sheet, ...] = field(default=(), repr=False)

    def entries(self, page: str) -> list[Entry]:
        """The exercises of a page that are graded."""
        return [entry for sheet in self.sheets if sheet.page == page for entry in sheet.entries if entry.id in self.points]

    @property
    def pages(self) -> list[str]:
        """The pages with exercises that are graded."""
        return [sheet.page for sheet in self.sheets if any(entry.id in self.points for entry in sheet.entries)]


def choose_sheets(chapters: str | int | Sequence[str | int] | None) -> tuple[Sheet, ...]:
    """The sheets of chapters (4 or "4") and pages ("04_1_tasks"), one or several; all where none is named. Raises `UserError`."""
    sheets = load_sheets()
    is_one = isinstance(chapters, str) or not isinstance(chapters, Iterable)
    names = [] if chapters is None else [chapters] if is_one else list(chapters)
    if not names:
        return sheets
    chosen = []
    for name in map(str, names):
        found = [sheet for sheet in sheets if sheet.page == name or name.isdecimal() and int(sheet.page[:2]) == int(name)]
        if not found:
            pages = [sheet.page for sheet in sheets]
            raise UserError(f"there are no exercises called {name!r}: choose from 1 to 7, or from {', '.join(pages)}",
                            f"没有名为 {name!r} 的练习：请从 1 到 7 或 {'、'.join(pages)} 中选")
        chosen += [sheet for sheet in found if sheet not in chosen]
    return tuple(sheet for sheet in sheets if sheet in chosen)


def default_assignment(sheets: Sequence[Sheet] | None = None, lang: str = "zh", due: datetime | None = None) -> Assignment:
    """Every exercise counts as many points as its level."""
    sheets = load_sheets() if sheets is None else tuple(sheets)
    points = {entry.id: float(entry.facts.level) for sheet in sheets for entry in sheet.entries}
    return Assignment(points, lang, due, tuple(sheets))


# --- the file -----------------------------------------------------------------------------------------------------

HEAD = {
    "zh": "# 作业：截止时间与每道题的分数。批改之前可以随意改；分数为 0 的题不批改。",
    "en": "# The assignment: until when, and how many points each exercise is worth. Change it as you like before grading; 0: not graded.",
}


def to_toml(assignment: Assignment) -> str:
    """The file's text."""
    lang = assignment.lang
    due = f"due = {assignment.due.isoformat()}" if assignment.due else "# due = 2027-01-31T23:59:00+08:00"
    lines = [HEAD[lang], f'lang = "{lang}"', due, "", "[points]"]
    for sheet in assignment.sheets:
        lines.append(f"# {sheet.page}: {sheet.title[lang]}")
        lines += [f'"{entry.id}" = {assignment.points[entry.id]:g}  # {entry.title[lang]}' for entry in sheet.entries if entry.id in assignment.points]
    return "\n".join(lines) + "\n"


def as_due(value: Any) -> datetime | None:
    """A moment with its zone; a day ends at 23:59:59, a time without a zone is this machine's. Raises `ValueError`."""
    if value is None:
        return None
    if isinstance(value, str):
        value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.astimezone()
    if isinstance(value, date):
        return datetime.combine(value, time(23, 59, 59)).astimezone()
    raise ValueError("no date")


def _wrong(path: Path, en: str, zh: str) -> UserError:
    return UserError(f"{path}: {en}", f"{path}：{zh}")


def read_assignment(path: Path) -> Assignment:
    """The assignment in a file. Raises `UserError`."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise _wrong(path, f"it cannot be read ({error.strerror}): name another file", f"无法读取（{error.strerror}）：请换一个文件") from None
    except ValueError as error:
        raise _wrong(path, f"it is no TOML ({error}): fix that line", f"不是有效的 TOML（{error}）：请改正那一行") from None
    if strange := sorted(content.keys() - {"lang", "due", "points"}):
        raise _wrong(path, f"it has {strange[0]!r}, which means nothing here: use lang, due and points", f"里面有不认识的 {strange[0]!r}：只用 lang、due、points")
    if content.get("lang", "zh") not in LANGUAGES:
        raise _wrong(path, f"lang must be one of {', '.join(LANGUAGES)}", f"lang 应为 {'、'.join(LANGUAGES)} 之一")
    try:
        due = as_due(content.get("due"))
    except ValueError:
        raise _wrong(path, "due must be a date such as 2027-01-31, or with a time, 2027-01-31T23:59:00+08:00",
                     "due 应为日期，例如 2027-01-31，或带时间：2027-01-31T23:59:00+08:00") from None
    return Assignment(_read_points(path, content.get("points")), content.get("lang", "zh"), due, load_sheets())


def _read_points(path: Path, points: Any) -> dict[str, float]:
    """The points above 0, in the order of the course. Raises `UserError`."""
    known = [entry.id for sheet in load_sheets() for entry in sheet.entries]
    if not isinstance(points, dict):
        raise _wrong(path, 'it has no [points]: write a line such as "2.1" = 1 for each exercise below it',
                     '缺少 [points]：请在它下面给每道题写一行，例如 "2.1" = 1')
    for id, value in points.items():
        if id not in known:
            raise _wrong(path, f"there is no exercise {id!r}: write its number in quotes, such as \"2.1\"", f"没有练习 {id!r}：请写编号并加引号，例如 \"2.1\"")
        if type(value) not in (int, float) or not 0 <= value <= MOST:
            raise _wrong(path, f"the points of {id} must be a number from 0 to {MOST}", f"{id} 的分数应为 0 到 {MOST} 的数")
    found = {id: float(points[id]) for id in known if points.get(id, 0) > 0}
    if not found:
        raise _wrong(path, "no exercise has points: give at least one more than 0", "没有一道题有分数：请至少给一道大于 0 的分数")
    return found


def read_secret(path: Path) -> bytes:
    """The secret from which hidden inputs are drawn. Raises `UserError`."""
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise _wrong(path, f"the seed cannot be read ({error.strerror}): name another file", f"无法读取种子（{error.strerror}）：请换一个文件") from None
    if not SHORTEST <= len(secret) <= 4096:
        raise _wrong(path, f"a seed of {len(secret)} bytes can be guessed: use at least {SHORTEST}, such as `openssl rand -hex 32` gives"
                     if len(secret) < SHORTEST else "this is no seed: it is longer than 4,096 bytes",
                     f"种子只有 {len(secret)} 字节，容易被猜到：请至少用 {SHORTEST} 字节，例如 `openssl rand -hex 32` 的输出" if len(secret) < SHORTEST else
                     "这不是种子：超过 4,096 字节")  # fmt: skip
    return secret
