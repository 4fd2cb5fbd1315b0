"""What goes into the sandbox: the cells of a submission, and of each exercise its inputs, never its answer."""

from __future__ import annotations

import ast
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from bertcourse.exercises.loading import KINDS, Entry
from bertcourse.grading.sandbox import Limits

OURS = ("bertcourse.exercises", "bertcourse.experiments")  # imports that inputs need not


@dataclass(frozen=True)
class Inputs:
    """Code that makes an exercise's inputs and looks at results, without what knows the answer."""

    source: str
    cases: str  # the expression that gives the function of the inputs
    observe: str  # that of the function which looks at results; "" where there is none
    names: frozenset[str]  # what the source defines


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement at the top of a cell binds."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
    return []


def _names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _is_import(node: ast.stmt) -> bool:
    """An import that inputs may need."""
    return isinstance(node, ast.Import) or isinstance(node, ast.ImportFrom) and node.module not in OURS


def _settings(tree: ast.Module) -> dict[str, ast.expr]:
    """The arguments of the definition's `Exercise(…)`."""
    calls = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    call = next(one for one in calls if isinstance(one.func, ast.Name) and one.func.id in KINDS)
    return {keyword.arg: keyword.value for keyword in call.keywords}


@cache
def inputs_of(definition: str) -> Inputs:
    """The part of a definition's cell that its inputs need. Raises `ValueError` if that includes the answer or a mistake."""
    tree = ast.parse(definition)
    settings = _settings(tree)
    by_name = {name: node for node in tree.body for name in _defined(node)}
    wanted = [settings[name] for name in ("cases", "observe") if name in settings]
    needed, open_names = set(), {name for node in wanted for name in _names(node)}
    while open_names:
        name = open_names.pop()
        if name in by_name and name not in needed:
            needed.add(name)
            open_names |= _names(by_name[name])
    if answers := needed & {name for part in ("reference", "mistakes", "helpers") if part in settings for name in _names(settings[part])}:
        raise ValueError(f"inputs need {', '.join(sorted(answers))}, which is a part of the answer or of a mistake")
    kept = [node for node in tree.body if _is_import(node) or needed.intersection(_defined(node))]
    expressions = [ast.unparse(settings[name]) if name in settings else "" for name in ("cases", "observe")]
    return Inputs("\n\n".join(map(ast.unparse, kept)), *expressions, frozenset(needed))


def seed_of(secret: bytes, id: str) -> int:
    """The seed of an exercise's inputs; it tells nothing of the secret or of other exercises' seeds."""
    return int.from_bytes(hmac.digest(secret, id.encode(), hashlib.sha256)[:8], "big")


def request_of(cells: Sequence[str], entries: Sequence[Entry], secret: bytes, limits: Limits) -> bytes:
    """A request to the sandbox: code cells, and exercises that ask for a function."""
    exercises: list[dict[str, Any]] = []
    for entry in entries:
        inputs = inputs_of(entry.definition)
        exercises.append({"id": entry.id, "name": entry.task().name, "inputs": inputs.source, "cases": inputs.cases, "observe": inputs.observe,
                          "seed": seed_of(secret, entry.id), "seconds": limits.answer_seconds, "stub": entry.stub})
    return json.dumps({"cells": list(cells), "exercises": exercises, "limits": limits.inside(), "cell_seconds": limits.cell_seconds,
                       "seconds": limits.seconds}).encode()
