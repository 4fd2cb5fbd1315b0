"""Find the notebooks of many students: folders, single files, archives of a learning platform. Nothing is unpacked to the disk.

Whatever is damaged, huge or foreign becomes a submission with a problem; nothing here stops for one student's file.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bertcourse.base.atomic import digest
from bertcourse.base.bilingual import Text
from bertcourse.base.errors import UserError
from bertcourse.exercises.loading import load_sheets

LARGEST = 10_000_000  # bytes of one notebook
ARCHIVE, BULK = 100_000_000, 2_000_000_000  # bytes of what a student's archive holds, archives in it included; of that of a class
ANSWER_LENGTH = 20_000  # characters of one cell with an answer
CODE = 2_000_000  # characters of all code cells of a notebook
ENTRIES = 20_000  # of an archive, or of a folder
CELLS = 2_000  # of a notebook
DEEP = 8  # folders in folders
OTHER_FILES = re.compile(r"\.(?:rar|7z|tar|gz|tgz|xz|bz2)$|\.ipynb\b", re.IGNORECASE)  # what is meant as a submission, and is none
PLATFORM = re.compile(r"_\d+_assignsubmission_(?:file|onlinetext)_?$")  # what Moodle adds to a student's name
CANVAS = re.compile(r"^(.+?)(?:_LATE)?_(\d+)_\d+_?(?:-\d+)?$")  # what Canvas makes of it: the student, two numbers
COPY = re.compile(r"^(?:copy of|副本|的副本|[“”\"'\s_()\d-])*$", re.IGNORECASE)  # what Colab and browsers add to a file's name
SKIPPED = (".ipynb_checkpoints", "__MACOSX")


@dataclass(frozen=True)
class Found:
    """A file that may be a student's notebook."""

    place: tuple[str, ...]  # the folders that it was in, an archive among them, and its name
    modified: datetime
    data: bytes = b""
    problem: Text | None = None  # why it cannot be graded

    @property
    def source(self) -> str:
        """Where it was, relative to what was given."""
        return "/".join(self.place)


class Room:
    """How many bytes an archive, with all archives in it, may still hold."""

    def __init__(self, size: int) -> None:
        self.left = size


@dataclass(frozen=True)
class Submission:
    """A student's notebook of one page of exercises, or a file that is none."""

    student: str
    source: str
    modified: datetime
    page: str = ""  # "" where it is not known which
    cells: tuple[str, ...] = ()  # sources of code cells
    ids: tuple[str, ...] = ()  # their ids
    answers: tuple[tuple[str, str], ...] = ()  # text of the cells for answers, by exercise
    digest: str = ""
    problem: Text | None = None


def _pages() -> list[str]:
    return [sheet.page for sheet in load_sheets()]


# --- files --------------------------------------------------------------------------------------------------------

def _problem(found: Found, zh: str, en: str) -> Found:
    return replace(found, data=b"", problem=Text(zh, en))


def _too_large(found: Found) -> Found:
    limit = LARGEST // 10**6
    return _problem(found, f"文件超过 {limit} MB：请清除输出后重新提交", f"the file is larger than {limit} MB: clear its outputs and hand it in again")


def _open(path: Path) -> BinaryIO:
    """A regular file for reading; not a link, not a device that would wait. Raises `OSError`."""
    return open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")


def _read_file(path: Path, place: tuple[str, ...], bulk: bool = False) -> Iterator[Found]:
    """The notebook in a file, or those in an archive; a link or a device is not opened. bulk: the archive is that of a class."""
    status = path.lstat()
    found = Found(place, datetime.fromtimestamp(status.st_mtime, UTC))
    is_archive = path.suffix.lower() == ".zip"
    if not stat.S_ISREG(status.st_mode):
        yield _problem(found, "不是普通文件（例如链接），没有打开", "it is no regular file (a link, perhaps), and was not opened")
    elif not is_archive and path.suffix.lower() != ".ipynb":
        yield _problem(found, "不是笔记本（.ipynb）或 zip 压缩包", "it is neither a notebook (.ipynb) nor a zip archive")
    elif status.st_size > LARGEST and not is_archive:
        yield _too_large(found)
    else:
        try:
            with _open(path) as file:
                if is_archive:
                    yield from _read_archive(file, found, Room(BULK if bulk else ARCHIVE), bulk)
                else:
                    yield replace(found, data=file.read(LARGEST + 1))
        except OSError as error:
            yield _problem(found, f"无法读取（{error.strerror}）", f"it cannot be read ({error.strerror})")


def _files(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Notebooks and archives below a folder, in order; links to folders are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda one: os.fsencode(one.name)):
        if entry.name in SKIPPED or entry.name.startswith("._"):
            continue
        if entry.is_dir(follow_symlinks=False):
            if depth < DEEP:
                yield from _files(Path(entry.path), depth + 1)
        elif entry.name.lower().endswith((".ipynb", ".zip")) or OTHER_FILES.search(entry.name) or entry.is_symlink():
            yield Path(entry.path)


# --- archives -----------------------------------------------------------------------------------------------------

def _entry_name(info: zipfile.ZipInfo) -> str:
    """The name of an archive's entry; without the flag for UTF-8 it may be UTF-8 all the same, or Chinese Windows'."""
    if info.flag_bits & 0x800:
        return info.filename
    raw = info.filename.encode("cp437", "replace")
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return info.filename


def _modified(info: zipfile.ZipInfo) -> datetime:
    try:
        return datetime(*info.date_time).astimezone(UTC)
    except (ValueError, OverflowError):
        return datetime.fromtimestamp(0, UTC)


def _read_archive(file: BinaryIO, found: Found, room: Room, bulk: bool = False, nested: bool = False) -> Iterator[Found]:
    """The notebooks of an archive. bulk: a platform wrote it, and its dates are when students handed in; a student's own may say anything."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            if len(infos) > ENTRIES:
                yield _problem(found, f"压缩包里的文件超过 {ENTRIES} 个", f"the archive holds more than {ENTRIES} files")
                return
            yield from _read_entries(archive, infos, found, room, bulk, nested)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OverflowError):
        yield _problem(found, "压缩包已损坏，或不是 zip", "the archive is damaged, or no zip")


def _parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    """The folders and the name of an entry, whatever tries to lead out of the archive left out."""
    return tuple(part for part in PurePosixPath(_entry_name(info).replace("\\", "/")).parts if part not in ("/", "..", "."))


def _read_entries(archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo], found: Found, room: Room, bulk: bool, nested: bool) -> Iterator[Found]:
    any_notebook = False
    for info in infos:
        parts = _parts(info)
        ending = PurePosixPath(parts[-1]).suffix.lower() if parts else ""
        if any(part in SKIPPED for part in parts) or ending not in (".zip", ".ipynb") or parts[-1].startswith("._"):
            continue
        any_notebook = True
        one = Found((*found.place, *parts), _modified(info) if bulk else found.modified)
        if room.left <= 0:
            yield _problem(one, "压缩包展开后太大", "the archive holds too much")
            return
        content = _read_entry(archive, info, one, LARGEST if ending == ".ipynb" else min(room.left, ARCHIVE))
        room.left -= max(len(content.data), 1)
        if ending == ".ipynb" or content.problem:
            yield content
        elif nested:
            yield _problem(one, "压缩包里套了太多层压缩包", "there are archives in archives in archives")
        else:
            yield from _read_archive(io.BytesIO(content.data), replace(content, data=b""), room, nested=True)
    if not any_notebook:
        yield _problem(found, "压缩包里没有笔记本（.ipynb）", "the archive holds no notebook (.ipynb)")


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, found: Found, limit: int) -> Found:
    """One entry, never more of it than the limit whatever its header says."""
    if stat.S_ISLNK(info.external_attr >> 16):
        return _problem(found, "压缩包里的是链接，不是文件", "the archive holds a link in place of a file")
    if info.flag_bits & 0x1:
        return _problem(found, "压缩包有密码", "the archive has a password")
    try:
        with archive.open(info) as file:
            data = file.read(limit + 1)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError, ValueError, zipfile.zlib.error):
        return _problem(found, "压缩包里的这个文件已损坏", "this file of the archive is damaged")
    return _too_large(found) if len(data) > limit else replace(found, data=data)


# --- whose it is --------------------------------------------------------------------------------------------------

def _without_page(name: str) -> str:
    """What a file's name says besides the page; "" where that is nothing."""
    stem = PurePosixPath(name).stem
    for page in _pages():
        if page in stem:
            rest = re.sub(r"-\d+$", "", re.sub(rf"[ _.\-]*{re.escape(page)}", "", stem)).strip(" _.-")
            return "" if COPY.match(rest) else rest
    return stem


def owners_of(place: tuple[str, ...]) -> tuple[str, str]:
    """Whose file it is by where it was, and by the folder below that, for a folder that turns out to hold several students'.

    A folder that a platform has named says it; else the first folder or archive; else the file's own name without the page.
    """
    names = tuple(unicodedata.normalize("NFC", part) for part in place)
    named = [part for part in names[:-1] if PLATFORM.search(part)]
    if named:
        return named[-1], named[-1]
    if len(names) > 1:
        first = names[0][:-4] if names[0].lower().endswith(".zip") else names[0]
        below = names[1] if len(names) > 2 else _without_page(names[1]) if _page_in_name(names[1]) else ""
        return first, f"{first}/{below}" if below else first
    own = _without_page(names[0]) or PurePosixPath(names[0]).stem
    canvas = CANVAS.match(own)
    own = f"{canvas[1]}_{canvas[2]}" if canvas else own
    return own, own


def without_platform(names: Iterable[str]) -> dict[str, str]:
    """Students' names without what a platform adds, where they stay apart."""
    short = {name: PLATFORM.sub("", name) or name for name in names}
    count = Counter(short.values())
    return {name: one if count[one] == 1 else name for name, one in short.items()}


def find(root: Path) -> Iterator[Found]:
    """Everything that was handed in: in a folder, an archive or a single notebook. Raises `UserError`."""
    if root.is_file():
        place = () if root.suffix.lower() == ".zip" else (root.name,)
        yield from _read_file(root, place, bulk=True)
        return
    if not root.is_dir():
        raise UserError(f"{root} does not exist: name the folder or archive of the submissions", f"{root} 不存在：请给出提交作业所在的文件夹或压缩包")
    for count, path in enumerate(_files(root)):
        if count == ENTRIES:
            raise UserError(f"{root} holds more than {ENTRIES:,} notebooks: name a smaller folder", f"{root} 里的笔记本超过 {ENTRIES:,} 个：请给出小一些的文件夹")
        yield from _read_file(path, path.relative_to(root).parts)


# --- what it is ---------------------------------------------------------------------------------------------------

def _source(cell: dict) -> str:
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(source)
    if not isinstance(source, str):
        raise ValueError("source")
    return source.encode("utf-8", "replace").decode()  # lone surrogates: no Python source holds them


def _page_in_name(source: str) -> str:
    """The page that a file's name says, or ""."""
    return next((page for page in _pages() if page in PurePosixPath(source).name), "")


def _page_of(notebook: dict, source: str, cells: Sequence[str]) -> str:
    """Which page of exercises a notebook is: by what `release` wrote, by its name, by its checks."""
    sheets = {sheet.page: sheet for sheet in load_sheets()}
    metadata = notebook.get("metadata")
    noted = metadata.get("bertcourse") if isinstance(metadata, dict) else None
    if isinstance(noted, dict) and noted.get("page") in list(sheets):
        return noted["page"]
    if named := _page_in_name(source):
        return named
    asked = {one for cell in cells for one in re.findall(r"check\(\s*['\"](\d\.\d+)['\"]", cell)}
    owner = {entry.id: sheet.page for sheet in sheets.values() for entry in sheet.entries}
    pages = [owner[one] for one in sorted(asked) if one in owner]
    return max(set(pages), key=pages.count) if pages else ""


ANSWER = re.compile(r"answer-(\d)-(\d+)(?:-en)?")
HEADING = re.compile(r"^## (\d\.\d+) ", re.MULTILINE)


def _answers(cells: Sequence[dict]) -> tuple[tuple[str, str], ...]:
    """What stands in the cells for answers to questions, by exercise: known by their ids, else as text below the exercise's own."""
    found, current = [], ""
    for cell in cells:
        metadata = cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
        noted = metadata.get("nbgrader") if isinstance(metadata.get("nbgrader"), dict) else {}
        number = ANSWER.fullmatch(str(cell.get("id", ""))) or ANSWER.fullmatch(str(noted.get("grade_id", "")))
        if number:
            found.append((f"{number[1]}.{number[2]}", _source(cell)[:ANSWER_LENGTH]))
        elif cell.get("cell_type") == "markdown" and "id" not in cell:
            text = _source(cell)
            if heading := HEADING.search(text):
                current = heading[1]
            elif current and text.strip():
                found.append((current, text[:ANSWER_LENGTH]))
    return _joined(found)


def _joined(found: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """One text for each exercise."""
    texts: dict[str, list[str]] = {}
    for id, text in found:
        texts.setdefault(id, []).append(text)
    return tuple((id, "\n\n".join(parts)) for id, parts in texts.items())


def read(found: Found) -> Submission:
    """The notebook in a file; never raises for what the file holds."""
    start = Submission("", found.source, found.modified, _page_in_name(found.source), digest=digest(found.data), problem=found.problem)
    if found.problem:
        return start
    try:
        notebook = json.loads(found.data.decode("utf-8-sig"))
        cells = notebook["cells"]
        if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
            raise ValueError("cells")
    except (ValueError, TypeError, KeyError, RecursionError):
        return replace(start, problem=Text("不是有效的笔记本", "it is no valid notebook"))
    if len(cells) > CELLS:
        return replace(start, problem=Text(f"笔记本有超过 {CELLS} 个单元", f"the notebook has more than {CELLS:,} cells"))
    try:
        code = tuple(_source(cell) for cell in cells if cell.get("cell_type") == "code")
        page = _page_of(notebook, found.source, code)
        if sum(map(len, code)) > CODE:
            return replace(start, problem=Text(f"代码超过 {CODE // 10**6} MB", f"its code is longer than {CODE // 10**6} MB"))
        ids = tuple(str(cell.get("id", ""))[:64] for cell in cells if cell.get("cell_type") == "code")
        start = replace(start, page=page, cells=code, ids=ids, answers=_answers(cells))
    except (ValueError, TypeError):
        return replace(start, problem=Text("笔记本里的单元已损坏", "cells of the notebook are damaged"))
    if not page:
        return replace(start, cells=(), problem=Text("不是这门课的练习", "these are no exercises of the course"))
    kernel = notebook["metadata"].get("kernelspec") if isinstance(notebook.get("metadata"), dict) else None
    if isinstance(kernel, dict) and str(kernel.get("language", "python")).lower() != "python":
        return replace(start, problem=Text("笔记本用的不是 Python 内核", "the notebook is for another kernel than Python"))
    return start


def _rank(one: Submission) -> tuple[bool, datetime, str]:
    """Which of several counts: one that can be graded, the last, and of equal times the last by name."""
    return one.problem is None, one.modified, one.source


def load(root: Path) -> tuple[list[Submission], list[Submission]]:
    """What was handed in, one notebook a student and page, the last that can be graded; and those that a later one has replaced.

    A folder with the same page in several folders below is one of several students. Raises `UserError`.
    """
    if root.is_dir() and (root / "assignment.toml").is_file():
        raise UserError(f"{root} is a course, no folder of submissions: name {root / 'submitted'}", f"{root} 是课程文件夹，不是提交的作业：请给出 {root / 'submitted'}")
    kept: dict[tuple[str, str, str], Submission] = {}
    replaced = []
    for found in find(root):
        one, (first, second) = read(found), owners_of(found.place or ("?",))
        key = (first, second, one.page or one.source)
        old = kept.get(key)
        if old is not None:
            replaced.append(replace(min(old, one, key=_rank), cells=(), answers=()))
            one = max(old, one, key=_rank)
        kept[key] = one
    several = {first for (first, page), count in Counter((first, page) for first, _, page in kept).items() if count > 1}
    owners = {key: key[1] if key[0] in several else key[0] for key in kept}
    names = without_platform(set(owners.values()))
    found = [replace(one, student=names[owners[key]]) for key, one in kept.items()]
    return sorted(found, key=lambda one: (one.student, one.page, one.source)), replaced
