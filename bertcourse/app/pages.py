"""What a page of the workspace has besides the course's own cells: how to run it, how long it takes, where it goes on.

The pages of `nbs/` do without: the site has its own navigation and runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from bertcourse.base.messages import plural
from bertcourse.base.text import HAN
from bertcourse.experiments import show_timing, timing

INDEX = "README.md"  # the workspace's own page
FRONT = "index.ipynb"
FOLDER = "exercises"
CHAPTER = re.compile(r"\d\d_\w*\.ipynb")
WORDS_A_MINUTE, CHARACTERS_A_MINUTE = 150, 250  # read aloud: English words, Chinese characters
CHINESE = re.compile(f"[{HAN}]")
WORD = re.compile(r"[A-Za-z0-9][\w'’.,%-]*")

Cell = dict[str, Any]

HOW = {
    "zh": """**怎样运行这一页**：点一下单元格，按 Shift+Enter，它就运行，并选中下一个。后面的单元用到前面的结果，请从头开始；\
菜单 *Run → Run All Cells* 一次运行全部，*Kernel → Restart Kernel…* 清空一切、重新开始。

时间：{time}。""",
    "en": """**How to run this page.** Click a cell and press Shift+Enter: it runs, and the next one is selected. Cells use the results \
of those above them, so begin at the top; *Run → Run All Cells* runs all of them, *Kernel → Restart Kernel…* starts again from nothing.

Time: {time}.""",
}
KERNEL = {
    "zh": """import sys
from importlib.util import find_spec

if find_spec("bertcourse") is None:
    raise ModuleNotFoundError(
        f"这个内核用的 Python（{sys.executable}）里没有 bertcourse。请用 bertcourse lab 打开课程，"
        "或换成装有 bertcourse 的 Python：Kernel > Change Kernel…（VS Code：右上角 Select Kernel）。")
""",
    "en": """import sys
from importlib.util import find_spec

if find_spec("bertcourse") is None:
    raise ModuleNotFoundError(
        f"The Python of this kernel ({sys.executable}) has no bertcourse. Open the course with "
        "`bertcourse lab`, or choose the Python in which bertcourse is installed: "
        "Kernel > Change Kernel… (VS Code: Select Kernel, at the top right).")
""",
}
TIMING = """
from bertcourse.experiments import timing
timing("{name}")"""
CHAPTER_OF = {"zh": "对应的章：[{title}]({link})", "en": "The chapter: [{title}]({link})"}
NEXT_EXERCISES = {"zh": "下一份练习：[{title}]({link})", "en": "The next exercises: [{title}]({link})"}
NEXT = {"zh": "下一章：[{title}]({link})", "en": "The next chapter: [{title}]({link})"}
LAST = {"zh": "这是最后一章。[全部章节]({link})", "en": "This is the last chapter. [All chapters]({link})"}
BACK = {"zh": "[全部章节]({link})", "en": "[All chapters]({link})"}


# --- how long -----------------------------------------------------------------------------------------------------

def reading_minutes(cells: Sequence[Cell]) -> int:
    """Minutes to read the prose of a page aloud, code and formulas left out; at least 1."""
    prose = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    prose = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`|\]\([^)]*\)", " ", prose, flags=re.DOTALL)
    characters, words = len(CHINESE.findall(prose)), len(WORD.findall(CHINESE.sub(" ", prose)))
    return max(1, round(characters / CHARACTERS_A_MINUTE + words / WORDS_A_MINUTE))


def duration(seconds: float, lang: str) -> str:
    """`about 13 s`, `about 2 minutes`."""
    if seconds < 90:
        return f"约 {max(1, round(seconds))} 秒" if lang == "zh" else f"about {max(1, round(seconds))} s"
    return f"约 {round(seconds / 60)} 分钟" if lang == "zh" else f"about {round(seconds / 60)} minutes"


def time_needed(name: str, cells: Sequence[Cell], lang: str) -> str:
    """How long it takes to read a page and, where that was measured, to run it; no full sentence."""
    minutes = reading_minutes(cells)
    text = f"阅读约 {minutes} 分钟（不算代码）" if lang == "zh" else f"about {plural(minutes, 'minute')} to read (code not counted)"
    if entry := timing(PurePosixPath(name).stem).entry:
        running = duration(entry["seconds"], lang)
        text += f"，运行全部单元{running}" if lang == "zh" else f", {running} to run all cells"
    return text


# --- the cells ----------------------------------------------------------------------------------------------------

def title(notebook: Mapping[str, Any]) -> str:
    """The first top heading, or an empty string."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and (found := re.match(r"# (.+)", "".join(cell["source"]))):
            return found[1].strip()
    return ""


def _cell(kind: str, id: str, text: str) -> Cell:
    code = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "id": id, "metadata": {}, "source": text.splitlines(keepends=True), **code}


def _is_timing(cell: Cell, name: str) -> bool:
    """The cell at the head of a chapter that shows how long it takes."""
    return cell["cell_type"] == "code" and "".join(cell["source"]).rstrip().endswith(f'timing("{name}")')


def first_cells(name: str, cells: Sequence[Cell], lang: str) -> list[Cell]:
    """A page's cells, after its title: how to run it; its first code cell says what to do where the kernel has no bertcourse."""
    stem = PurePosixPath(name).stem
    there = next((cell for cell in cells if _is_timing(cell, stem)), None)
    check = _cell("code", there["id"] if there else "page-time", KERNEL[lang] + TIMING.format(name=stem))
    show_timing(check, lang)  # before it is run, a learner wants to know how long that takes
    start = _cell("markdown", "how-to-run", HOW[lang].format(time=time_needed(name, cells, lang)))
    found = [check if cell is there else cell for cell in cells]
    at = 1 if title({"cells": found[:1]}) else 0
    return [*found[:at], start, *([] if there else [check]), *found[at:]]


def check_kernel_first(cells: Sequence[Cell], lang: str) -> list[Cell]:
    """The cells, the first one with code after a sentence for a kernel that has no bertcourse."""
    first = next((cell for cell in cells if cell["cell_type"] == "code"), None)
    source = (KERNEL[lang] + "\n" + "".join(first["source"])).splitlines(keepends=True) if first else []
    return [cell | {"source": source} if cell is first else cell for cell in cells]


def is_exercise(name: str) -> bool:
    """Is it a notebook of exercises?"""
    return PurePosixPath(name).parts[0] == FOLDER and CHAPTER.fullmatch(PurePosixPath(name).name) is not None


def _after(name: str, titles: Mapping[str, str]) -> list[str]:
    """The names that follow in order."""
    names = [*titles]
    return names[names.index(name) + 1:] if name in titles else []


def last_cell(name: str, titles: Mapping[str, str], lang: str) -> Cell:
    """Where to go from here: `titles` are those of all chapters, in order."""
    home = "../" * (len(PurePosixPath(name).parts) - 1) + INDEX
    after = [*titles] if name == FRONT else _after(name, titles)
    if after:
        text = NEXT[lang].format(title=titles[after[0]], link=after[0])
    else:
        text = (LAST if name in titles else BACK)[lang].format(link=home)
    return _cell("markdown", "next-page", text)


def last_cell_of_exercises(name: str, titles: Mapping[str, str], exercises: Mapping[str, str], lang: str) -> Cell:
    """From exercises back to their chapter, and on to the next ones."""
    chapter = PurePosixPath(name).name
    lines = [CHAPTER_OF[lang].format(title=titles[chapter], link=f"../{chapter}")] if chapter in titles else []
    if after := _after(name, exercises):
        lines.append(NEXT_EXERCISES[lang].format(title=exercises[after[0]], link=PurePosixPath(after[0]).name))
    lines.append(BACK[lang].format(link=f"../{INDEX}"))
    return _cell("markdown", "next-page", "\n\n".join(lines))


def furnish(pages: Mapping[str, dict[str, Any]], lang: str) -> None:
    """Give the notebooks of a workspace their first and last cells; `pages` are in order and changed in place."""
    titles = {name: title(page) or name for name, page in pages.items() if CHAPTER.fullmatch(name)}
    exercises = {name: title(page) or name for name, page in pages.items() if is_exercise(name)}
    for name, page in pages.items():
        if name in exercises:
            page["cells"] = [*check_kernel_first(page["cells"], lang), last_cell_of_exercises(name, titles, exercises, lang)]
        else:
            for cell in page["cells"]:  # in the repository chapters and exercises lie in two folders
                cell["source"] = [line.replace("](../exercises/", "](exercises/") for line in cell["source"]]
            page["cells"] = [*first_cells(name, page["cells"], lang), last_cell(name, titles, lang)]
