"""`bertcourse flashcards`: the cards and interview questions as an Anki deck, or as a CSV file that Anki imports."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from bertcourse.app.quiz import chosen_language
from bertcourse.base.display import json_of, printable
from bertcourse.base.messages import UserError, plural
from bertcourse.languages import LANGUAGES


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="the file to write: .apkg for Anki, .csv for Anki and others")
    add("--lang", choices=LANGUAGES, help="default: that of your workspace, else of your locale")
    add("--chapter", metavar="NAME", help="a chapter (4), a heading (4.3, 8.1), a page (04_2_practice) or a question (Q7)")
    add("--force", action="store_true", help="replace a file that is there")
    add("--json", action="store_true", help="print what was written as JSON")


def unwritable(out: Path, error: Exception) -> UserError:
    """A sentence for a file that the system refuses."""
    why = getattr(error, "strerror", None) or str(error)
    return UserError(f"{out} cannot be written ({why}): name another file", f"{out} 无法写入（{why}）：请换一个文件名")


def check_out(out: Path, force: bool) -> None:
    """Raises `UserError` if the file cannot be written, or would take the place of another."""
    try:
        out.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # a name too long, or with a null byte
        raise unwritable(out, error) from None
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a file", f"{out} 是文件夹：请写出文件名")
    if out.is_symlink() or out.exists():
        if not out.is_file():
            raise UserError(f"{out} is no regular file: name another one", f"{out} 不是普通文件：请换一个文件名")
        if not force:
            raise UserError(f"{out} exists: name another file, or replace it by --force", f"{out} 已经存在：请换一个文件名，或用 --force 覆盖")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: make it, or name another file", f"没有 {folder} 这个文件夹：请先建立，或换一个文件名")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written: name a file in another folder", f"{folder} 不可写：请换一个文件夹")


def write_file(out: Path, data: bytes, force: bool) -> None:
    """Write the file whole or not at all. Raises `UserError`."""
    from bertcourse.base import atomic
    try:
        if force:
            atomic.replace(out, data)
        elif not atomic.create(out, data):
            check_out(out, force)  # somebody else was faster
    except OSError as error:
        raise unwritable(out, error) from None


def run(args: argparse.Namespace, extra: Sequence[str]) -> int:
    """Write the file. Raises `UserError`."""
    from bertcourse.drill import load_bank, select_cards
    from bertcourse.drill.deck import FORMATS, make_flashcards
    lang = chosen_language(args.lang)
    if args.out.suffix.lower() in FORMATS:
        check_out(args.out, args.force)
    bank = load_bank()
    cards = select_cards(bank, args.chapter)
    data = make_flashcards(cards, lang, bank, args.out)
    write_file(args.out, data, args.force)
    if args.json:
        print(json_of({"out": str(args.out), "language": lang, "cards": len(cards), "bytes": len(data)}, indent=1))
    else:
        name = printable(str(args.out))
        print(f"{name}：{len(cards)} 张卡片（中文）" if lang == "zh" else f"{name}: {plural(len(cards), 'card')} in English")
    return 0
