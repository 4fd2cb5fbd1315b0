"""What may import what: base < inside < chapters < models < serving < jobs < grading < app, and no circles."""

import ast
import graphlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.check

PACKAGE = Path(__file__).parents[1] / "bertcourse"
LAYERS = ("base", "assets", "inside", "chapters", "drill", "exercises", "models", "serving", "jobs", "grading", "app")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py")) if "_modidx" not in path.name}


def layer(module: str) -> str:
    parts = module.split(".")
    if parts[1:] == ["__main__"]:
        return "app"
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else "chapters"


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imported(module: str, tree: ast.AST, package: bool) -> set[str]:
    """The modules of ours that a module imports anywhere, in functions too, but not for type checkers only."""
    found: set[str] = set()
    pending = [tree]
    while pending:
        node = pending.pop()
        if only_for_types(node):
            continue
        pending += ast.iter_child_nodes(node)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base for alias in node.names]
        found |= {name for name in names if name in FILES and name != "bertcourse"}
    return found - {module}


def graph(files: dict[str, Path]) -> dict[str, set[str]]:
    return {name: imported(name, ast.parse(path.read_text(encoding="utf-8")), path.name == "__init__.py") for name, path in files.items()}


def upward(found: dict[str, set[str]]) -> list[str]:
    """Imports against the order of the layers."""
    wrong = []
    for module, others in found.items():
        for other in others:
            a, b = layer(module), layer(other)
            if LAYERS.index(b) > LAYERS.index(a):
                wrong.append(f"{module} imports {other}")
    return sorted(wrong)


def circle(found: dict[str, set[str]]) -> list[str]:
    """The modules of a circle of imports, if there is one."""
    try:
        graphlib.TopologicalSorter(found).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_imports_go_one_way():
    assert upward(graph(FILES)) == []


def test_imports_make_no_circle():
    assert circle(graph(FILES)) == []


@pytest.mark.parametrize("source, says", [
    ("from bertcourse.app import cli", "bertcourse.files imports bertcourse.app.cli"),
    ("def f():\n    from .app.cli import main", "bertcourse.files imports bertcourse.app.cli"),
    ("import bertcourse.serving.web", "bertcourse.files imports bertcourse.serving.web"),
])
def test_an_import_against_the_order_is_found(tmp_path, source, says):
    planted = tmp_path / "files.py"
    planted.write_text(source, encoding="utf-8")
    assert upward(graph(FILES | {"bertcourse.files": planted})) == [says]


def test_a_circle_is_found(tmp_path):
    planted = tmp_path / "errors.py"
    planted.write_text("def f():\n    from bertcourse.base import atomic, messages\n", encoding="utf-8")
    assert set(circle(graph(FILES | {"bertcourse.base.errors": planted}))) >= {"bertcourse.base.errors", "bertcourse.base.messages"}
