"""Functions are short: at most 40 lines and 8 parameters, in all packages that are written by hand."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertcourse import grading, jobs

pytestmark = pytest.mark.check

PACKAGE = Path(__file__).parents[1] / "bertcourse"
LINES, PARAMETERS = 40, 8
FOR_USERS = {*jobs.PLACES, *grading.PLACES, "__init__", "__call__"}  # one keyword argument for each option; of a tokenizer, those of transformers


def too_large(source: str, name: str) -> Iterator[str]:
    """Functions over the limits, docstrings counted, those that a user calls with options left out."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name in FOR_USERS:
            continue
        lines = node.end_lineno - node.lineno + 1
        count = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)
        if lines > LINES:
            yield f"{name}: {node.name} has {lines} lines"
        if count > PARAMETERS:
            yield f"{name}: {node.name} has {count} parameters"


def by_hand() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


@pytest.mark.parametrize("path", by_hand(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_functions_are_short(path):
    assert not list(too_large(path.read_text(encoding="utf-8"), path.name))


def test_a_long_function_is_found():
    body = "\n".join(["    x = 1"] * LINES)
    assert list(too_large(f"def f():\n{body}\n", "a.py")) == [f"a.py: f has {LINES + 1} lines"]
    arguments = ", ".join(f"a{i}" for i in range(PARAMETERS + 1))
    assert list(too_large(f"def f({arguments}): pass", "a.py")) == [f"a.py: f has {PARAMETERS + 1} parameters"]
