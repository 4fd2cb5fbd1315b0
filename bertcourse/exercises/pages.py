"""Exercise notebooks as people get them: the learner's copy, and the pages of the site. Light: no definition is run for the copy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bertcourse.assets import asset
from bertcourse.base.bilingual import Text
from bertcourse.exercises.loading import DEFINITION, HEADING, Entry, Sheet, read_entries
from bertcourse.languages import LANGUAGES, learner_notebook, split_marker

Cell = dict[str, Any]
STARS = {1: "★☆☆", 2: "★★☆", 3: "★★★"}
KINDS = {"Exercise": Text("编程", "coding"), "Bug": Text("找错", "find the bug"), "Question": Text("思考", "question"),
         "Experiment": Text("实验", "experiment")}
SOLUTIONS = "_solutions"  # ending of a page's name


def chapter_aims(page: str) -> dict[str, list[str]]:
    """The aims that a chapter names at its top, by language."""
    cells = json.loads((asset("course") / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    found: dict[str, list[str]] = {lang: [] for lang in LANGUAGES}
    for cell in cells:
        lang, text = split_marker("".join(cell["source"]))
        if str(cell.get("id", "")).startswith("aims") and lang:
            found[lang] = [line[2:].strip() for line in text.splitlines() if line.startswith("- ")]
    return found


def facts_line(entry: Entry, aims: Mapping[str, Sequence[str]], lang: str) -> str:
    """`★★☆ · coding · about 12 minutes · Aim 2: …`, in Markdown."""
    facts = entry.facts
    aim = aims[lang][facts.aim - 1].rstrip(";；。.")
    if lang == "zh":
        return f"{STARS[facts.level]} · {KINDS[facts.kind].zh} · 约 {facts.minutes} 分钟 · *目标 {facts.aim}：{aim}*"
    return f"{STARS[facts.level]} · {KINDS[facts.kind].en} · about {facts.minutes} minutes · *Aim {facts.aim}: {aim}*"


def amount(entries: Sequence[Entry], lang: str) -> str:
    """`10 exercises, about 93 minutes`."""
    minutes = sum(entry.facts.minutes for entry in entries)
    return f"{len(entries)} 题，约 {minutes} 分钟" if lang == "zh" else f"{len(entries)} exercises, about {minutes} minutes"


# --- the learner's copy -------------------------------------------------------------------------------------------

def with_facts(notebook: Mapping[str, Any], page: str) -> dict[str, Any]:
    """A source notebook whose prompts say level, kind, minutes and aim below the heading, and whose first text says minutes in all."""
    entries, aims = {entry.id: entry for entry in read_entries(notebook, page)}, chapter_aims(page)
    introduced = set()

    def add(cell: Cell) -> Cell:
        source = "".join(cell["source"])
        lang, text = split_marker(source)
        if cell["cell_type"] != "markdown" or not lang:
            return cell
        if found := HEADING.search(text):
            line = facts_line(entries[found[1]], aims, lang)
            return cell | {"source": source.replace(found[0], f"{found[0]}\n\n{line}", 1)}
        if lang not in introduced:
            introduced.add(lang)
            end = "。" if lang == "zh" else "."
            return cell | {"source": f"{source.rstrip()}\n\n{amount([*entries.values()], lang)}{end}"}
        return cell

    return dict(notebook) | {"cells": [add(cell) for cell in notebook["cells"]]}


def learner_sheet(notebook: Mapping[str, Any], page: str, lang: str) -> dict[str, Any]:
    """The notebook that a learner fills in, in one language: no definitions, no solutions."""
    copy = learner_notebook(with_facts(notebook, page), lang)
    for cell in copy["cells"]:
        cell["source"] = [line.replace("](../nbs/", "](../") for line in cell["source"]]
    if any(DEFINITION.search("".join(cell["source"])) for cell in copy["cells"]):
        raise ValueError(f"{page}: a definition is not hidden")
    return copy


# --- the site -----------------------------------------------------------------------------------------------------

def _markdown(id: str, text: str) -> Cell:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": text.splitlines(keepends=True)}


def _notebook(cells: Sequence[Cell]) -> dict[str, Any]:
    kernel = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    return {"cells": list(cells), "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}


def _folded(summary: str, text: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _code(source: str) -> str:
    return f"```python\n{source.strip()}\n```"


def _linked(text: str) -> str:
    return text.replace("](../nbs/", "](../")


def anchor(id: str) -> str:
    """The anchor of an exercise on its page and on that of its solution."""
    return f"exercise-{id.replace('.', '-')}"


def prompt_text(entry: Entry, aims: Mapping[str, Sequence[str]], lang: str) -> str:
    """An exercise's part of its page on the site."""
    from bertcourse.exercises.definition import Exercise
    task = entry.task()
    hint, solution = ("提示", "解答") if lang == "zh" else ("Hint", "Solution")
    parts = [f"## {entry.id} {entry.titles[lang]} {{#{anchor(entry.id)}}}", facts_line(entry, aims, lang), _linked(entry.prompts[lang])]
    if isinstance(task, Exercise):
        parts.append(_code(entry.stub))
    parts += [_folded(f"{hint} {i}", one[lang]) for i, one in enumerate(task.hints, 1)]
    parts.append(f"[{solution}]({entry.page}{SOLUTIONS}.ipynb#{anchor(entry.id)})")
    return "\n\n".join(parts)


def _bullets(texts: Sequence[Text], lang: str) -> str:
    return "\n".join(f"- {text[lang]}" for text in texts)


def solution_text(entry: Entry, lang: str) -> str:
    """An exercise's part of the page of solutions: folded."""
    from bertcourse.exercises.definition import Exercise, Question
    from bertcourse.exercises.feedback import solution_source
    task = entry.task()
    zh = lang == "zh"
    if isinstance(task, Exercise):
        origin = [task.origin[lang]] if task.origin else []
        mistakes = ("常见错误：" if zh else "Common mistakes:") + "\n\n" + _bullets([one.text for one in task.mistakes], lang)
        inner = "\n\n".join([_code(solution_source(task)), *origin, mistakes])
    elif isinstance(task, Question):
        inner = "\n\n".join([task.answer[lang], "好的回答会说到：" if zh else "A good answer says:", _bullets(task.points, lang)])
    else:
        inner = task.explanation[lang]
    back = "题目" if zh else "The exercise"
    return "\n\n".join([f"## {entry.id} {entry.titles[lang]} {{#{anchor(entry.id)}}}", _folded("解答" if zh else "Solution", inner),
                        f"[{back}]({entry.page}.ipynb#{anchor(entry.id)})"])


def site_pages(sheet: Sheet, lang: str) -> dict[str, dict[str, Any]]:
    """Two pages of the site by file name: the exercises with folded hints, and their solutions, folded."""
    aims, chapter, zh = chapter_aims(sheet.page), f"../{sheet.page}.ipynb", lang == "zh"
    head = f"# {sheet.title[lang]}\n\n> {amount(sheet.entries, lang)}"
    how = (f"先读[这一章]({chapter})。用 `bertcourse lab` 打开课程，练习在 `exercises/{sheet.page}.ipynb`：写完一题，运行 `check`，立刻知道对错。" if zh else
           f"Read [the chapter]({chapter}) first. `bertcourse lab` opens the course; the exercises are in `exercises/{sheet.page}.ipynb`, where "
           "`check` says at once whether an answer is right.")
    prompts = [_markdown(f"ex-{entry.id.replace('.', '-')}", prompt_text(entry, aims, lang)) for entry in sheet.entries]
    solved = re.sub(r"^(练习|Exercises)", "解答" if zh else "Solutions", sheet.title[lang])
    answers = [_markdown(f"sol-{entry.id.replace('.', '-')}", solution_text(entry, lang)) for entry in sheet.entries]
    first = f"# {solved}\n\n> {'先自己做，再展开' if zh else 'Try first, then unfold'}"
    return {f"{sheet.page}.ipynb": _notebook([_markdown("title", head), _markdown("how", how), *prompts]),
            f"{sheet.page}{SOLUTIONS}.ipynb": _notebook([_markdown("title", first), *answers])}
