"""A learner's own JSON file: read with care, written whole, under a lock.

The file belongs to the learner. What this version does not know in it stays; one that is damaged or of a newer version is refused and
never written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertcourse.base.bilingual import Text
from bertcourse.base.errors import UserError

LOCK_SECONDS = 10
DEFAULT_FOLDER = Path("bertcourse-work")  # the default of `bertcourse lab`


def find_folder(marker: str, start: Path | None = None) -> Path:
    """The folder at or above `start` (default: the current one) that holds `marker`, else ./bertcourse-work."""
    start = (start or Path.cwd()).absolute()
    found = (folder for folder in (start, *start.parents) if (folder / marker).is_file())
    return next(found, start / DEFAULT_FOLDER)


def unusable(path: Path, error: Exception, remedy: Text) -> UserError:
    """A sentence for a file that cannot be read or written; `remedy` says what to do."""
    why = getattr(error, "strerror", None) or str(error)
    return UserError(f"{path} cannot be used ({why}): {remedy.en}", f"{path} 无法使用（{why}）：{remedy.zh}")


@contextmanager
def locked(path: Path, remedy: Text) -> Iterator[None]:
    """Nobody else writes the file meanwhile. Raises `UserError`."""
    from filelock import FileLock, Timeout
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS)
    try:
        with lock:
            yield
    except Timeout:
        raise UserError(f"{path} has been locked by another process for {LOCK_SECONDS} s: end that one, or {remedy.en}",
                        f"{path} 被另一个进程锁定已有 {LOCK_SECONDS} 秒：请结束那个进程，或{remedy.zh.removeprefix('请')}") from None


def damaged_file(name: str, title: Text, remedy: Text) -> UserError:
    """The sentence for a file whose content is not what its format says."""
    return UserError(f"{name} is damaged or no {title.en}, and was left as it is: rename it, or {remedy.en}",
                     f"{name} 已损坏，或不是{title.zh}，现已原样保留：请给它改名，或{remedy.zh.removeprefix('请')}")


def read_bytes(path: Path, remedy: Text) -> bytes | None:
    """The bytes of a file; None where there is none. Raises `UserError`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unusable(path, error, remedy) from None


@contextmanager
def changing(path: Path, remedy: Text) -> Iterator[Path]:
    """Make the file's folder and lock the file while it is read anew and replaced; yields the file that a link points to.

    Raises `UserError`, for an error of the system in the body, too.
    """
    path = path.expanduser().resolve()  # a link stays a link
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, remedy):
            yield path
    except (OSError, NotImplementedError) as error:  # a file system without locks
        raise unusable(path, error, remedy) from None


def parse(raw: bytes, name: str, format: str, version: int, title: Text, remedy: Text) -> dict[str, Any]:
    """The content of a file of this format; `name` and `title` ("progress of the quiz") are for messages. Raises `UserError`."""
    damaged = damaged_file(name, title, remedy)
    try:
        content = json.loads(raw)
        if not isinstance(content, dict) or content.get("format") != format or type(content["version"]) is not int:
            raise damaged
    except (ValueError, KeyError, RecursionError):
        raise damaged from None
    if content["version"] > version:
        raise UserError(f"{name} was written by a newer bertcourse, and was left as it is: update bertcourse, or {remedy.en}",
                        f"{name} 是较新版本的 bertcourse 写的，现已原样保留：请更新 bertcourse，或{remedy.zh.removeprefix('请')}")
    return content
