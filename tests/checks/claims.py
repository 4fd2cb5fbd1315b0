"""Finds the calls of `claim` in a cell and what is wrong with them, without running it."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bertcourse.claims import Claim

MEASURES = ("computed", "timed")


@dataclass(frozen=True)
class Call:
    id: str | None  # None where it is not a literal
    measured: ast.expr | None
    shown: bool


def _loop_values(tree: ast.AST) -> dict[str, list[str]]:
    "Names that a `for` runs over a list of literals: name → the literals."
    found = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.For)
            and isinstance(node.target, ast.Name)
            and isinstance(node.iter, (ast.List, ast.Tuple))
        ):
            if all(isinstance(e, ast.Constant) for e in node.iter.elts):
                found[node.target.id] = [e.value for e in node.iter.elts]
    return found


def calls(source: str) -> Iterator[Call]:
    "Every call of `claim`, one for each id that a loop gives it."
    tree = ast.parse(source)
    loops = _loop_values(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "claim"):
            continue
        keywords = {k.arg: k.value for k in node.keywords}
        measured = node.args[1] if len(node.args) > 1 else keywords.get("measured")
        shown = isinstance(keywords.get("show"), ast.Constant) and bool(keywords["show"].value)
        first = node.args[0] if node.args else keywords.get("id")
        if isinstance(first, ast.Constant):
            yield Call(first.value, measured, shown)
        else:
            for id in loops.get(getattr(first, "id", None), [None]):
                yield Call(id, measured, shown)


def _typed_in(value: ast.expr, literals: set[str]) -> bool:
    "Is a value made of nothing but literals, or of names that were given literals?"
    if isinstance(value, ast.Name):
        return value.id in literals
    names = [n.id for n in ast.walk(value) if isinstance(n, ast.Name)]
    return all(
        name in literals or name in ("float", "int", "str", "bool", "list", "tuple", "round", "abs") for name in names
    )


def complaints(source: str, ledger: Mapping[str, Claim]) -> list[str]:
    "What is wrong with the calls of `claim` in a cell."
    tree = ast.parse(source)
    literals: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _typed_in(node.value, literals):
            literals |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    found = []
    for call in calls(source):
        entry = ledger.get(call.id)
        if call.id is None:
            found.append("the id of a claim is not written out")
        elif entry is None:
            found.append(f"{call.id}: no such claim")
        elif entry.kind in MEASURES and call.measured is None:
            found.append(f"{call.id}: nothing measured")
        elif entry.kind not in MEASURES and call.measured is not None:
            found.append(f"{call.id}: there is nothing to measure")
        elif call.measured is not None and _typed_in(call.measured, literals):
            found.append(f"{call.id}: measured is a literal, not a computed value")
    return found
