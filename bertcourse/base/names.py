"""Names of the models that come with the course, and how they are told from files and folders."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bertcourse.base.errors import UserError

PREFIX = "bertcourse:"  # says that the course's own is meant
MODELS = ("tiny", "base")


def built_in(name: str, names: Sequence[str] = MODELS) -> str | None:
    """Which of `names` a user's word means; None for a folder or a model of the hub.

    Raises `UserError` where a file or folder in the working directory is called so, too: nobody knows which one is meant.
    """
    if name.startswith(PREFIX):
        found = name.removeprefix(PREFIX)
        if found in names:
            return found
        every = [PREFIX + one for one in names]
        raise UserError(f"the course has no {name!r}: write {' or '.join(every)}", f"课程没有 {name!r}：请写 {' 或 '.join(every)}")
    if name not in names:
        return None
    if os.path.lexists(name):
        raise UserError(f"{name} is both a model of the course and a path here: write {PREFIX}{name} or .{os.sep}{name}",
                        f"{name} 既是课程自带的模型，又是这里的一个路径：请写 {PREFIX}{name} 或 .{os.sep}{name}")
    return name


def check_utf8(path: str | os.PathLike[str]) -> None:
    """Raises `UserError` for the folder of a model whose path is not UTF-8: safetensors and tokenizers cannot open files in it."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError as error:
        shown = os.fsencode(path).decode("utf-8", "replace")
        raise UserError(f"{shown} is not UTF-8 at byte {error.start}, and a model cannot be kept there: rename the folder, or choose another",
                        f"{shown} 的第 {error.start} 个字节不是 UTF-8，模型不能放在那里：请给文件夹改名，或换一个文件夹") from None
