"""What a notebook's file must look like: outputs that teach, clean metadata, cells a reader can take in."""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bertcourse.languages import LANGUAGES

from . import outputs as compared
from . import reading
from .planting import KERNELSPEC

Complaints = Iterator[str]
MOST_CELLS = 140  # of a chapter, both languages; about 120 is what design asks for
MOST_CHARACTERS = 140  # of a line of code; 120 is the aim


def _texts(output: dict) -> Iterator[str]:
    """Everything in an output that a reader may see."""
    for value in [
        output.get("text", ""),
        *(v for k, v in output.get("data", {}).items() if not k.startswith("image/png")),
    ]:
        yield value if isinstance(value, str) else "".join(map(str, value))


_PATHS = [
    re.escape(str(Path.home())) + r"\b/\w",
    re.escape(str(reading.ROOT)),
    r"(?<![\w.])/(?:home|Users|root)/\w",
    r"(?<![\w./])/(?:tmp|var|private)/\w",
    r"\b[A-Z]:\\\\?Users\b",
    r"site-packages",
    r"<ipython-input-",
    r"ipykernel_\d+",
]
_UNWANTED = [
    (re.compile("|".join(_PATHS)), "a path of this machine"),
    (re.compile(r"\b\w*Warning\b\s*:|\bwarnings?\.warn\("), "a warning"),
    (re.compile(r"\bit/s\b|\bs/it\b|\d+%\|[^\n]{0,80}\||[█▉▊▋▌▍▎▏]{2}|[━╸]{4}"), "the remains of a progress bar"),
    (re.compile(r"\b0x[0-9a-fA-F]{6,}"), "a memory address"),
    (re.compile("\x1b\\["), "terminal colours"),
    (re.compile(r"\r(?!\n)"), "a carriage return"),
]


def outputs(notebook: dict, name: str) -> Complaints:
    """Stored outputs hold no error, nothing from stderr, nothing of this machine."""
    for cell in _code(notebook):
        where = f"{name}#{cell.get('id')}"
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                yield f"{where}: stored an error: {output.get('ename')}"
                continue
            if output.get("name") == "stderr":
                yield f"{where}: stored something from stderr: {''.join(output['text'])[:60]!r}"
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                yield f"{where}: stored a widget, which a reader cannot see"
            for text in _texts(output):
                for pattern, what in _UNWANTED:
                    if found := pattern.search(text):
                        yield f"{where}: stored {what}: {found[0][:60]!r}"


def _code(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


_SHOWS = re.compile(r"(?:plot_\w+|show_\w+|token_grid|Figure|display|print)$")


def shown(notebook: dict, name: str) -> Complaints:
    """A cell that ends in a figure, or prints, has its output stored."""
    for cell in _code(notebook):
        source = "".join(cell["source"])
        if (
            cell["outputs"]
            or re.search(r"^\s*#\|\s*eval:\s*false", source, re.MULTILINE)
            or source.rstrip().endswith(";")
        ):
            continue
        body = reading.tree(source).body
        last = body[-1] if body else None
        calls = [
            n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Call) and _called(n.value) == "print"
        ]
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
            calls.append(last)
        for call in calls:
            if _SHOWS.match(_called(call.value)):
                yield f"{name}#{cell.get('id')}: {_called(call.value)} shows something, but no output is stored"
                break


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


_ID = re.compile(r"(?=.*[a-z])[a-z0-9][a-zA-Z0-9_-]{0,63}")


def form(notebook: dict, name: str) -> Complaints:
    """Metadata, ids and sources are as `nbdev_clean` and Quarto want them."""
    if notebook.get("metadata") != {"kernelspec": KERNELSPEC}:
        yield f"{name}: metadata is not what nbdev_clean leaves: {notebook.get('metadata')}"
    if (notebook.get("nbformat"), notebook.get("nbformat_minor")) != (4, 5):
        yield f"{name}: not nbformat 4.5"
    for i, cell in enumerate(notebook["cells"]):
        where = f"{name}#{cell.get('id', i)}"
        if not _ID.fullmatch(str(cell.get("id", ""))):
            yield f"{where}: a cell needs an id that is a name (letters, digits, - and _), and stays"
        source = cell["source"]
        if not isinstance(source, list):
            yield f"{where}: the source is not a list of lines"
        elif any("\n" in line[:-1] or (line[-1:] != "\n" and n < len(source) - 1) for n, line in enumerate(source)):
            yield f"{where}: an entry of the source is not one line"
        if not "".join(source).strip():
            yield f"{where}: empty cell"
        if cell["cell_type"] == "code" and cell.get("execution_count") is not None:
            yield f"{where}: has an execution count; run nbdev_clean"
        if cell["metadata"].keys() - {"tags"}:
            yield f"{where}: has metadata {sorted(cell['metadata'])}; run nbdev_clean"
        if unknown := set(cell["metadata"].get("tags", [])) - {*compared.TAGS, *LANGUAGES}:
            yield f"{where}: has the tag {min(unknown)!r}; the tags that mean something are {', '.join([*compared.TAGS, *LANGUAGES])}"
    for id, count in Counter(cell.get("id") for cell in notebook["cells"]).items():
        if count > 1:
            yield f"{name}#{id}: {count} cells have this id"


def size(notebook: dict, name: str) -> Complaints:
    """A chapter is one sitting, a line of code fits; lines of data in a long string may be longer."""
    if re.match(r"\d", Path(name).name) and len(notebook["cells"]) > MOST_CELLS:
        yield f"{name}: {len(notebook['cells'])} cells; a chapter has about 120, {MOST_CELLS} at most"
    yield from long_lines(notebook, name, MOST_CHARACTERS, data=False)


def _data_lines(source: str) -> set[int]:
    """Numbers of the lines that lie inside a string of several lines."""
    found = set()
    for node in ast.walk(reading.tree(source)):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and node.end_lineno > node.lineno:
            found |= set(range(node.lineno, node.end_lineno + 1))
    return found


def long_lines(notebook: dict, name: str, most: int = 120, data: bool = True) -> Complaints:
    """Lines of code longer than `most` characters; without `data`, those of long strings are left out."""
    for cell in _code(notebook):
        source = "".join(cell["source"])
        skipped = set() if data else _data_lines(source)
        for number, line in enumerate(source.splitlines(), 1):
            if len(line) > most and number not in skipped:
                yield f"{name}#{cell.get('id')}: {len(line)} characters in a line: {line.strip()[:50]!r}"


def bound(module: ast.AST) -> set[str]:
    """Every name that code binds, at any depth: imports, assignments, definitions, loops, arguments."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names |= _imported(node)
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            names |= _star(node)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            names.add(node.name)
    return names


def _imported(alias: ast.alias) -> set[str]:
    return {alias.asname or alias.name.partition(".")[0]} - {"*"}


def _star(node: ast.ImportFrom) -> set[str]:
    import importlib

    module = importlib.import_module("." * node.level + (node.module or ""), "bertcourse")
    return set(getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")])


def _top_level(body: list[ast.stmt]) -> set[str]:
    """Names bound for the cells that follow: not those inside functions, classes and comprehensions."""

    class Outer(ast.NodeVisitor):
        def __init__(self):
            self.names = set()

        def visit_FunctionDef(self, node):
            self.names.add(node.name)

        visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef

        def visit_Lambda(self, node):
            pass

        def visit_ListComp(self, node):
            self.names |= {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}

        visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

        def visit_Name(self, node):
            if isinstance(node.ctx, ast.Store):
                self.names.add(node.id)

        def visit_Import(self, node):
            self.names |= set().union(*(_imported(a) for a in node.names))

        def visit_ImportFrom(self, node):
            self.names |= _star(node) if node.names[0].name == "*" else set().union(*(_imported(a) for a in node.names))

        def visit_ExceptHandler(self, node):
            self.generic_visit(node)

    visitor = Outer()
    for statement in body:
        visitor.visit(statement)
    return visitor.names


def hidden_names(notebook: dict, name: str) -> Complaints:
    """A learner's notebook has no hidden cells, so no visible cell may use a name that only hidden cells define."""
    seen: set[str] = set()
    hidden: set[str] = set()
    for cell in _code(notebook):
        source = "".join(cell["source"])
        module = reading.tree(source)
        if reading.HIDDEN.search(source):
            hidden |= _top_level(module.body)
            continue
        used = {n.id for n in ast.walk(module) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        for lost in sorted(used & hidden - seen - bound(module) - set(dir(builtins))):
            yield f"{name}#{cell.get('id')}: uses {lost}, which only a hidden cell defines"
        seen |= _top_level(module.body)


def storable(notebook: dict, name: str) -> Complaints:
    """Outputs are stored in the form in which a rerun would store them, and only where they belong."""
    for cell in _code(notebook):
        where = f"{name}#{cell.get('id')}"
        if compared.join_streams(cell["outputs"]) != cell["outputs"]:
            yield f"{where}: what was printed is stored in several pieces: run `make outputs`"
        if cell["outputs"] and compared.is_live(cell):
            yield f"{where}: a timing is stored; it comes from timings.json when a page is made: run `make outputs`"
        if not cell["outputs"] and {*compared.TAGS} & set(cell["metadata"].get("tags", [])):
            yield f"{where}: a tag says how its output is compared, but it has none"


CHECKS: tuple[Callable[[dict, str], Complaints], ...] = (
    outputs,
    shown,
    form,
    size,
    storable,
    hidden_names,
)
