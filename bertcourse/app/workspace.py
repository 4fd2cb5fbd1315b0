"""A learner's workspace: the course's notebooks in one language, in a folder that belongs to the learner.

What the learner changed is never overwritten. The file `.bertcourse.json` remembers, for every file handed out, the
SHA-256 of its bytes and of its content, so that a file with another content is known to be the learner's own; so is
every file that it does not know, and all of them where it is missing or damaged. The content of a notebook is
everything except the line in which Jupyter notes the kernel's language version: it does so whenever it opens one.
"""

from __future__ import annotations

import base64
import errno
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import bertcourse
from bertcourse import __version__
from bertcourse.app import pages
from bertcourse.app.pages import CHAPTER, INDEX
from bertcourse.assets import asset
from bertcourse.base import atomic
from bertcourse.base.atomic import digest
from bertcourse.base.messages import UserError, plural, reader_language
from bertcourse.languages import LANGUAGES, WORKSPACE_FILE, learner_notebook

UPDATE = "bertcourse lab --update"  # in the default folder
LANGUAGE_NAMES = {"zh": {"zh": "中文", "en": "英文"}, "en": {"zh": "Chinese", "en": "English"}}


# --- what the course hands out ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Handout:
    """One file of the course, ready for the learner."""

    data: bytes
    source: str  # SHA-256 of the file it was made from


def _is_course_file(name: PurePosixPath) -> bool:
    """Not a checkpoint, a build folder or an editor's file."""
    return not any(part.startswith((".", "_")) for part in name.parts)


def _notebooks(folder: Path) -> Iterator[tuple[PurePosixPath, Path]]:
    """The notebooks under a folder, with their names relative to it, in order."""
    for path in sorted(folder.rglob("*.ipynb")):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if _is_course_file(name) and path.is_file():
            yield name, path


_PICTURE = re.compile(r"(!\[[^\]]*\]\()(images/[\w.-]+\.png)\)")


def _attach_pictures(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The notebook with the pictures of its text inside: a workspace has no folder of pictures, and a page may be moved."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        names = [found[2] for found in _PICTURE.finditer(source)] if cell["cell_type"] == "markdown" else []
        if names:
            cell["attachments"] = {Path(name).name: {"image/png": base64.b64encode((folder / name).read_bytes()).decode()} for name in names}
            cell["source"] = _PICTURE.sub(lambda found: f"{found[1]}attachment:{Path(found[2]).name})", source).splitlines(keepends=True)
    return notebook


def _read_notebook(name: str, raw: bytes, path: Path, lang: str) -> dict[str, Any]:
    """A course notebook in the learner's language."""
    try:
        if pages.is_exercise(name):
            from bertcourse.exercises.pages import learner_sheet
            return learner_sheet(json.loads(raw), path.stem, lang)
        return _attach_pictures(learner_notebook(json.loads(raw), lang), path.parent)
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{path} is not a notebook ({error!r}): reinstall bertcourse, or fix the file in a clone",
                        f"{path} 不是有效的笔记本（{error!r}）：请重新安装 bertcourse，或修好该文件") from None


def _to_bytes(notebook: dict[str, Any]) -> bytes:
    """A notebook in the form in which Jupyter itself writes it."""
    return (json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


_OF_A_RUN = ("language_info", "widgets")  # what a kernel leaves in a notebook's metadata
_OF_A_VIEW = ("collapsed", "execution", "ExecuteTime", "jupyter", "scrolled", "trusted")  # and in those of its cells


def content_digest(data: bytes) -> str:
    """SHA-256 of what somebody wrote in a notebook, without what opening and running it leave; of all bytes if it is none."""
    try:
        notebook = json.loads(data)
        for name in _OF_A_RUN:
            notebook["metadata"].pop(name, None)
        notebook["metadata"].get("kernelspec", {}).pop("display_name", None)  # an editor's name for the same kernel
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
            cell.pop("outputs", None)
            cell.pop("execution_count", None)
            for name in _OF_A_VIEW:
                cell["metadata"].pop(name, None)
        return digest(json.dumps(notebook, sort_keys=True).encode())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return digest(data)


_INDEX_TEXT = {
    "zh": """# BERT 课程

点开一章，按 Shift+Enter 逐个运行单元格：

{chapters}
{exercises}
这个文件夹是你自己的：随便改、随便试。再次运行 `bertcourse lab` 不会动你改过的文件；`bertcourse lab --update` \
会补上新的内容，更新你没动过的文件（只运行过、没改过的也算），你改过的则原样保留，\
新版本放在旁边（文件名里带 `.new-`）。删掉的文件也由 `--update` 找回。\
如果这个文件夹不是当前文件夹里的 `bertcourse-work`，请加上 `--dir` 和它的路径。

`bertcourse doctor` 检查这台机器能不能运行每一章。
""",
    "en": """# A course on BERT

Open a chapter and run its cells one by one with Shift+Enter:

{chapters}
{exercises}
This folder is yours: change and try whatever you like. Running `bertcourse lab` again leaves alone what you \
changed; `bertcourse lab --update` adds what is new, renews the files you never touched (those that you only ran, too), \
and puts a new version beside those you changed (with `.new-` in its name). It also brings back what you deleted. \
If this folder is not `bertcourse-work` in the current folder, add `--dir` and its path.

`bertcourse doctor` checks whether this machine can run each chapter.
""",
}


_EXERCISES_TEXT = {
    "zh": "第 1 到 7 章有练习，写完一题立刻知道对不对；`bertcourse progress` 显示做了多少：",
    "en": "Chapters 1 to 7 have exercises that are checked at once; `bertcourse progress` shows how far you are:",
}


def _index(notebooks: dict[str, dict[str, Any]], lang: str) -> Handout:
    """The workspace's own page, with a link to each chapter and how long it takes."""
    colon = "：" if lang == "zh" else ": "
    links, exercises = [], []
    for name, notebook in notebooks.items():
        if pages.is_exercise(name):
            exercises.append(f"- [{pages.title(notebook) or name}]({name})")
        elif CHAPTER.fullmatch(name):
            links.append(f"- [{pages.title(notebook) or name}]({name}){colon}{pages.time_needed(name, notebook['cells'], lang)}")
    more = "\n".join(["", _EXERCISES_TEXT[lang], "", *exercises, ""]) if exercises else ""
    data = _INDEX_TEXT[lang].format(chapters="\n".join(links), exercises=more).encode()
    return Handout(data, digest(data))


def handouts(lang: str) -> dict[str, Handout]:
    """Everything the course hands out in `lang`, by its name in the workspace. Raises `UserError`."""
    try:
        sources = [(name, path) for name, path in _notebooks(asset("course"))]
    except FileNotFoundError as error:
        raise UserError(str(error), "这份 bertcourse 里没有课程笔记本：请用 pip 重新安装") from None
    try:
        sources += [("exercises" / name, path) for name, path in _notebooks(asset("exercises"))]
    except FileNotFoundError:
        pass  # there are none yet
    raw = {str(name): (path, path.read_bytes()) for name, path in sources}
    notebooks = {name: _read_notebook(name, data, path, lang) for name, (path, data) in raw.items()}
    index = _index(notebooks, lang)
    pages.furnish(notebooks, lang)
    files = {name: Handout(_to_bytes(notebook), digest(raw[name][1])) for name, notebook in notebooks.items()}
    return files | {INDEX: index}


# --- what the workspace remembers ---------------------------------------------------------------------------------

@dataclass
class State:
    """The content of `.bertcourse.json`."""

    lang: str
    version: str = __version__
    complete: bool = False  # has a run got to its end? Until then a missing file is one not yet written
    files: dict[str, dict[str, str]] = field(default_factory=dict)  # name: SHA-256 "handed", "content", "source"

    def to_bytes(self) -> bytes:
        """As it is stored."""
        return (json.dumps(vars(self), ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def _parse_state(raw: bytes) -> State | None:
    """The stored state, or None if it is damaged."""
    try:
        state = State(**json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return None
    sound = (state.lang in LANGUAGES and isinstance(state.version, str) and isinstance(state.complete, bool)
             and isinstance(state.files, dict)
             and all(isinstance(e, dict) and isinstance(e.get("handed"), str) for e in state.files.values()))
    return state if sound else None


def read_state(root: Path, lang: str | None) -> tuple[State | None, bool]:
    """The workspace's state (None if there is none yet), and whether it was damaged. Raises `OSError`.

    A damaged state knows no files; its language is what can still be read of it, else `lang`, else the locale's.
    """
    try:
        raw = (root / WORKSPACE_FILE).read_bytes()
    except FileNotFoundError:
        return None, False
    if state := _parse_state(raw):
        return state, False
    legible = re.search(rb'"lang"\s*:\s*"(zh|en)"', raw)
    return State(legible[1].decode() if legible else lang or reader_language(), complete=True), True


# --- bringing the two together ------------------------------------------------------------------------------------

@dataclass
class Report:
    """What a run did, as names of files in the workspace."""

    root: Path
    lang: str
    damaged: bool = False  # the state file could not be read
    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)  # new versions put beside the learner's own
    kept: list[str] = field(default_factory=list)  # changed by the learner, left alone
    waiting: list[str] = field(default_factory=list)  # `--update` would add or renew these

    def lines(self, update: str = UPDATE) -> list[str]:
        """Two to four lines for the learner, in the workspace's language; `update` is the command that renews this folder."""
        zh = self.lang == "zh"
        counts = [(self.created, "新增", "new"), (self.updated, "更新", "updated"),
                  (self.kept, "保留你改过的", "kept as you left them")]
        done = [f"{z} {len(names)} 个文件" if zh else f"{e} {len(names)}" for names, z, e in counts if names]
        out = [f"工作区（中文）：{self.root}" if zh else f"Workspace (English): {self.root}",
               "、".join(done) + "。" if zh and done else "一切照旧。" if zh else
               (" · ".join(done) if done else "Nothing to do: everything is in place.")]
        if self.beside:
            out.append("新版本放在你的文件旁边：" + "、".join(self.beside) if zh else
                       "New versions beside your own: " + ", ".join(self.beside))
        if self.damaged:
            out.append(f"{WORKSPACE_FILE} 已损坏：现有文件一律当作你自己的；--update 可补齐缺少的。" if zh else
                       f"{WORKSPACE_FILE} was damaged: every file counts as your own; --update adds what is missing.")
        elif self.waiting:
            out.append(f"还有 {len(self.waiting)} 个文件可以补上或更新：{update}" if zh else
                       f"{plural(len(self.waiting), 'file')} can be added or renewed: {update}")
        return out


def _check_place(root: Path) -> None:
    """Refuse a file, and the course's own folders. Raises `UserError`."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: choose a folder with --dir", f"{root} 是一个文件：请用 --dir 换一个文件夹")
    here, package = root.resolve(), Path(bertcourse.__file__).resolve().parent
    course = asset("course").resolve()
    sources = [package, course]
    if course.parent != package / "assets":  # a clone: its root holds the sources too
        sources.append(course.parent / "exercises")
        if here == course.parent:
            sources.append(here)
    if any(here == source or source in here.parents for source in sources):
        raise UserError(f"{root} holds the sources of the course: choose another folder with --dir",
                        f"{root} 是课程源文件所在的位置：请用 --dir 换一个文件夹")


def _check_language(root: Path, has: str, wanted: str | None) -> None:
    """Refuse to change the language of a workspace. Raises `UserError`."""
    if wanted not in (None, has):
        names = LANGUAGE_NAMES
        raise UserError(
            f"{root} is a workspace in {names['en'][has]}: choose another folder with --dir for one in "
            f"{names['en'][wanted]}",
            f"{root} 是{names['zh'][has]}工作区：要用{names['zh'][wanted]}，请用 --dir 换一个文件夹")


def _beside_name(name: str, data: bytes) -> str:
    """`01_bert.new-0.1.0-1a2b3c4d.ipynb`: the version for the reader, the hash because a clone's version stays."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}.new-{__version__}-{digest(data)[:8]}{path.suffix}"))


def _taken(path: Path) -> bool:
    """Is there anything of this name, if only a dangling link?"""
    return path.exists() or path.is_symlink()


def _untouched(data: bytes, entry: dict[str, str] | None) -> bool:
    """Is this the content that was handed out?"""
    return entry is not None and (digest(data) == entry["handed"] or content_digest(data) == entry.get("content"))


def _hand_out(name: str, new: Handout, state: State, update: bool, report: Report) -> bool:
    """Bring one file up to date as far as the learner's edits allow; True if it now has the new bytes."""
    path, entry = report.root / name, state.files.get(name)
    if not _taken(path):
        if not update and (state.complete or entry):
            report.waiting.append(name)
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        if atomic.create(path, new.data):
            report.created.append(name)
            return True
    own = path.is_symlink() or not path.is_file()  # the learner's arrangement, whatever it is
    data = None if own else path.read_bytes()
    if data is not None and content_digest(data) == content_digest(new.data):
        return True
    if data is not None and _untouched(data, entry):
        if not update:
            report.waiting.append(name)
            return False
        if atomic.replace_untouched(path, new.data, digest(data)):
            report.updated.append(name)
            return True
    report.kept.append(name)
    if entry is None or entry["handed"] != digest(new.data):  # there is something the learner's version does not have
        _offer(name, new, update, report)
    return False


def _offer(name: str, new: Handout, update: bool, report: Report) -> None:
    """Put a new version beside the learner's own, once."""
    other = _beside_name(name, new.data)
    if _taken(report.root / other):
        return
    if not update:
        report.waiting.append(name)
    elif atomic.create(report.root / other, new.data):
        report.beside.append(other)


def _begin(root: Path, lang: str | None) -> tuple[State, bool]:
    """The state of an existing workspace, or that of a new one, which is created with its language settled."""
    root.mkdir(parents=True, exist_ok=True)
    while True:
        state, damaged = read_state(root, lang)
        if state:
            return state, damaged
        state = State(lang or reader_language())
        if atomic.create(root / WORKSPACE_FILE, state.to_bytes()):  # of two processes one wins, the other reads
            return state, False


def prepare(root: Path, lang: str | None = None, update: bool = False) -> Report:
    """Make or renew the workspace `root`.

    `lang` is "zh", "en" or None: the language the workspace has, or the locale's for a new one. With `update`, what is
    new is added, what the learner deleted comes back, untouched files are renewed, and a new version is put beside
    each changed one. Raises `UserError`; what was written until then is whole, and a second run completes it.
    """
    root = root.expanduser().absolute()
    try:
        _check_place(root)
        known, _ = read_state(root, lang)
        _check_language(root, known.lang if known else lang, lang)
        files = handouts(known.lang if known else lang or reader_language())  # fails before anything is written
        state, damaged = _begin(root, lang)
        _check_language(root, state.lang, lang)
        if not known:  # another process may have settled the language meanwhile
            files = handouts(state.lang)
        return _fill(root, files, state, damaged, update)
    except OSError as error:
        raise _explain(error, root) from None


def _fill(root: Path, files: dict[str, Handout], state: State, damaged: bool, update: bool) -> Report:
    """Hand out every file and remember it."""
    report = Report(root, state.lang, damaged)
    before = b"" if damaged else state.to_bytes()
    entries = dict(state.files)
    for name, new in files.items():
        if _hand_out(name, new, state, update, report):
            entries[name] = {"handed": digest(new.data), "content": content_digest(new.data), "source": new.source}
    state.files = entries
    if update or not state.complete:
        state.version = __version__
    state.complete = True
    if state.to_bytes() != before:
        atomic.replace(root / WORKSPACE_FILE, state.to_bytes())
    return report


def _explain(error: OSError, root: Path) -> UserError:
    """An error of the file system as one sentence."""
    where = error.filename2 or error.filename or root
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return UserError(f"no space is left for {root}: make room and run the command again, nothing was lost",
                         f"{root} 所在的磁盘已满：请腾出空间后再运行一次，没有丢失任何内容")
    reason = error.strerror or str(error)
    return UserError(f"cannot write {where} ({reason}): choose another folder with --dir",
                     f"无法写入 {where}（{reason}）：请用 --dir 换一个文件夹")


def first_page(root: Path) -> str | None:
    """What JupyterLab opens: the first chapter that is there, else the workspace's page, else nothing."""
    chapters = sorted(path.name for path in root.glob("*.ipynb") if CHAPTER.fullmatch(path.name))
    if chapters:
        return chapters[0]
    return INDEX if (root / INDEX).is_file() else None
