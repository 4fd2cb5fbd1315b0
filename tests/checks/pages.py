"""What a page that is done must be: short cells and lines, prose before code, questions, places to try, captions as data."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

from bertcourse.languages import LANGUAGES

from . import reading
from .outline import OUTLINE

Complaints = Iterator[str]
MOST_CELLS, MOST_LINES, MOST_LINES_OF_A_CLASS, MOST_CHARACTERS, MOST_IMPORTS = 90, 15, 40, 100, 15
LEAST_QUESTIONS, LEAST_TRIES = 4, 4
QUESTION = {"zh": "**猜一猜**", "en": "**Predict:**"}
INTERNAL = {"style", "dress", "PALETTE"}  # names that a learner never needs
IN_A_ROW = 3  # code cells without prose between them


def done() -> list[str]:
    """The notebooks that these checks hold for."""
    return tomllib.loads(OUTLINE.read_text(encoding="utf-8"))["pages_done"]


def _code(notebook: dict) -> Iterator[tuple[str, str, dict]]:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield cell.get("id", "?"), "".join(cell["source"]), cell


def _visible(notebook: dict) -> Iterator[tuple[str, str, dict]]:
    """Code cells that a reader sees."""
    for id, source, cell in _code(notebook):
        if not reading.HIDDEN.search(source) and "#| default_exp" not in source:
            yield id, source, cell


def _exports(source: str) -> bool:
    return bool(re.search(r"^#\|\s*exports?\b", source, re.MULTILINE))


def length(notebook: dict, name: str) -> Complaints:
    """One sitting."""
    if (count := len(notebook["cells"])) > MOST_CELLS:
        yield f"{name}: {count} cells, at most {MOST_CELLS}: move a part to a second page or to helpers/"


def sizes_of_cells(notebook: dict, name: str) -> Complaints:
    """Lines and cells that fit on the page."""
    for id, source, _ in _visible(notebook):
        lines = [line for line in source.split("\n") if line.strip() and not line.startswith("#|")]
        is_class = _exports(source) and any(isinstance(node, ast.ClassDef) for node in reading.tree(source).body)
        most = MOST_LINES_OF_A_CLASS if is_class else MOST_LINES
        if _exports(source) and not is_class:  # parameters with docments are lines of their own
            most = MOST_LINES + sum(len(node.args.args) + len(node.args.kwonlyargs) for node in reading.tree(source).body
                                    if isinstance(node, ast.FunctionDef))  # fmt: skip
        if len(lines) > most:
            yield f"{name}#{id}: {len(lines)} lines, at most {most}"
        if (wide := max(map(len, source.split("\n")), default=0)) > MOST_CHARACTERS:
            yield f"{name}#{id}: a line of {wide} characters, at most {MOST_CHARACTERS}"


def prose_before_code(notebook: dict, name: str) -> Complaints:
    """No more than a few code cells in a row, the imports at the top left out."""
    row = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            row = 0
        elif not reading.HIDDEN.search(source) and not re.search(r"^#\|\s*(default_exp|export\b)", source, re.MULTILINE):
            row += "en" not in cell["metadata"].get("tags", ())  # a cell and its twin are one
            if row > IN_A_ROW:
                yield f"{name}#{cell.get('id')}: the {row}th code cell in a row: say before it what it shows"


def captions(notebook: dict, name: str) -> Complaints:
    """Captions are data; a cell holds one language."""
    for id, source, cell in _visible(notebook):
        for both in reading.captions(source):
            yield f"{name}#{id}: a caption in the cell ({', '.join(both)}=): put it into assets/captions.toml"
        if reading.HAS_CJK.search(source) and not {*LANGUAGES} & {*cell["metadata"].get("tags", ())}:
            yield f"{name}#{id}: Chinese in a cell of both languages: make a twin of it, tagged zh and en"


def twins(notebook: dict, name: str) -> Complaints:
    """A code cell in one language is followed by its twin in the other."""
    cells = notebook["cells"]
    for before, cell, after in zip([{}, *cells], cells, [*cells[1:], {}], strict=False):
        tags = {*cell["metadata"].get("tags", ())} & {*LANGUAGES} if cell["cell_type"] == "code" else set()
        partner = {"zh": after, "en": before}.get(next(iter(tags), ""), None)
        if tags and (len(tags) > 1 or not {*LANGUAGES} - tags <= {*(partner or {}).get("metadata", {}).get("tags", ())}):
            yield f"{name}#{cell.get('id')}: tagged {', '.join(sorted(tags))}, without its twin beside it (zh first, then en)"


def names(notebook: dict, name: str) -> Complaints:
    """No names of the course's own machinery, no `claim` that shows nothing."""
    for id, source, _ in _visible(notebook):
        tree = reading.tree(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if alias.name in INTERNAL:
                        yield f"{name}#{id}: imports {alias.name}, which a learner never needs"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "claim":
                if not any(k.arg == "show" for k in node.keywords):
                    yield f"{name}#{id}: a claim that shows nothing: into the hidden cell at the end of the section"


def questions(notebook: dict, name: str) -> Complaints:
    """Enough to predict, in each language, and the answer not before the next cell of code."""
    for lang in LANGUAGES:
        cells = [c for c in reading.cells(notebook) if c.lang == lang]
        count = sum(QUESTION[lang] in c.text for c in cells)
        if count < LEAST_QUESTIONS:
            yield f"{name}: {count} questions to predict in {lang} ({QUESTION[lang]}), at least {LEAST_QUESTIONS}"
        for c in cells:
            after = c.text.partition(QUESTION[lang])[2]
            if after and len(re.findall(r"[?？]", after)) == 0:
                yield f"{c.where}: {QUESTION[lang]} without a question"
            if after and "\n\n" in after.strip():
                yield f"{c.where}: prose after the question: the answer comes after the code"


def tries(notebook: dict, name: str) -> Complaints:
    """Enough places for one's own input."""
    count = sum(len(re.findall(r"# try\b", source)) for _, source, cell in _visible(notebook) if "zh" not in cell["metadata"].get("tags", ()))
    if count < LEAST_TRIES:
        yield f"{name}: {count} places marked # try, at least {LEAST_TRIES}"


def figures(notebook: dict, name: str) -> Complaints:
    """Every picture has a caption, which is its description for a screen reader, and labelled axes."""
    for id, source, cell in _visible(notebook):
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            if "<svg" in html and "<figcaption" not in html:
                yield f"{name}#{id}: a picture without a caption"
        for node in ast.walk(reading.tree(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("plot_lines", "plot_stacked", "plot_heatmaps", "plot_dots"):
                given = {k.arg for k in node.keywords}
                if "caption" not in given:
                    yield f"{name}#{id}: {node.func.id} without caption="
                labelled = given & {"xlabel", "scale", "format", "ylabel"}
                if not labelled:
                    yield f"{name}#{id}: {node.func.id} without a label on an axis (xlabel=, ylabel= or scale=)"


CHECKS = [length, sizes_of_cells, prose_before_code, captions, twins, names, questions, tries, figures]
