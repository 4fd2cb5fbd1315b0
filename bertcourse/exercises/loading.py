"""Find exercises in the notebooks of `exercises/`: prompt, cell to fill in, definition."""

from __future__ import annotations

import ast
import functools
import json
import linecache
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertcourse.assets import asset
from bertcourse.base.bilingual import Text
from bertcourse.base.errors import UserError
from bertcourse.languages import LANGUAGES, pick_title, split_marker

if TYPE_CHECKING:
    from bertcourse.exercises.definition import Task

FOLDER = "exercises"  # in the clone, in the wheel, in a workspace
HEADING = re.compile(r"^## (\d\.\d+) (.+)$", re.MULTILINE)
DEFINITION = re.compile(r"^#\|\s*exercise:\s*(\d\.\d+)\s*$", re.MULTILINE)
KINDS = ("Exercise", "Bug", "Question", "Experiment")
HIDDEN = re.compile(r"^#\|\s*hide\b", re.MULTILINE)


@dataclass(frozen=True)
class Facts:
    """What the first line of a prompt says of an exercise."""

    kind: str  # one of `KINDS`
    aim: int
    level: int
    minutes: int


def read_facts(definition: str) -> Facts:
    """The facts in a definition's source, without running it: that would import PyTorch."""
    calls = [node.value for node in ast.parse(definition).body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    call = next(one for one in calls if isinstance(one.func, ast.Name) and one.func.id in KINDS)
    values = {keyword.arg: keyword.value for keyword in call.keywords}
    kind = "Bug" if "origin" in values else call.func.id
    return Facts(kind, *(ast.literal_eval(values[name]) for name in ("aim", "level", "minutes")))


@dataclass
class Entry:
    """One exercise as its notebook holds it."""

    id: str
    page: str  # the notebook's name without .ipynb
    titles: dict[str, str] = field(default_factory=dict)  # by language
    prompts: dict[str, str] = field(default_factory=dict)  # Markdown without the heading, by language
    definition: str = ""  # source of the hidden cell
    stub: str = ""  # source of the cell to fill in; empty for a question

    @property
    def title(self) -> Text:
        """The heading in both languages, without the number."""
        return Text(**self.titles)

    @property
    def prompt(self) -> Text:
        """The prompt in both languages."""
        return Text(**self.prompts)

    @property
    def facts(self) -> Facts:
        """Kind, aim, level and minutes, without running the definition."""
        return read_facts(self.definition)

    def task(self) -> Task:
        """The definition, from running its cell in a namespace of its own."""
        return _run_definition(self.id, self.definition)


@functools.cache
def _run_definition(id: str, source: str) -> Task:
    name = f"<exercise {id}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)  # `inspect.getsource` finds it
    namespace: dict[str, Any] = {"__name__": f"bertcourse.exercises.definition_{id.replace('.', '_')}"}
    exec(compile(source, name, "exec"), namespace)  # ours, from the package
    return namespace["exercise"]


def _source(cell: Mapping[str, Any]) -> str:
    return "".join(cell["source"])


def _read_prose(entry: Entry, lang: str, text: str) -> None:
    """Add a markdown cell to the prompt of its language."""
    entry.prompts[lang] = "\n\n".join(filter(None, [entry.prompts.get(lang, ""), text.strip()]))


def read_entries(notebook: Mapping[str, Any], page: str) -> Iterator[Entry]:
    """The exercises of a source notebook, in order."""
    entries: dict[str, Entry] = {}
    current: Entry | None = None
    for cell in notebook["cells"]:
        source = _source(cell)
        if cell["cell_type"] == "markdown":
            lang, text = split_marker(source)
            if found := HEADING.search(text):
                current = entries.setdefault(found[1], Entry(found[1], page))
                for one in LANGUAGES if lang is None else (lang,):
                    current.titles[one] = found[2].strip()
                text = text[found.end():]
            elif re.search(r"^## ", text, re.MULTILINE):
                current = None  # another part of the page
            if current is not None and "answer" not in cell.get("metadata", {}).get("tags", ()):
                for one in LANGUAGES if lang is None else (lang,):
                    _read_prose(current, one, text)
        elif current is not None and (found := DEFINITION.search(source)):
            current.definition = source
        elif current is not None and not HIDDEN.search(source) and not current.stub:
            current.stub = source
    yield from entries.values()


@dataclass(frozen=True)
class Sheet:
    """One notebook of exercises."""

    page: str  # "02_transformer"
    path: Path
    title: Text
    entries: tuple[Entry, ...]


def read_sheet(path: Path) -> Sheet:
    """A source notebook and its exercises."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    first = _source(notebook["cells"][0]).splitlines()[0]
    titles = {lang: pick_title(first, lang).removeprefix("# ").strip() for lang in LANGUAGES}
    return Sheet(path.stem, path, Text(**titles), tuple(read_entries(notebook, path.stem)))


@functools.cache
def load_sheets() -> tuple[Sheet, ...]:
    """All notebooks of exercises, in the order of the course. Raises `UserError` where this installation has none."""
    try:
        folder = asset(FOLDER)
    except FileNotFoundError as error:
        raise UserError(str(error), "这份 bertcourse 里没有练习：请用 pip 重新安装") from None
    return tuple(read_sheet(path) for path in sorted(folder.glob("[0-9]*.ipynb")))


def find_entry(id: str) -> Entry:
    """The exercise with an id, such as "2.3". Raises `UserError`; for a number, too, because 2.10 is the number 2.1."""
    if not isinstance(id, str):
        raise UserError('an exercise is named by a text: write its number in quotes, such as "2.10"', '练习的编号是文本：请加引号，例如 "2.10"')
    entries = {entry.id: entry for sheet in load_sheets() for entry in sheet.entries}
    if entry := entries.get(id.strip()):
        return entry
    chapter = id.strip().partition(".")[0]
    there = [one for one in entries if one.partition(".")[0] == chapter] or [*entries]
    raise UserError(f"there is no exercise {id!r}: here are {there[0]} to {there[-1]}" if there else "there are no exercises here",
                    f"没有练习 {id!r}：有 {there[0]} 到 {there[-1]}" if there else "这里没有练习")
